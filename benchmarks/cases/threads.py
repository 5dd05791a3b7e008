"""Work handed to the default executor, and names that need none of it.

One job in flight measures the way there and back; with 64 the hand-over
amortises.  getaddrinfo of a literal address needs no resolver, so a loop
may answer it without a thread.
"""

from __future__ import annotations

import asyncio
import socket

from harness.case import Figure, LoopFactory, Run, simple_case

from cases.tasks import sample_coroutine

ORDER = 50
JOBS = 200
FLIGHTS = 20
NAMES = 100


def job() -> None:
    pass


def one_in_flight(new_loop: LoopFactory, run: Run) -> Figure:
    async def jobs() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(JOBS):
            await loop.run_in_executor(None, job)

    return in_microseconds(sample_coroutine(new_loop, run, jobs, JOBS))


def many_in_flight(new_loop: LoopFactory, run: Run) -> Figure:
    async def jobs() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(FLIGHTS):
            await asyncio.gather(
                *[loop.run_in_executor(None, job) for _ in range(64)]
            )

    return in_microseconds(sample_coroutine(new_loop, run, jobs, FLIGHTS * 64))


def literal(new_loop: LoopFactory, run: Run) -> Figure:
    async def names() -> None:
        getaddrinfo = asyncio.get_running_loop().getaddrinfo
        for _ in range(NAMES):
            await getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    return in_microseconds(sample_coroutine(new_loop, run, names, NAMES))


def in_microseconds(figure: Figure) -> Figure:
    return {
        "figure": figure["figure"] / 1_000,
        "least": figure["least"] / 1_000,
        "samples": [sample / 1_000 for sample in figure["samples"]],
    }


CASES = (
    simple_case(
        "executor", "run_in_executor, 1 in flight", one_in_flight, unit="us"
    ),
    simple_case(
        "executor_64",
        "run_in_executor, 64 in flight",
        many_in_flight,
        unit="us",
    ),
    simple_case("getaddrinfo", "getaddrinfo of a literal", literal, unit="us"),
)
