"""How often a loop asks the system for events."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builds import ON_LIBUV

import fastloop

SLEEPS = 200
SLEEPER = f"""
import asyncio, fastloop

async def main():
    for _ in range({SLEEPS}):
        await asyncio.sleep(0.0015)

fastloop.run(main())
"""


MESSAGES = 1000
READER = f"""
import asyncio, fastloop, os

async def main():
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    read, write = os.pipe()
    left = {MESSAGES}

    def received():
        nonlocal left
        os.read(read, 1)
        left -= 1
        if left:
            os.write(write, b"x")
        else:
            done.set()

    loop.add_reader(read, received)
    os.write(write, b"x")
    await done.wait()
    loop.remove_reader(read)
    os.close(read)
    os.close(write)

fastloop.run(main())
"""


def epoll_calls(program, log):
    """Return the epoll_wait calls of a Python program."""
    home = str(Path(fastloop.__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    # A sanitizer looks for leaks by ptrace, and finds the process traced.
    asan = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    done = subprocess.run(
        [
            *("strace", "-f", "-o", str(log), "-e"),
            "trace=epoll_wait,epoll_pwait,epoll_pwait2",
            *(sys.executable, "-c", program),
        ],
        env={**os.environ, "PYTHONPATH": path, "ASAN_OPTIONS": asan},
        capture_output=True,
        text=True,
    )
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    return re.findall(r"epoll_p?wait2?\(.*", log.read_text())


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.skipif(ON_LIBUV, reason="it is a poll() and an epoll_wait()")
@pytest.mark.parametrize(
    "program, iterations", [(SLEEPER, 2 * SLEEPS), (READER, MESSAGES)]
)
def test_a_poll_is_one_system_call(tmp_path, program, iterations):
    """Whether it waits, or finds a descriptor that is ready."""
    calls = epoll_calls(program, tmp_path / "calls")
    assert iterations <= len(calls) < iterations * 1.2, len(calls)


def polls_of_due_timers() -> int:
    """Return how often a loop polls in 1,000 iterations of such timers."""
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
    return polls


def test_due_timers_need_no_poll_each():
    """A timer without delay is ready, as a callback is.

    A loop that another process delays polls more often: one of several runs
    is not delayed.
    """
    assert any(polls_of_due_timers() < 600 for _ in range(10))
