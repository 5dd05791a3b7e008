"""Run by test_slow_systems.py: fastloop on a system that is late.

    slow_system.py SHIM delay MICROSECONDS
    slow_system.py SHIM slow MICROSECONDS
    slow_system.py SHIM coarse MILLISECONDS

With `delay`, the thread is away before it polls, and its timers must not be
missed.  With `slow`, each poll takes so long, and the polls of a thousand
busy iterations are counted.  With `coarse`, the ticks of the coarse clock are
so long, and the polls of a short sleep are counted.
"""

from __future__ import annotations

import asyncio
import faulthandler
import sys
from collections.abc import Coroutine
from typing import Any

import fault_shim

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


async def sleep_often() -> None:
    for _ in range(100):
        await asyncio.sleep(0.001)


def main(how: str, amount: int) -> None:
    if how == "delay":
        SHIM.fault_delay(amount)
        polls_of(sleep_precisely())
        print("total", 3)
    elif how == "slow":
        SHIM.fault_delay(amount)
        print("total", polls_of(be_busy()))
    else:
        SHIM.fault_coarse(amount)
        print("total", polls_of(sleep_often()) // 100)


if __name__ == "__main__":
    SHIM = fault_shim.load(sys.argv[1])
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    main(sys.argv[2], int(sys.argv[3]))
