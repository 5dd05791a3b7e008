"""The async patterns of everyday code, each as a small program.

They are what a reader of asyncio's manual writes with sockets, threads and
signals.  CPython's own tests, which run on fastloop too, have those of queues,
locks, groups and timeouts alone (tests/conformance).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading

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


async def test_async_generators_over_a_socket():
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

    async with upper_server() as (port, _seen):
        squares = [n * n async for n in numbers(lines(port)) if n % 2]
        assert squares == [n * n for n in range(1, 100, 2)]
        async with contextlib.aclosing(numbers(lines(port))) as some:
            async for n in some:
                if n == 3:
                    break
    assert closed == ["connection"] * 2


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


async def test_connection_pool():
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


async def test_retry_with_backoff():
    """A server that hangs up after two lines; then one that is not there."""

    async def retry(call, attempts):
        for n in range(attempts):
            try:
                return await call()
            except (OSError, asyncio.IncompleteReadError):
                if n == attempts - 1:
                    raise
                await asyncio.sleep(0.0005 * 2**n)

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


async def test_sync_and_async_call_each_other(loop, in_thread):
    """A thread asks the loop, which asks threads, which ask the loop."""

    async def add(a, b):
        await asyncio.sleep(0)
        return a + b

    def from_thread(n):
        future = asyncio.run_coroutine_threadsafe(add(n, 1), loop)
        return future.result(PATIENCE)

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


@pytest.mark.not_at_worst(reason="the test counts the iterations")
async def test_two_iterations_carry_a_message():
    """Tests of libraries send to themselves and count iterations: sleep(0)."""

    async def idle():
        for _ in range(100):
            await asyncio.sleep(0)

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


async def test_reader_of_a_closed_socket_is_removed():
    """A library that closes first and cleans up in a callback, as anyio."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    loop.add_reader(ours, print)
    ours.close()
    assert loop.remove_reader(ours) is True
    with pytest.raises(ValueError, match="-1"):
        loop.remove_reader(ours)
    theirs.close()


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
