"""The async patterns of everyday code, each as a small program.

They are what a reader of asyncio's manual writes: the constructs together,
and with sockets and threads, more than each alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections import deque

import pytest
from interop_process import child_env
from patience import PATIENCE


@contextlib.asynccontextmanager
async def upper_server(limit=None):
    """A server that answers lines in capitals; (port, connections seen).

    With a limit it hangs up after so many lines of a connection.
    """
    seen = []
    tasks = set()

    async def handle(reader, writer):
        seen.append(writer.get_extra_info("peername"))
        tasks.add(asyncio.current_task())
        count = 0
        while line := await reader.readline():
            if count == limit:
                break
            count += 1
            writer.write(line.upper())
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], seen
    finally:
        server.close()
        await asyncio.gather(*tasks)
        await server.wait_closed()


def test_producers_and_consumers(run):
    """A bounded queue between 3 producers and 4 consumers."""

    async def produce(queue, start):
        for n in range(start, start + 200):
            await queue.put(n)

    async def consume(queue, got):
        while True:
            got.append(await queue.get())
            await asyncio.sleep(0)
            queue.task_done()

    async def main():
        queue, got = asyncio.Queue(maxsize=5), []
        consumers = [
            asyncio.create_task(consume(queue, got)) for _ in range(4)
        ]
        await asyncio.gather(
            *(produce(queue, start) for start in (0, 1000, 2000))
        )
        await queue.join()
        for task in consumers:
            task.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        assert queue.empty()
        assert sorted(got) == [
            s + n for s in (0, 1000, 2000) for n in range(200)
        ]
        assert [n for n in got if n < 1000] == list(range(200))

    run(main())


def test_locks_semaphores_events_conditions(run):
    async def main():
        lock, few = asyncio.Lock(), asyncio.Semaphore(3)
        ready, condition = asyncio.Event(), asyncio.Condition()
        inside, most, counter = 0, 0, 0

        async def work():
            nonlocal inside, most, counter
            await ready.wait()
            async with few:
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.0005)
                inside -= 1
            async with lock:
                before = counter
                await asyncio.sleep(0)
                counter = before + 1
            async with condition:
                condition.notify_all()

        async def wait_for_all():
            async with condition:
                await condition.wait_for(lambda: counter == 20)

        async with asyncio.TaskGroup() as group:
            for _ in range(20):
                group.create_task(work())
            group.create_task(wait_for_all())
            ready.set()
        assert (counter, most) == (20, 3)

    run(main())


def test_async_generators_over_a_socket(run):
    """A pipeline of generators, left early: each closes what it holds."""
    closed = []

    async def lines(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for n in range(100):
                writer.write(b"line %d\n" % n)
                yield await reader.readline()
        finally:
            writer.close()
            await writer.wait_closed()
            closed.append("connection")

    async def numbers(source):
        async with contextlib.aclosing(source):
            async for line in source:
                yield int(line.split()[1])

    async def main():
        async with upper_server() as (port, _seen):
            squares = [n * n async for n in numbers(lines(port)) if n % 2]
            assert squares == [n * n for n in range(1, 100, 2)]
            async with contextlib.aclosing(numbers(lines(port))) as some:
                async for n in some:
                    if n == 3:
                        break
        assert closed == ["connection"] * 2

    run(main())


def test_gather_and_groups_of_errors(run):
    async def fail(exc):
        await asyncio.sleep(0)
        raise exc

    async def forever(log):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    async def main():
        got = await asyncio.gather(
            asyncio.sleep(0, 1), fail(KeyError("k")), return_exceptions=True
        )
        assert got[0] == 1
        assert isinstance(got[1], KeyError)
        log = []
        with pytest.raises(ExceptionGroup) as info:
            async with asyncio.TaskGroup() as group:
                group.create_task(forever(log))
                group.create_task(fail(ValueError("v")))
                group.create_task(fail(KeyError("k")))
        kinds = {type(exc) for exc in info.value.exceptions}
        assert kinds == {ValueError, KeyError}
        assert log == ["cancelled"]

    run(main())


def test_timeouts(run):
    """wait_for, timeout, nested and moved; shield keeps what it guards."""

    async def main():
        event = asyncio.Event()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(event.wait(), 0.005)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                async with asyncio.timeout(0.005) as inner:
                    await event.wait()
        assert inner.expired()
        async with asyncio.timeout(0.005) as moved:
            moved.reschedule(asyncio.get_running_loop().time() + 10)
            await asyncio.sleep(0.01)
        assert not moved.expired()
        kept = asyncio.create_task(event.wait())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(kept), 0.005)
        event.set()
        assert await kept is True

    run(main())


class RateLimiter:
    """At most `count` entries in each `period` of seconds."""

    def __init__(self, count, period):
        self.count, self.period = count, period
        self.entered = deque()

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        while len(self.entered) == self.count:
            wait = self.entered[0] + self.period - loop.time()
            if wait <= 0:
                self.entered.popleft()
            else:
                await asyncio.sleep(wait)
        self.entered.append(loop.time())

    async def __aexit__(self, *exc):
        return None


def test_rate_limiter(run):
    """No period sees more entries than its count."""

    async def main():
        limiter, times = RateLimiter(5, 0.02), []

        async def call():
            async with limiter:
                times.append(time.monotonic())

        await asyncio.gather(*(call() for _ in range(20)))
        assert len(times) == 20
        for first, sixth in zip(times, times[5:], strict=False):
            assert sixth - first >= 0.0199

    run(main())


class Pool:
    """At most `size` connections, made when wanted, lent and taken back."""

    def __init__(self, port, size):
        self.port = port
        self.free = asyncio.LifoQueue()
        self.slots = asyncio.Semaphore(size)

    @contextlib.asynccontextmanager
    async def connection(self):
        async with self.slots:
            if self.free.empty():
                pair = await asyncio.open_connection("127.0.0.1", self.port)
            else:
                pair = self.free.get_nowait()
            try:
                yield pair
            except BaseException:
                pair[1].close()
                raise
            self.free.put_nowait(pair)

    async def close(self):
        while not self.free.empty():
            _, writer = self.free.get_nowait()
            writer.close()
            await writer.wait_closed()


def test_connection_pool(run):
    async def main():
        async with upper_server() as (port, seen):
            pool = Pool(port, 4)

            async def ask(n):
                async with pool.connection() as (reader, writer):
                    writer.write(b"ask %d\n" % n)
                    return await reader.readline()

            got = await asyncio.gather(*(ask(n) for n in range(100)))
            assert got == [b"ASK %d\n" % n for n in range(100)]
            assert 1 <= len(seen) <= 4
            await pool.close()

    run(main())


def test_retry_with_backoff(run):
    """A server that hangs up after two lines; then one that is not there."""

    async def retry(call, attempts):
        for n in range(attempts):
            try:
                return await call()
            except (OSError, asyncio.IncompleteReadError):
                if n == attempts - 1:
                    raise
                await asyncio.sleep(0.0005 * 2**n)

    async def main():
        link = None
        tries = 0

        async def ask():
            nonlocal link, tries
            tries += 1
            if link is None:
                link = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = link
            try:
                writer.write(b"ask\n")
                return await reader.readexactly(4)
            except (OSError, asyncio.IncompleteReadError):
                writer.close()
                link = None
                raise

        async with upper_server(limit=2) as (port, seen):
            for _ in range(7):
                assert await retry(ask, 3) == b"ASK\n"
            assert (len(seen), tries) == (4, 10)
            link[1].close()
            link = None
        with pytest.raises(ConnectionRefusedError):
            await retry(ask, 3)
        assert tries == 13

    run(main())


def test_background_tasks(run):
    """A manager that keeps, reports and at the end cancels its tasks."""

    class Manager:
        def __init__(self):
            self.tasks, self.failed = set(), []

        def start(self, coro):
            task = asyncio.create_task(coro)
            self.tasks.add(task)
            task.add_done_callback(self.done)
            return task

        def done(self, task):
            self.tasks.discard(task)
            if not task.cancelled() and task.exception():
                self.failed.append(task.exception())

        async def close(self):
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)

    async def fail():
        raise LookupError("in the background")

    async def main():
        manager = Manager()
        quick = manager.start(asyncio.sleep(0, "done"))
        manager.start(asyncio.sleep(3600))
        manager.start(fail())
        assert await quick == "done"
        await asyncio.sleep(0)
        assert len(manager.tasks) == 1
        assert [str(exc) for exc in manager.failed] == ["in the background"]
        await manager.close()
        await asyncio.sleep(0)
        assert manager.tasks == set()

    run(main())


def test_sync_and_async_call_each_other(loop, run, in_thread):
    """A thread asks the loop, which asks threads, which ask the loop."""

    async def add(a, b):
        await asyncio.sleep(0)
        return a + b

    def from_thread(n):
        future = asyncio.run_coroutine_threadsafe(add(n, 1), loop)
        return future.result(PATIENCE)

    async def main():
        results = await asyncio.gather(
            *(asyncio.to_thread(from_thread, n) for n in range(30))
        )
        assert results == list(range(1, 31))
        got, over = [], asyncio.Event()

        def thread():
            got.append(from_thread(41))
            loop.call_soon_threadsafe(over.set)

        in_thread(thread)
        await over.wait()
        assert got == [42]

    run(main())


def test_loop_in_a_thread_serves_sync_code(loop_factory):
    """A library's loop in a thread of its own, stopped from outside."""
    loop = loop_factory()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def fetch(n):
        async with upper_server() as (port, _seen):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"n %d\n" % n)
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return line

    try:
        futures = [
            asyncio.run_coroutine_threadsafe(fetch(n), loop) for n in range(5)
        ]
        lines = [future.result(PATIENCE) for future in futures]
        assert lines == [b"N %d\n" % n for n in range(5)]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_graceful_shutdown(start, loop_kind, signum):
    """The signal comes with a request in hand, which is still answered."""
    child = start("graceful.py", env=child_env(LOOP=loop_kind))
    found = child.wait_for(r"serving on (\d+) by (\w+)")
    assert found[2] == loop_kind
    with socket.create_connection(
        ("127.0.0.1", int(found[1])), PATIENCE
    ) as sock:
        sock.sendall(b"please\n")
        child.wait_for("request in hand")
        child.child.send_signal(signum)
        assert sock.recv(100) == b"PLEASE\n"
        assert sock.recv(100) == b""
    child.wait_for("ended\n$")
    assert child.child.wait(PATIENCE) == 0
    assert "background ended" in child.log
    assert "Traceback" not in child.log


