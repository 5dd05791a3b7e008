"""What tasks make of the loop: switches, new tasks, gather and queues."""

from __future__ import annotations

import asyncio

from harness.case import task_case

ORDER = 40
SWITCHES = 5_000
TASKS = 100
CREATED = 2_000
GATHERED = 1_000
ITEMS = 2_000


async def switches(count: int) -> None:
    sleep = asyncio.sleep
    for _ in range(count):
        await sleep(0)


async def trivial() -> None:
    pass


async def gather_trivial(count: int) -> None:
    await asyncio.gather(*[trivial() for _ in range(count)])


@task_case("sleep0", "sleep(0), 1 task", SWITCHES)
async def sleep_alone() -> None:
    await switches(SWITCHES)


@task_case("sleep0_100", "sleep(0), 100 tasks", SWITCHES)
async def sleep_hundred() -> None:
    each = SWITCHES // TASKS
    for task in [asyncio.create_task(switches(each)) for _ in range(TASKS)]:
        await task


@task_case("create_task", "create_task + await", CREATED)
async def create_and_await() -> None:
    create_task = asyncio.get_running_loop().create_task
    for _ in range(CREATED):
        await create_task(trivial())


@task_case("gather_1000", "gather of 1,000", GATHERED)
async def gather() -> None:
    await gather_trivial(GATHERED)


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


CASES = (sleep_alone, sleep_hundred, create_and_await, gather, ping_pong)
