"""How often a loop asks the system for events."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastloop

SLEEPS = 200
SLEEPER = f"""
import asyncio, fastloop

async def main():
    for _ in range({SLEEPS}):
        await asyncio.sleep(0.0015)

fastloop.run(main())
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_one_poll_per_iteration(tmp_path):
    """With libuv's idle-time metrics on, each wait is a poll and a wait."""
    log = tmp_path / "calls"
    home = str(Path(fastloop.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    # A sanitizer looks for leaks by ptrace, and finds the process traced.
    asan = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    done = subprocess.run(
        [
            *("strace", "-f", "-o", str(log), "-e"),
            "trace=epoll_wait,epoll_pwait,epoll_pwait2",
            *(sys.executable, "-c", SLEEPER),
        ],
        env={**os.environ, "PYTHONPATH": path, "ASAN_OPTIONS": asan},
        capture_output=True,
        text=True,
    )
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    calls = re.findall(r"epoll_\w+\((\d+),.*, (-?\d+)", log.read_text())
    waits = [epoll for epoll, timeout in calls if timeout != "0"]
    (waiting,) = set(waits)
    polls = [epoll for epoll, _ in calls if epoll == waiting]
    assert SLEEPS <= len(polls) < SLEEPS * 1.5, len(polls)
    # What the wait has found, and a look after it, before the task's step.
    assert len(calls) < SLEEPS * 3.5, len(calls)


def test_due_timers_need_no_poll_each():
    """A timer without delay is ready, as a callback is."""
    loop, left = fastloop.new_event_loop(), 1000
    loop.enable_metrics()

    def tick():
        nonlocal left
        left -= 1
        if left:
            loop.call_later(0, tick)
        else:
            loop.stop()

    loop.call_later(0, tick)
    loop.run_forever()
    polls = loop.metrics().polls
    loop.close()
    assert polls < 600
