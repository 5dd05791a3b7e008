"""Servers that docs/versions.md starts, on an asyncio without policies."""

from __future__ import annotations

import os
import urllib.request

import pytest
from interop_process import PATIENCE, child_env, free_port
from test_docs import named

#: asyncio of Python 3.16, as far as programs see it.
WITHOUT_POLICIES = """
import asyncio, threading
from asyncio import events, unix_events

asyncio.EventLoop = unix_events.EventLoop = asyncio.SelectorEventLoop
current = threading.local()


def new_event_loop():
    return asyncio.EventLoop()


def set_event_loop(loop):
    current.loop = loop


def get_event_loop():
    loop = events._get_running_loop() or getattr(current, "loop", None)
    if loop is None:
        raise RuntimeError("There is no current event loop")
    return loop


events._get_event_loop = lambda *args: get_event_loop()
for module in (asyncio, events, unix_events):
    for function in (new_event_loop, set_event_loop, get_event_loop):
        setattr(module, function.__name__, function)
    for name in [name for name in vars(module) if "EventLoopPolicy" in name]:
        if not name.startswith("_"):
            delattr(module, name)
    for name in ("get_event_loop_policy", "set_event_loop_policy"):
        vars(module).pop(name, None)

from fastloop._loop import _private

_private.DefaultPolicy = object
"""
SERVERS = {  # the words after its name, and what it prints when it serves
    "gunicorn": (
        "app:app -k asgi --asgi-loop asyncio --bind 127.0.0.1:{port}",
        "Listening at",
    ),
    "hypercorn": (
        "-k asyncio --workers 2 --bind 127.0.0.1:{port} app:app",
        "Running on",
    ),
    "sanic": ("sanic_app:app --port {port} --workers 2", "Worker ready"),
}


@pytest.mark.parametrize("server", SERVERS)
def test_run_serves_by_fastloop(server, start, tmp_path):
    module = pytest.importorskip(server)
    pytest.importorskip("fastapi", reason="FastAPI is not installed")
    if server == "gunicorn" and module.version_info < (24,):
        pytest.skip("its ASGI worker came with gunicorn 24")
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_POLICIES)
    name = "sanic_app.py" if server == "sanic" else "app.py"
    (tmp_path / name).write_text(named(name))
    port = free_port()
    words, ready = SERVERS[server]
    env = child_env()
    env["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    command = ["-m", "fastloop", "run", "-m", server]
    words = words.format(port=port).split()
    start(*command, *words, env=env).wait_for(ready)
    url = f"http://127.0.0.1:{port}/"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        assert b"<fastloop.Loop " in answer.read()
