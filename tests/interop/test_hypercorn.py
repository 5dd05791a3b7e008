"""hypercorn: by its command with worker processes, and as a coroutine."""

from __future__ import annotations

import http.client
import json
import signal

import pytest
from interop_process import CERTS, child_env
from patience import PATIENCE

pytest.importorskip("hypercorn", reason="hypercorn is not installed")
pytest.importorskip("fastapi", reason="FastAPI is not installed")

READY = r"Running on https?://127\.0\.0\.1:(\d+)"
COMMAND = ("-m", "hypercorn", "--bind", "127.0.0.1:0", "-k", "asyncio")
TLS = ("--certfile", str(CERTS / "localhost.pem"))
TLS += ("--keyfile", str(CERTS / "localhost.key"))


def use(conn, loop_kind):
    """Some requests on one connection."""

    def ask(method, path, body=None):
        conn.request(method, path, body)
        response = conn.getresponse()
        assert response.status == 200
        return response.read()

    reply = json.loads(ask("GET", "/"))
    assert reply["loop"] == loop_kind
    assert reply["lifespan"] is True
    body = bytes(range(256)) * 0x1000
    assert ask("POST", "/echo", body) == body
    lines = ask("GET", "/stream?n=300").splitlines()
    assert lines == [b"line %d" % i for i in range(300)]
    ask("POST", "/task?word=later")
    assert json.loads(ask("GET", "/done")) == "later"
    conn.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_command(start, loop_kind, workers):
    child = start(
        *COMMAND,
        *("--workers", str(workers), "hypercorn_app:app"),
        env=child_env(LOOP=loop_kind),
    )
    port = int(child.wait_for(READY, times=workers)[1])
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    use(conn, loop_kind)
    assert child.stop() == 0
    assert child.log.count("lifespan ends") == workers
    assert "Traceback" not in child.log


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_as_a_coroutine(start, loop_kind, signum):
    child = start("hypercorn_app.py", "0", env=child_env(LOOP=loop_kind))
    port = int(child.wait_for(READY)[1])
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    use(conn, loop_kind)
    assert child.stop(signum) in (0, -signum, 1)
    assert child.log.count("lifespan ends") == 1
