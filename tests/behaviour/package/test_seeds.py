"""Seeds: programs with a race fail with some, programs without with none."""

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastloop import testing

SEEDS = range(200)


@contextlib.asynccontextmanager
async def socket_pairs(count):
    """Pairs of sockets with their streams; the near ends are read."""
    readers, writers = [], []
    for _ in range(count):
        near, far = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=near)
        readers.append(reader)
        writers.append((writer, far))
    try:
        yield readers, [far for _, far in writers]
    finally:
        for writer, far in writers:
            writer.close()
            far.close()


# -- programs with a race -----------------------------------------------------


async def first_of_two_connections():
    """It takes the first answer, and expects that of the first request."""
    async with socket_pairs(2) as (readers, peers):
        answers = []

        async def answer(reader):
            answers.append(await reader.readexactly(1))

        for number, peer in enumerate(peers):
            peer.send(b"%d" % number)
        await asyncio.gather(*map(answer, readers))
        return answers == [b"0", b"1"]


async def timers_with_one_deadline():
    loop, order = asyncio.get_running_loop(), []
    when = loop.time() + 0.001
    for number in range(3):
        loop.call_at(when, order.append, number)
    await asyncio.sleep(0.002)
    return order == [0, 1, 2]


async def order_in_which_they_end(*waits):
    order = []

    async def wait(number, awaitable):
        await awaitable
        order.append(number)

    await asyncio.gather(*map(wait, range(len(waits)), waits))
    return order == sorted(order)


async def sleeps_of_one_length():
    return await order_in_which_they_end(*map(asyncio.sleep, [0.002] * 2))


async def results_of_two_jobs():
    return await order_in_which_they_end(*map(asyncio.to_thread, [int] * 2))


async def answer_before_a_count_of_iterations():
    """It expects the answer two iterations after it was sent."""
    async with socket_pairs(1) as (readers, peers):
        task = asyncio.ensure_future(readers[0].readexactly(1))
        await asyncio.sleep(0)
        peers[0].send(b"x")
        for _ in range(3):
            await asyncio.sleep(0)
        done = task.done()
        await task
        return done


# -- programs without ---------------------------------------------------------


async def order_of_call_soon():
    loop, order = asyncio.get_running_loop(), []
    for number in range(20):
        loop.call_soon(order.append, number)
        if number % 5 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    return order == [*range(20)]


async def bytes_of_one_connection():
    async with socket_pairs(1) as (readers, peers):
        for number in range(20):
            peers[0].send(b"%d." % number)
            await asyncio.sleep(0)
        text = b"".join(b"%d." % number for number in range(20))
        return await readers[0].readexactly(len(text)) == text


async def timers_with_two_deadlines():
    loop, order = asyncio.get_running_loop(), []
    now = loop.time()
    for number in (2, 0, 1):
        loop.call_at(now + 0.001 + number * 1e-6, order.append, number)
    await asyncio.to_thread(int)
    await asyncio.sleep(0.003)
    return order == [0, 1, 2]


@pytest.mark.parametrize(
    "main",
    [
        first_of_two_connections,
        timers_with_one_deadline,
        sleeps_of_one_length,
        results_of_two_jobs,
        answer_before_a_count_of_iterations,
    ],
)
def test_a_race_is_found(main):
    outcomes = {testing.run(main(), seed=seed) for seed in SEEDS}
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    "main",
    [order_of_call_soon, bytes_of_one_connection, timers_with_two_deadlines],
)
@pytest.mark.parametrize("virtual_time", [False, True])
def test_what_asyncio_promises_stays(main, virtual_time):
    options = {"virtual_time": virtual_time}
    assert all(testing.run(main(), seed=s, **options) for s in SEEDS)


async def jobs_that_nobody_awaits():
    ran = []
    loop = asyncio.get_running_loop()
    for number in range(50):
        loop.run_in_executor(None, ran.append, number)
    return ran


async def jobs_that_are_cancelled_at_once():
    loop, go, ran = asyncio.get_running_loop(), threading.Event(), []
    with ThreadPoolExecutor(1) as pool:
        loop.run_in_executor(pool, go.wait)
        for number in range(8):
            job = loop.run_in_executor(pool, ran.append, number)
            assert job.cancel()
            assert job.cancelled()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        go.set()
    return ran


@pytest.mark.parametrize(
    ("main", "ran"),
    [
        (jobs_that_nobody_awaits, [*range(50)]),
        (jobs_that_are_cancelled_at_once, []),
    ],
)
def test_jobs_run_as_without_a_seed(main, ran):
    assert all(sorted(testing.run(main(), seed=s)) == ran for s in range(8))


@pytest.mark.parametrize("virtual_time", [False, True])
def test_a_job_may_wait_for_the_result_of_another(virtual_time):
    async def main():
        got = threading.Event()
        long = asyncio.ensure_future(asyncio.to_thread(got.wait))
        for _ in range(3):
            await asyncio.to_thread(int)
        got.set()
        return await long

    for seed in range(4):
        assert testing.run(main(), seed=seed, virtual_time=virtual_time)


@pytest.mark.parametrize("virtual_time", [False, True])
def test_calls_of_a_thread_keep_their_order_among_timers(virtual_time):
    order = []

    async def main():
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def call():
            for number in range(20_000):
                loop.call_soon_threadsafe(int).cancel()
                loop.call_soon_threadsafe(order.append, number)
            loop.call_soon_threadsafe(done.set)

        def again():
            loop.call_later(0.001, again)

        for _ in range(10):
            again()
        threading.Thread(target=call).start()
        await done.wait()

    testing.run(main(), seed=1, virtual_time=virtual_time)
    assert order == [*range(20_000)]


async def order_of_answers():
    async with socket_pairs(6) as (readers, peers):
        order = []

        async def answer(number):
            await readers[number].readexactly(1)
            order.append(number)

        tasks = [asyncio.ensure_future(answer(n)) for n in range(6)]
        await asyncio.sleep(0)
        for peer in peers:
            peer.send(b"x")
        await asyncio.gather(*tasks)
        return tuple(order)


def test_one_seed_gives_one_order():
    orders = [testing.run(order_of_answers(), seed=s) for s in range(20)]
    assert len({*orders}) > 10
    assert orders == [
        testing.run(order_of_answers(), seed=s) for s in range(20)
    ]