class Collector(asyncio.Protocol):
    def __init__(self):
        self.got = b""
        self.ended = False

    def data_received(self, data):
        self.got += data

    def eof_received(self):
        self.ended = True


@pytest.mark.counts_calls
def test_two_turns_carry_a_message(run):
    """Tests of libraries send to themselves and count turns: sleep(0)."""

    async def idle():
        for _ in range(100):
            await asyncio.sleep(0)

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        writer, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        other, reader = await loop.create_connection(Collector, sock=theirs)
        for n in range(1, 4):
            await idle()
            writer.write(b"x")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert reader.got == b"x" * n
        await idle()
        writer.write_eof()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert reader.ended
        other.close()
        writer.close()
        await asyncio.sleep(0)

    run(main())


def test_reader_of_a_closed_socket_is_removed(run):
    """A library that closes first and cleans up in a callback, as anyio."""

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        loop.add_reader(ours, print)
        ours.close()
        assert loop.remove_reader(ours) is True
        with pytest.raises(ValueError, match="-1"):
            loop.remove_reader(ours)
        theirs.close()

    run(main())


def test_tasks_share_the_threads_of_anyio(run):
    """As requests to a synchronous function of FastAPI do."""
    to_thread = pytest.importorskip("anyio.to_thread")

    async def main():
        loop = asyncio.get_running_loop()
        return [
            await loop.create_task(to_thread.run_sync(threading.get_ident))
            for _ in range(20)
        ]

    assert len(set(run(main()))) == 1
