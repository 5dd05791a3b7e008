"""How late a timer comes; a figure below 0 means that it came early.

Early is wrong: a program relies on having waited that long.  Each case has
a row for the median and one for the least, where an early timer shows.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from functools import partial

from harness.case import Case, Figure, LoopFactory, Row, Run, figure

ORDER = 70
TIMERS = 5


def lateness_of_sleep(new_loop: LoopFactory, run: Run) -> list[float]:
    delay = 100e-6
    late = []

    async def sleeper() -> None:
        end = time.monotonic() + run.seconds
        while time.monotonic() < end:
            start = time.monotonic()
            await asyncio.sleep(delay)
            late.append((time.monotonic() - start - delay) * 1e6)

    loop = new_loop()
    loop.run_until_complete(sleeper())
    loop.close()
    return late


def lateness_of_timer(
    new_loop: LoopFactory, run: Run, delay: float
) -> list[float]:
    """Return how many microseconds late each timer of `delay` came.

    Several run at a time, each after a random pause, so that timers start
    and fall due at any part of a millisecond and the loop is woken for one
    while another is almost due.
    """
    loop = new_loop()
    late = []
    pauses = random.Random(4)
    end = time.monotonic() + run.seconds

    def pause() -> None:
        loop.call_later(pauses.uniform(0, delay), start)

    def start() -> None:
        loop.call_later(delay, come, time.monotonic() + delay)

    def come(due: float) -> None:
        now = time.monotonic()
        late.append((now - due) * 1e6)
        if now > end and len(late) > 10:
            loop.stop()
        else:
            pause()

    for _ in range(TIMERS):
        pause()
    loop.run_forever()
    loop.close()
    return late


def late_case(
    key: str,
    title: str,
    lateness: Callable[[LoopFactory, Run], list[float]],
    seconds: float = 0.2,
) -> Case:
    def measure(new_loop: LoopFactory, run: Run) -> dict[str, Figure]:
        late = lateness(new_loop, run)
        return {key: figure(late), f"{key}_min": figure([min(late)])}

    rows = (
        Row(key, f"{title}, lateness p50", "us", "near 0"),
        Row(f"{key}_min", f"{title}, lateness least", "us", "near 0", "least"),
    )
    return Case(key, "core", rows, measure, seconds=seconds)


def timer_case(milliseconds: int, seconds: float) -> Case:
    return late_case(
        f"timer_{milliseconds}ms",
        f"timer of {milliseconds} ms",
        partial(lateness_of_timer, delay=milliseconds / 1_000),
        seconds,
    )


CASES = (
    late_case("sleep_100us", "asyncio.sleep(100 us)", lateness_of_sleep),
    timer_case(1, 0.2),
    timer_case(5, 0.3),
    timer_case(20, 0.5),
)
