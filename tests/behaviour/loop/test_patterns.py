"""The asynchronous patterns of everyday programs, on both loops."""

import asyncio
import collections
import contextlib
import os
import random
import signal
import threading
import time

import pytest
from patience import PATIENCE

# --- context managers, iterators, generators -------------------------------


async def test_context_managers_nest_and_clean_up():
    seen = []

    @contextlib.asynccontextmanager
    async def resource(name):
        await asyncio.sleep(0)
        seen.append(("open", name))
        try:
            yield name
        finally:
            await asyncio.sleep(0)
            seen.append(("close", name))

    with pytest.raises(ZeroDivisionError):
        async with resource("a") as a, resource("b") as b:
            assert (a, b) == ("a", "b")
            raise ZeroDivisionError
    assert seen == [
        ("open", "a"),
        ("open", "b"),
        ("close", "b"),
        ("close", "a"),
    ]


async def test_exit_stack():
    seen = []
    async with contextlib.AsyncExitStack() as stack:
        for number in range(3):

            async def close(n=number):
                await asyncio.sleep(0)
                seen.append(n)

            stack.push_async_callback(close)
        stack.callback(seen.append, "sync")
    assert seen == ["sync", 2, 1, 0]


async def test_an_iterator_class():
    class Countdown:
        def __init__(self, start):
            self.left = start

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            await asyncio.sleep(0)
            return self.left

    assert [n async for n in Countdown(4) if n != 2] == [3, 1, 0]


def test_a_pipeline_of_generators(run):
    async def source():
        for number in range(10):
            await asyncio.sleep(0)
            yield number

    async def squares(numbers):
        async for number in numbers:
            yield number * number

    async def pairs(numbers):
        previous = None
        async for number in numbers:
            if previous is not None:
                yield previous, number
            previous = number

    async def main():
        async with contextlib.aclosing(pairs(squares(source()))) as stream:
            return [pair async for pair in stream]

    assert run(main())[:3] == [(0, 1), (1, 4), (4, 9)]


# --- queues and primitives -------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3])
async def test_producers_and_consumers(size):
    queue = asyncio.Queue(size)
    got = []

    async def produce(name):
        for number in range(20):
            await queue.put((name, number))

    async def consume():
        while True:
            got.append(await queue.get())
            queue.task_done()

    consumers = [asyncio.ensure_future(consume()) for _ in range(3)]
    await asyncio.gather(*map(produce, "abc"))
    await queue.join()
    for consumer in consumers:
        consumer.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
    assert sorted(got) == sorted((n, i) for n in "abc" for i in range(20))
    for name in "abc":
        assert [i for n, i in got if n == name] == list(range(20))


async def test_priority_and_lifo_queues():
    first, last = asyncio.PriorityQueue(), asyncio.LifoQueue()
    for number in (3, 1, 2):
        await first.put(number)
        await last.put(number)
    one = [await first.get() for _ in range(3)]
    two = [await last.get() for _ in range(3)]
    assert (one, two) == ([1, 2, 3], [2, 1, 3])


async def test_a_getter_times_out_and_the_queue_works_on():
    queue = asyncio.Queue()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.002)
    queue.put_nowait("item")
    assert await asyncio.wait_for(queue.get(), PATIENCE) == "item"


async def test_lock_is_fair_and_exclusive():
    lock = asyncio.Lock()
    inside, order = [0], []

    async def worker(number):
        async with lock:
            inside[0] += 1
            assert inside[0] == 1
            order.append(number)
            await asyncio.sleep(0)
            inside[0] -= 1

    await asyncio.gather(*map(worker, range(20)))
    assert order == list(range(20))


async def test_semaphore_bounds_concurrency():
    semaphore = asyncio.BoundedSemaphore(3)
    now, most = [0], [0]

    async def worker():
        async with semaphore:
            now[0] += 1
            most[0] = max(most[0], now[0])
            await asyncio.sleep(0.0005)
            now[0] -= 1

    await asyncio.gather(*[worker() for _ in range(15)])
    with pytest.raises(ValueError):
        semaphore.release()
    assert most[0] == 3


async def test_event_condition_and_barrier():
    event, condition = asyncio.Event(), asyncio.Condition()
    barrier = asyncio.Barrier(3)
    seen = []

    async def waits_for_event(number):
        await event.wait()
        seen.append(("event", number))

    async def waits_for_condition():
        async with condition:
            await condition.wait_for(lambda: len(seen) == 3)
            seen.append("condition")

    async def meets():
        await barrier.wait()

    tasks = [asyncio.ensure_future(waits_for_event(n)) for n in range(3)]
    waiter = asyncio.ensure_future(waits_for_condition())
    await asyncio.sleep(0)
    event.set()
    await asyncio.gather(*tasks)
    async with condition:
        condition.notify_all()
    await waiter
    await asyncio.gather(meets(), meets(), meets())
    assert seen[-1] == "condition"


