"""Polls and clocks that are late.  Run as a script, the tests' program:

    test_slow_systems.py delay|slow|events|wake|late MICROSECONDS
    test_slow_systems.py coarse MILLISECONDS

With `delay`, the thread is away before it polls, and its timers must not be
missed.  With `slow`, each poll takes so long, and the polls of a thousand
busy iterations, or of a thousand events, are counted.  With `coarse`, the
ticks of the coarse clock are so long, and the polls of a short sleep are
counted.  With `wake`, another thread wakes each of ten loops in its first
wait, while a poll takes so long.  With `late`, the waits of a worker end so
late that it takes no turns with others.
"""

from __future__ import annotations

import asyncio
import faulthandler
import socket
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from builds import ON_LIBUV
from fault_shim import SHIM
from turns import turns

import fastloop

#: Seconds after which it counts as hanging: it takes milliseconds.
PATIENCE = 40


def polls_of(main: Coroutine[Any, Any, None]) -> int:
    """Return how often a loop polls while it runs the coroutine."""
    loop = fastloop.new_event_loop()
    SHIM.fault_arm(b"epoll_wait", 0, 0, 0)
    loop.run_until_complete(main)
    polls = SHIM.fault_seen()
    loop.close()
    return polls


async def sleep_precisely() -> None:
    loop = asyncio.get_running_loop()
    for seconds in (0.001, 0.002, 0.0035):
        begin = loop.time()
        await asyncio.sleep(seconds)
        assert loop.time() - begin >= seconds


async def be_busy() -> None:
    for _ in range(1000):
        await asyncio.sleep(0)


async def watch() -> None:
    loop, done, left = asyncio.get_running_loop(), asyncio.Event(), 1000
    near, far = socket.socketpair()

    def received() -> None:
        nonlocal left
        near.recv(1)
        left -= 1
        if left:
            far.send(b"x")
        else:
            done.set()

    with near, far:
        loop.add_reader(near, received)
        far.send(b"x")
        await done.wait()
        loop.remove_reader(near)


async def sleep_often() -> None:
    for _ in range(100):
        await asyncio.sleep(0.001)


async def be_woken() -> None:
    loop = asyncio.get_running_loop()
    woken = loop.create_future()
    polling = threading.Event()

    def wake() -> None:
        polling.wait()  # ends when the loop releases the GIL, in its wait
        loop.call_soon_threadsafe(woken.set_result, None)

    thread = threading.Thread(target=wake)
    thread.start()
    loop.call_soon(polling.set)
    await woken
    thread.join()


async def take_turns() -> None:
    """Until the loop has noticed, in its waits, that it is late."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with await loop.create_server(asyncio.Protocol, sock=sock):
            assert turns() == 1
            while turns():
                await asyncio.sleep(0.001)


#: What a loop runs, and how many loops, one after the other.
WAYS = {
    "delay": (sleep_precisely, 1),
    "slow": (be_busy, 1),
    "events": (watch, 1),
    "wake": (be_woken, 10),
    "late": (take_turns, 1),
    "coarse": (sleep_often, 1),
}


def main(how: str, amount: int) -> None:
    """Run it in another thread than the main one, which wakes for signals."""
    (SHIM.fault_coarse if how == "coarse" else SHIM.fault_delay)(amount)
    run, count = WAYS[how]
    for _ in range(count):
        with ThreadPoolExecutor(1) as thread:
            print("polls", thread.submit(polls_of, run()).result())


if __name__ == "__main__":
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    main(sys.argv[1], int(sys.argv[2]))
    sys.exit(0)


# --- the tests -------------------------------------------------------------


@pytest.fixture
def polls(run_program):
    """Return a function that runs the program and returns how it polls."""
    return lambda *words: int(run_program(__file__, *words).split()[-1])


@pytest.mark.parametrize("microseconds", ["2000", "6000"])
def test_timers_due_just_before_the_poll_are_not_missed(polls, microseconds):
    """The wait that was computed before is then too long."""
    assert polls("delay", microseconds)


def test_a_wake_up_in_the_first_wait_of_a_loop_ends_it(polls):
    """Nothing that the loop prepares for its waits may take the wake-up."""
    assert polls("wake", "2000")


@pytest.mark.skipif(ON_LIBUV, reason="libuv's wakes all workers")
def test_all_workers_are_woken_beside_one_that_wakes_late(polls):
    assert polls("late", "10000")


def test_slow_polls_are_skipped_as_quick_ones_are(polls):
    """A sandbox or a tracer makes a system call long."""
    # Of 1,000: 40, and more where the loop is slow itself, as under a
    # sanitizer on a busy machine, or is preempted for long.
    quick = max(polls("slow", "0") for _ in range(3))
    assert min(polls("slow", "100") for _ in range(3)) < 300 + quick


def test_an_event_is_one_poll(polls):
    assert 1000 <= polls("events", "0") < 1200


@pytest.mark.parametrize("milliseconds", ["4", "50"])
def test_late_ticks_cost_at_most_one_poll_more(polls, milliseconds):
    """A virtual machine that waits for its processor misses ticks.  A sleep
    below a millisecond is a poll(), which is not counted, then a poll of the
    set, and at most one more for the tick.
    """
    assert polls("coarse", milliseconds) // 100 in (1, 2)
