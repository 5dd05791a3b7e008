"""Work handed to the default executor, and names that need none of it.

One job in flight measures the way there and back; with 64 the hand-over
amortises.  getaddrinfo of a literal address needs no resolver, so a loop
may answer it without a thread.
"""

from __future__ import annotations

import asyncio
import socket

from harness.case import task_case

ORDER = 50
JOBS = 200
FLIGHTS = 20
NAMES = 100


def job() -> None:
    pass


async def fly(flights: int, jobs: int) -> None:
    """Wait for some jobs at once, again and again."""
    loop = asyncio.get_running_loop()
    for _ in range(flights):
        await asyncio.gather(
            *[loop.run_in_executor(None, job) for _ in range(jobs)]
        )


@task_case("executor", "run_in_executor, 1 in flight", JOBS, unit="us")
async def one_in_flight() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(JOBS):
        await loop.run_in_executor(None, job)


@task_case(
    "executor_64", "run_in_executor, 64 in flight", FLIGHTS * 64, unit="us"
)
async def many_in_flight() -> None:
    await fly(FLIGHTS, 64)


@task_case(
    "executor_10",
    "run_in_executor, 10 in flight, all ten",
    FLIGHTS,
    unit="us",
)
async def ten_in_flight() -> None:
    await fly(FLIGHTS, 10)


@task_case("getaddrinfo", "getaddrinfo of a literal", NAMES, unit="us")
async def literal() -> None:
    getaddrinfo = asyncio.get_running_loop().getaddrinfo
    for _ in range(NAMES):
        await getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)


CASES = (one_in_flight, ten_in_flight, many_in_flight, literal)