# --- groups, errors, time --------------------------------------------------


async def test_gather_with_and_without_exceptions():
    async def work(number):
        await asyncio.sleep(0)
        if number == 2:
            raise ValueError(number)
        return number

    results = await asyncio.gather(
        *map(work, range(4)), return_exceptions=True
    )
    assert [type(r) for r in results] == [int, int, ValueError, int]
    with pytest.raises(ValueError):
        await asyncio.gather(*map(work, range(4)))
    await asyncio.sleep(0.001)


async def test_task_group_cancels_the_others():
    seen = []

    async def fail(kind):
        await asyncio.sleep(0)
        raise kind

    async def wait():
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    caught = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait())
            group.create_task(fail(ValueError))
            group.create_task(fail(KeyError))
    except* ValueError as group:
        caught += [type(e) for e in group.exceptions]
    except* KeyError as group:
        caught += [type(e) for e in group.exceptions]
    assert set(caught) == {ValueError, KeyError}
    assert seen == ["cancelled"]


async def test_nested_task_groups():
    async def leaf(number):
        await asyncio.sleep(0)
        return number

    async def branch(number):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(leaf(number + i)) for i in range(3)]
        return sum(t.result() for t in tasks)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(branch(n)) for n in (0, 10, 20)]
    assert [t.result() for t in tasks] == [3, 33, 63]


async def test_timeouts_nest_and_move():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1000):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(1000)
    async with asyncio.timeout(0.001) as scope:
        scope.reschedule(None)
        await asyncio.sleep(0.003)
    assert not scope.expired()
    async with asyncio.timeout_at(asyncio.get_running_loop().time() + 1000):
        await asyncio.sleep(0)


async def test_a_cancellation_is_not_swallowed_by_a_timeout():
    async def child():
        async with asyncio.timeout(1000):
            await asyncio.sleep(1000)

    task = asyncio.ensure_future(child())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_rate_limiter():
    class Limiter:
        def __init__(self, count, period):
            self.count, self.period = count, period
            self.stamps = collections.deque()

        async def __aenter__(self):
            loop = asyncio.get_running_loop()
            while len(self.stamps) >= self.count:
                wait = self.stamps[0] + self.period - loop.time()
                if wait <= 0:
                    self.stamps.popleft()
                else:
                    await asyncio.sleep(wait)
            self.stamps.append(loop.time())

        async def __aexit__(self, *exc):
            pass

    limiter = Limiter(3, 0.01)
    start = time.monotonic()
    for _ in range(9):
        async with limiter:
            pass
    assert time.monotonic() - start >= 0.02


async def test_retry_with_back_off():
    attempts = []

    async def flaky():
        attempts.append(1)
        await asyncio.sleep(0)
        if len(attempts) < 4:
            raise ConnectionError
        return "finally"

    async def retry(make, tries):
        for number in range(tries):
            try:
                return await make()
            except ConnectionError:
                if number == tries - 1:
                    raise
                await asyncio.sleep(0.0002 * 2**number)

    assert await retry(flaky, 5) == "finally"
    attempts.clear()
    with pytest.raises(ConnectionError):
        await retry(flaky, 3)


async def test_circuit_of_first_answer_wins():
    async def answer(number, delay):
        await asyncio.sleep(delay)
        return number

    tasks = [
        asyncio.ensure_future(answer(n, d))
        for n, d in ((1, 1000), (2, 0), (3, 1000))
    ]
    done, pending = await asyncio.wait(
        tasks, return_when=asyncio.FIRST_COMPLETED
    )
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    assert [t.result() for t in done] == [2]


# --- pools, managers, bridges ----------------------------------------------


def test_connection_pool(run):
    class Pool:
        def __init__(self, size):
            self.free = asyncio.LifoQueue()
            self.made, self.size = 0, size

        @contextlib.asynccontextmanager
        async def take(self):
            if self.free.empty() and self.made < self.size:
                self.made += 1
                reader, writer = await asyncio.open_connection(*address)
                connection = reader, writer
            else:
                connection = await self.free.get()
            try:
                yield connection
            finally:
                self.free.put_nowait(connection)

        async def close(self):
            while not self.free.empty():
                _, writer = self.free.get_nowait()
                writer.close()
                await writer.wait_closed()

    serving = []

    async def serve(reader, writer):
        serving.append(asyncio.current_task())
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()
        await writer.wait_closed()

    async def ask(pool, number):
        async with pool.take() as (reader, writer):
            writer.write(f"question {number}\n".encode())
            await writer.drain()
            return await reader.readline()

    async def main():
        nonlocal address
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()[:2]
        pool = Pool(4)
        answers = await asyncio.gather(*[ask(pool, n) for n in range(30)])
        await pool.close()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*serving)
        assert pool.made == 4
        return answers

    address = None
    assert run(main()) == [f"QUESTION {n}\n".encode() for n in range(30)]


