"""gunicorn's master with two ASGI workers: uvicorn's, and its own."""

from __future__ import annotations

import http.client
import importlib.util
import json
import signal

import pytest
from interop_process import APPS
from patience import PATIENCE

pytest.importorskip("gunicorn", reason="gunicorn is not installed")
pytest.importorskip("fastapi", reason="FastAPI is not installed")

OWN = importlib.util.find_spec("gunicorn.workers.gasgi")


def options(worker: str, loop_kind: str) -> tuple[str, ...]:
    """What starts that kind of worker on that kind of loop."""
    if worker == "uvicorn":
        name = f"{loop_kind.capitalize()}Worker"
        return ("-k", f"gunicorn_fastloop.{name}")
    own = ("-k", "asgi", "--asgi-loop", "asyncio")
    if loop_kind == "fastloop":
        own += ("-c", str(APPS / "gunicorn_fastloop.py"))
    return own


@pytest.fixture(
    params=[
        "uvicorn",
        pytest.param(
            "asgi",
            marks=pytest.mark.skipif(
                OWN is None, reason="this gunicorn has no ASGI worker"
            ),
        ),
    ]
)
def gunicorn(request, start, loop_kind):
    """The child, its port: two workers of the kind are serving."""
    if request.param == "uvicorn":
        reason = "uvicorn-worker is not installed"
        pytest.importorskip("uvicorn_worker", reason=reason)
    child = start(
        *("-m", "gunicorn", "fastapi_app:app", "--workers", "2"),
        *("--bind", "127.0.0.1:0", "--graceful-timeout", "5"),
        *options(request.param, loop_kind),
    )
    port = int(child.wait_for(r"Listening at: http://[\d.]+:(\d+)")[1])
    child.wait_for("lifespan begins", times=2)
    return child, port


def ask(port, path):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    conn.request("GET", path)
    response = conn.getresponse()
    assert response.status == 200
    body = response.read()
    conn.close()
    return body


def test_two_workers(gunicorn, loop_kind):
    child, port = gunicorn
    for _ in range(50):
        reply = json.loads(ask(port, "/"))
        assert reply["loop"] == loop_kind
        assert reply["pid"] != child.child.pid
    lines = ask(port, "/stream?n=500").splitlines()
    assert lines == [b"line %d" % i for i in range(500)]
    assert json.loads(ask(port, "/thread?n=11")) == {"sum": 55}
    assert child.stop() == 0
    assert child.log.count("lifespan ends") == 2
    assert "Traceback" not in child.log


def test_reload_replaces_the_workers(gunicorn):
    """SIGHUP: new workers, and the old ones end of themselves."""
    child, port = gunicorn
    before = json.loads(ask(port, "/"))["pid"]
    child.child.send_signal(signal.SIGHUP)
    child.wait_for("lifespan begins", times=4)
    child.wait_for("lifespan ends", times=2)
    assert json.loads(ask(port, "/"))["pid"] != before
    assert child.stop() == 0
    assert "Traceback" not in child.log
