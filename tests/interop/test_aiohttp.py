"""aiohttp as a program; its client and server have aiohttp's own suite."""

from __future__ import annotations

import signal
import urllib.request

import pytest
from interop_process import child_env
from patience import PATIENCE

pytest.importorskip("aiohttp", reason="aiohttp is not installed")


def test_run_app(start, loop_kind):
    """aiohttp's own way to be a program, on a loop that it is given."""
    child = start("aiohttp_app.py", env=child_env(LOOP=loop_kind))
    port = int(child.wait_for(r"Running on http://127\.0\.0\.1:(\d+)")[1])
    url = f"http://127.0.0.1:{port}/"
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        assert response.read().decode() == loop_kind
    assert child.stop(signal.SIGINT) == 0
    assert "Traceback" not in child.log