async def test_background_task_manager():
    class Manager:
        def __init__(self):
            self.tasks, self.errors = set(), []

        def start(self, coro):
            task = asyncio.ensure_future(coro)
            self.tasks.add(task)
            task.add_done_callback(self.ended)
            return task

        def ended(self, task):
            self.tasks.discard(task)
            if not task.cancelled() and task.exception():
                self.errors.append(task.exception())

        async def shutdown(self):
            for task in list(self.tasks):
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def fail():
        raise ValueError

    manager = Manager()
    for _ in range(5):
        manager.start(asyncio.sleep(1000))
    manager.start(fail())
    manager.start(asyncio.sleep(0))
    await asyncio.sleep(0.001)
    assert len(manager.tasks) == 5
    assert [type(e) for e in manager.errors] == [ValueError]
    await manager.shutdown()
    assert not manager.tasks


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_graceful_shutdown_on_a_signal(loop, signum):
    seen = []

    async def worker(number):
        try:
            while True:
                await asyncio.sleep(0.0005)
        finally:
            await asyncio.sleep(0)
            seen.append(number)

    stop = asyncio.Event()
    loop.add_signal_handler(signum, stop.set)
    workers = [asyncio.ensure_future(worker(n)) for n in range(3)]
    killer = threading.Timer(0.01, os.kill, (os.getpid(), signum))
    killer.start()
    await stop.wait()
    killer.join()
    for each in workers:
        each.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    loop.remove_signal_handler(signum)
    assert sorted(seen) == [0, 1, 2]


def test_sync_code_calls_async_code(loop, in_thread):
    """A loop in a thread of its own serves calls from ordinary threads."""

    async def work(number):
        await asyncio.sleep(0.0002)
        return number * 2

    def call(coro):
        return asyncio.run_coroutine_threadsafe(coro, loop).result(PATIENCE)

    thread = in_thread(loop.run_forever)
    try:
        assert [call(work(n)) for n in range(20)] == [n * 2 for n in range(20)]
        with pytest.raises(TimeoutError):
            call(asyncio.wait_for(asyncio.sleep(1000), 0.002))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)


async def test_async_code_calls_sync_code_and_back(loop):
    async def inner(number):
        await asyncio.sleep(0)
        return number + 1

    def blocking(number):
        future = asyncio.run_coroutine_threadsafe(inner(number), loop)
        return future.result(PATIENCE) * 10

    assert await asyncio.gather(
        *[asyncio.to_thread(blocking, n) for n in range(5)]
    ) == [10, 20, 30, 40, 50]


async def test_batching_of_concurrent_requests():
    batches = []

    class Batcher:
        def __init__(self):
            self.waiting = {}

        def get(self, key):
            if not self.waiting:
                asyncio.get_running_loop().call_soon(self.flush)
            future = asyncio.get_running_loop().create_future()
            self.waiting.setdefault(key, []).append(future)
            return future

        def flush(self):
            waiting, self.waiting = self.waiting, {}
            batches.append(sorted(waiting))
            for key, futures in waiting.items():
                for future in futures:
                    future.set_result(key * 2)

    batcher = Batcher()
    answers = await asyncio.gather(*map(batcher.get, [1, 2, 3, 2]))
    assert answers == [2, 4, 6, 4]
    assert batches == [[1, 2, 3]]


def test_periodic_work_does_not_drift_below_its_period(run):
    async def main():
        loop = asyncio.get_running_loop()
        start, stamps = loop.time(), []
        for number in range(1, 6):
            await asyncio.sleep(start + number * 0.002 - loop.time())
            stamps.append(loop.time() - start)
        return stamps

    for number, stamp in enumerate(run(main()), 1):
        assert stamp >= number * 0.002 - 1e-9


async def test_a_soup_of_everything():
    chance = random.Random(5)

    async def work(number):
        kind = number % 5
        if kind == 0:
            await asyncio.sleep(chance.random() * 0.002)
        elif kind == 1:
            await asyncio.to_thread(int)
        elif kind == 2:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.sleep(100), 0.001)
        elif kind == 3:
            for _ in range(10):
                await asyncio.sleep(0)
        else:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
        return number

    assert await asyncio.gather(*map(work, range(200))) == list(range(200))
