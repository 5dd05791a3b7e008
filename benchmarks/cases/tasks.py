"""What tasks make of the loop: switches, new tasks, gather and queues."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from harness.case import Figure, LoopFactory, Run, simple_case

ORDER = 40
SWITCHES = 5_000
TASKS = 100
CREATED = 2_000
GATHERED = 1_000
ITEMS = 2_000


def sample_coroutine(
    new_loop: LoopFactory,
    run: Run,
    make: Callable[[], Coroutine[Any, Any, object]],
    operations: int,
    least: int = 3,
) -> Figure:
    """Time whole runs of the coroutine that `make` gives."""
    loop = new_loop()
    asyncio.set_event_loop(loop)
    result = run.sample(
        lambda: loop.run_until_complete(make()), operations, least=least
    )
    asyncio.set_event_loop(None)
    loop.close()
    return result


async def switches(count: int) -> None:
    sleep = asyncio.sleep
    for _ in range(count):
        await sleep(0)


def sleep_alone(new_loop: LoopFactory, run: Run) -> Figure:
    return sample_coroutine(
        new_loop, run, lambda: switches(SWITCHES), SWITCHES
    )


def sleep_hundred(new_loop: LoopFactory, run: Run) -> Figure:
    each = SWITCHES // TASKS

    async def hundred() -> None:
        tasks = [asyncio.create_task(switches(each)) for _ in range(TASKS)]
        for task in tasks:
            await task

    return sample_coroutine(new_loop, run, hundred, each * TASKS)


async def trivial() -> None:
    pass


def create_and_await(new_loop: LoopFactory, run: Run) -> Figure:
    async def creator() -> None:
        create_task = asyncio.get_running_loop().create_task
        for _ in range(CREATED):
            await create_task(trivial())

    return sample_coroutine(new_loop, run, creator, CREATED)


def gather(new_loop: LoopFactory, run: Run) -> Figure:
    async def gatherer() -> None:
        await asyncio.gather(*[trivial() for _ in range(GATHERED)])

    return sample_coroutine(new_loop, run, gatherer, GATHERED)


def ping_pong(new_loop: LoopFactory, run: Run) -> Figure:
    async def answer(pings: asyncio.Queue, pongs: asyncio.Queue) -> None:
        for _ in range(ITEMS):
            pongs.put_nowait(await pings.get())

    async def play() -> None:
        pings: asyncio.Queue = asyncio.Queue()
        pongs: asyncio.Queue = asyncio.Queue()
        other = asyncio.create_task(answer(pings, pongs))
        for item in range(ITEMS):
            pings.put_nowait(item)
            await pongs.get()
        await other

    return sample_coroutine(new_loop, run, play, ITEMS)


CASES = (
    simple_case("sleep0", "sleep(0), 1 task", sleep_alone, serial=True),
    simple_case(
        "sleep0_100", "sleep(0), 100 tasks", sleep_hundred, serial=True
    ),
    simple_case(
        "create_task", "create_task + await", create_and_await, serial=True
    ),
    simple_case("gather_1000", "gather of 1,000", gather, serial=True),
    simple_case("queue", "Queue ping-pong", ping_pong, serial=True),
)
