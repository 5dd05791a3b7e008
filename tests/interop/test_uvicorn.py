"""uvicorn serving FastAPI, as its users start it: `--loop module:factory`.

The clients are blocking ones or asyncio's, so that the loop under test is the
server's alone, and the same test on asyncio tells a fault of the program from
ours.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import signal

import pytest
from interop_process import LOOPS
from patience import PATIENCE

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("fastapi", reason="FastAPI is not installed")

READY = r"running on https?://127\.0\.0\.1:(\d+)"


def ask(conn, method, path, body=None, **kwargs):
    conn.request(method, path, body, **kwargs)
    response = conn.getresponse()
    assert response.status == 200
    return response.read()


@pytest.mark.parametrize("parser", ["httptools", "h11"])
def test_fastapi_over_one_connection(start, loop_kind, parser):
    """Every kind of request one after the other, and a clean end."""
    child = start(
        *("-m", "uvicorn", "fastapi_app:app", "--port", "0", "--http", parser),
        *("--loop", LOOPS[loop_kind], "--no-use-colors"),
    )
    port = int(child.wait_for(READY)[1])
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    reply = json.loads(ask(conn, "GET", "/"))
    sock = conn.sock
    assert reply["loop"] == loop_kind
    assert reply["lifespan"] is True
    assert ask(conn, "GET", "/plain") == b"Hello, world!"
    assert json.loads(ask(conn, "GET", "/thread?n=101")) == {"sum": 5050}
    lines = ask(conn, "GET", "/stream?n=2000").splitlines()
    assert lines == [b"line %d" % i for i in range(2000)]
    ask(conn, "POST", "/task?word=later")
    assert json.loads(ask(conn, "GET", "/done")) == "later"
    assert conn.sock is sock, "the connection was not kept alive"
    conn.close()
    assert child.stop() in (0, -signal.SIGTERM)
    assert child.log.count("lifespan begins") == 1
    assert child.log.count("lifespan ends") == 1
    assert "Traceback" not in child.log


@pytest.mark.parametrize("command", ["run", "dev", "run --workers=2"])
def test_fastapis_own_command_serves_under_run(start, command):
    """`dev` serves in a child, which it starts again if a file changes."""
    pytest.importorskip("fastapi_cli", reason="fastapi-cli is not installed")
    child = start(
        *("-m", "fastloop", "run", "-m", "fastapi", *command.split()),
        *("fastapi_app.py", "--host", "127.0.0.1", "--port", "0"),
    )
    port = int(child.wait_for(READY)[1])
    child.wait_for("startup complete")
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    while conn.sock is None:  # that child listens only now
        with contextlib.suppress(ConnectionRefusedError):
            conn.connect()
    assert json.loads(ask(conn, "GET", "/"))["loop"] == "fastloop"
    conn.close()
    assert child.stop(signal.SIGINT) == 0
    assert "lifespan ends" in child.log
