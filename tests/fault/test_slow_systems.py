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


def main(how: str, amount: int) -> None:
    if how == "delay":
        SHIM.fault_delay(amount)
        polls_of(sleep_precisely())
        print("total", 3)
    elif how == "slow":
        SHIM.fault_delay(amount)
        print("total", polls_of(be_busy()))
    elif how == "events":
        SHIM.fault_delay(amount)
        print("total", polls_of(watch()))
    elif how == "wake":
        SHIM.fault_delay(amount)
        for _ in range(10):
            # Not in the main thread, which also wakes up for signals.
            runner = threading.Thread(target=polls_of, args=(be_woken(),))
            runner.start()
            runner.join()
        print("total", 10)
    elif how == "late":
        SHIM.fault_delay(amount)
        polls_of(take_turns())
        print("total", 1)
    else:
        SHIM.fault_coarse(amount)
        print("total", polls_of(sleep_often()) // 100)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    main(sys.argv[1], int(sys.argv[2]))
    sys.exit(0)


# --- the tests -------------------------------------------------------------


@pytest.fixture
def total(run_program):
    """Return a function that runs the program and returns its total."""
    return lambda *words: int(run_program(__file__, *words).split()[1])


@pytest.mark.parametrize("microseconds", ["2000", "6000"])
def test_timers_due_just_before_the_poll_are_not_missed(total, microseconds):
    """The wait that was computed before is then too long."""
    assert total("delay", microseconds) == 3


def test_a_wake_up_in_the_first_wait_of_a_loop_ends_it(total):
    """Nothing that the loop prepares for its waits may take the wake-up."""
    assert total("wake", "2000") == 10


@pytest.mark.skipif(ON_LIBUV, reason="libuv's wakes all workers")
def test_all_workers_are_woken_beside_one_that_wakes_late(total):
    assert total("late", "10000") == 1


def test_slow_polls_are_skipped_as_quick_ones_are(total):
    """A sandbox or a tracer makes a system call long."""
    # Of 1,000: 40, and more where the loop is slow itself, as under a
    # sanitizer on a busy machine, or is preempted for long.
    quick = max(total("slow", "0") for _ in range(3))
    assert min(total("slow", "100") for _ in range(3)) < 300 + quick


def test_an_event_is_one_poll(total):
    assert 1000 <= total("events", "0") < 1200


@pytest.mark.parametrize("milliseconds", ["4", "50"])
def test_late_ticks_cost_at_most_one_poll_more(total, milliseconds):
    """A virtual machine that waits for its processor misses ticks.  A sleep
    below a millisecond is a poll(), which is not counted, then a poll of the
    set, and at most one more for the tick.
    """
    assert total("coarse", milliseconds) in (1, 2)
