"""Sanic in one process, and under its manager with worker processes."""

from __future__ import annotations

import http.client
import json

import pytest
from interop_process import child_env, free_port
from patience import PATIENCE

pytest.importorskip("sanic", reason="Sanic is not installed")


@pytest.fixture(params=[0, 2], ids=["single", "2-workers"])
def sanic(request, start, loop_kind):
    """The child that serves, its port, and how many workers it has."""
    port, workers = free_port(), request.param
    child = start(
        *("sanic_app.py", str(port), str(workers)),
        env=child_env(LOOP=loop_kind),
    )
    child.wait_for("worker serves", times=workers or 1)
    if workers:
        # A signal that finds the manager still starting is lost: wait until
        # it answers a worker.
        scale(port, workers)
        child.wait_for("No change needed")
    return child, port, workers


def scale(port, workers):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    ask(conn, "POST", f"/scale?n={workers}")
    conn.close()


def ask(conn, method, path, body=None, **kwargs):
    conn.request(method, path, body, **kwargs)
    response = conn.getresponse()
    assert response.status == 200
    return response.read()


def test_requests(sanic, loop_kind):
    """All on one connection, which one worker serves; and a clean end."""
    child, port, workers = sanic
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    reply = json.loads(ask(conn, "GET", "/"))
    sock = conn.sock
    assert reply["loop"] == loop_kind
    assert (reply["pid"] == child.child.pid) is (workers == 0)
    body = bytes(range(256)) * 0x1000
    assert ask(conn, "POST", "/echo", body) == body
    parts = [body[i : i + 0x8000] for i in range(0, len(body), 0x8000)]
    got = ask(conn, "POST", "/echo", iter(parts), encode_chunked=True)
    assert got == body
    ask(conn, "POST", "/task?word=later")
    assert ask(conn, "GET", "/done") == b"later"
    assert conn.sock is sock, "the connection was not kept alive"
    conn.close()
    assert child.stop() == 0
    assert child.log.count("worker ends") == (workers or 1)
    assert "Traceback" not in child.log
