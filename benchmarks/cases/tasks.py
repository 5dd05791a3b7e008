"""What tasks make of the loop, jobs of threads, and the life of a loop."""

from __future__ import annotations

import asyncio
import socket

from harness.case import (
    Figure,
    LoopFactory,
    Run,
    loop_case,
    simple_case,
    task_case,
)
from harness.network import pin

ORDER = 40
SWITCHES = 5_000
CREATED = 2_000
GATHERED = 1_000
ITEMS = 2_000
JOBS = 200
FLIGHTS = 20
NAMES = 100
RUNS = 200
LOOPS = 20


async def trivial() -> None:
    pass


@task_case("sleep0", "sleep(0), 1 task", SWITCHES)
async def sleep_alone() -> None:
    sleep = asyncio.sleep
    for _ in range(SWITCHES):
        await sleep(0)


@task_case("create_task", "create_task + await", CREATED)
async def create_and_await() -> None:
    create_task = asyncio.get_running_loop().create_task
    for _ in range(CREATED):
        await create_task(trivial())


@task_case("gather_1000", "gather of 1,000", GATHERED)
async def gather() -> None:
    await asyncio.gather(*[trivial() for _ in range(GATHERED)])


@task_case("queue", "Queue ping-pong", ITEMS)
async def ping_pong() -> None:
    pings: asyncio.Queue = asyncio.Queue()
    pongs: asyncio.Queue = asyncio.Queue()

    async def answer() -> None:
        for _ in range(ITEMS):
            pongs.put_nowait(await pings.get())

    other = asyncio.create_task(answer())
    for item in range(ITEMS):
        pings.put_nowait(item)
        await pongs.get()
    await other


def job() -> None:
    pass


async def jobs() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(JOBS):
        await loop.run_in_executor(None, job)


ONE_IN_FLIGHT = "run_in_executor, 1 in flight"
one_in_flight = task_case("executor", ONE_IN_FLIGHT, JOBS, unit="us")(jobs)


@loop_case("executor_one_cpu", f"{ONE_IN_FLIGHT}, one CPU", unit="us")
def one_on_one_cpu(loop: asyncio.AbstractEventLoop, run: Run) -> Figure:
    pin(0)
    return run.sample(
        lambda: loop.run_until_complete(jobs()), JOBS, unit=1_000
    )


@task_case(
    "executor_64", "run_in_executor, 64 in flight", FLIGHTS * 64, unit="us"
)
async def many_in_flight() -> None:
    loop = asyncio.get_running_loop()
    for _ in range(FLIGHTS):
        await asyncio.gather(
            *[loop.run_in_executor(None, job) for _ in range(64)]
        )


@task_case("getaddrinfo", "getaddrinfo of a literal", NAMES, unit="us")
async def literal() -> None:
    # It needs no resolver: a loop may answer without a thread.
    getaddrinfo = asyncio.get_running_loop().getaddrinfo
    for _ in range(NAMES):
        await getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)


@loop_case(
    "run_until_complete",
    "run_until_complete, trivial coroutine",
    unit="us",
)
def short_run(loop: asyncio.AbstractEventLoop, run: Run) -> Figure:
    def runs() -> None:
        for _ in range(RUNS):
            loop.run_until_complete(trivial())

    return run.sample(runs, RUNS, unit=1_000)


@simple_case("new_loop", "new_event_loop + close", unit="us")
def make_and_close(new_loop: LoopFactory, run: Run) -> Figure:
    def loops() -> None:
        for _ in range(LOOPS):
            new_loop().close()

    return run.sample(loops, LOOPS, unit=1_000)


CASES = (
    sleep_alone,
    create_and_await,
    gather,
    ping_pong,
    one_in_flight,
    one_on_one_cpu,
    many_in_flight,
    literal,
    short_run,
    make_and_close,
)
