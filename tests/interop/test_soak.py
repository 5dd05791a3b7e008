"""A short soak in every run; soak_uvicorn.py by hand does the long one."""

from __future__ import annotations

import http.client
import shutil
import socket
import sys

import pytest

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("httptools", reason="httptools is not installed")

import soak_uvicorn
from interop_process import LOOPS
from patience import PATIENCE


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_uvicorn_survives_a_load(loop_kind):
    seen = soak_uvicorn.soak(20_000, loop_kind)
    assert seen[-1][0] >= 20_000


PEERS = 32
# What a connection may hold: the high-water mark, the write that crossed it,
# and the objects of the connection, its request and its protocol.
EACH_KIB = 64 + 64 + 64


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peers_that_do_not_read_pin_little(start, loop_kind):
    """Endless answers to silent peers: each holds its mark, and no more."""
    child = start(
        *("-m", "uvicorn", "plain_asgi:app", "--loop", LOOPS[loop_kind]),
        *("--host", "127.0.0.1", "--port", "0", "--no-access-log"),
        *("--http", "httptools", "--lifespan", "off"),
        *("--timeout-graceful-shutdown", "1"),
    )
    port = int(child.wait_for(r"http://127\.0\.0\.1:(\d+)")[1])
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def sent() -> int:
        conn.request("GET", "/sent")
        return int(conn.getresponse().read())

    for _ in range(50):
        assert sent() == 0
    before = soak_uvicorn.resident_kib(child.child.pid)
    peers = []
    try:
        for _ in range(PEERS):
            peers.append(
                socket.create_connection(("127.0.0.1", port), PATIENCE)
            )
            peers[-1].sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        same, last = 0, -1
        while same < 100:
            now = sent()
            same = same + 1 if now == last else 0
            last = now
        assert last > PEERS * 64 * 1024
        pinned = soak_uvicorn.resident_kib(child.child.pid) - before
        assert pinned < PEERS * EACH_KIB
    finally:
        for peer in peers:
            peer.close()
        conn.close()
