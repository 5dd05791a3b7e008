"""asyncio's streams on the loop: start_server, open_connection and the rest.

What is native of the reader is in streams/; here it is tested that asyncio's
classes meet the transports they expect.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket

import pytest
from net_helpers import (
    KIB,
    MIB,
    PY313,
    Peer,
    client_context,
    digest,
    pattern,
    server_context,
    tcp_socketpair,
    turns,
)
from patience import PATIENCE


@contextlib.asynccontextmanager
async def stream(**options):
    """Reader and writer of the loop, and the far end as a Peer."""
    near, far = tcp_socketpair()
    near.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=near, **options)
    peer = Peer(far)
    try:
        yield reader, writer, peer
    finally:
        writer.close()
        peer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def test_classes(run):
    async def main():
        async with stream() as (reader, writer, peer):
            assert isinstance(reader, asyncio.StreamReader)
            assert repr(type(reader)) == repr(asyncio.StreamReader)
            assert type(writer) is asyncio.StreamWriter
            assert isinstance(writer.transport, asyncio.Transport)
            protocol = writer.transport.get_protocol()
            assert isinstance(protocol, asyncio.StreamReaderProtocol)
            assert writer.get_extra_info("peername") == peer.sock.getsockname()
            assert writer.can_write_eof()
            assert not writer.is_closing()

    run(main())


def test_lines(run):
    async def main():
        async with stream() as (reader, writer, peer):
            await peer.send(b"one\ntw")
            assert await reader.readline() == b"one\n"
            task = asyncio.create_task(reader.readline())
            await turns(2)
            await peer.send(b"o\nthree")
            assert await task == b"two\n"
            peer.send_eof()
            assert await reader.readline() == b"three"
            assert await reader.readline() == b""
            assert reader.at_eof()

    run(main())


def test_async_iteration(run):
    async def main():
        async with stream() as (reader, writer, peer):
            await peer.send(b"a\nb\nc")
            peer.send_eof()
            assert [line async for line in reader] == [b"a\n", b"b\n", b"c"]

    run(main())


@pytest.mark.parametrize("size", [1, 100, 64 * KIB, MIB])
def test_readexactly(run, size):
    async def main():
        async with stream() as (reader, writer, peer):
            data = pattern(size)
            sending = asyncio.create_task(peer.send(data + b"rest"))
            assert await reader.readexactly(size) == data
            assert await reader.readexactly(4) == b"rest"
            await sending
            assert await reader.readexactly(0) == b""

    run(main())


def test_readexactly_and_the_end(run):
    async def main():
        async with stream() as (reader, writer, peer):
            await peer.send(b"short")
            peer.send_eof()
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readexactly(10)
            assert caught.value.partial == b"short"
            assert caught.value.expected == 10

    run(main())


def test_readuntil(run):
    async def main():
        async with stream() as (reader, writer, peer):
            await peer.send(b"key: value\r\n\r\nbody")
            assert await reader.readuntil(b"\r\n\r\n") == b"key: value\r\n\r\n"
            peer.send_eof()
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readuntil(b"\0")
            assert caught.value.partial == b"body"

    run(main())


@pytest.mark.skipif(not PY313, reason="several separators came with 3.13")
def test_readuntil_one_of_several(run):
    async def main():
        async with stream() as (reader, writer, peer):
            await peer.send(b"one;two,three")
            assert await reader.readuntil((b",", b";")) == b"one;"
            assert await reader.readuntil((b",", b";")) == b"two,"

    run(main())


def test_limit_overrun(run):
    async def main():
        async with stream(limit=100) as (reader, writer, peer):
            await peer.send(b"x" * 500 + b"\n")
            with pytest.raises(asyncio.LimitOverrunError):
                await reader.readuntil(b"\n")
            with pytest.raises(ValueError):
                await reader.readline()

    run(main())


def test_the_limit_pauses_the_transport(run):
    """Twice the limit in the buffer, and reading stops until it is read."""

    async def main():
        async with stream(limit=1000) as (reader, writer, peer):
            data = pattern(2 * MIB)
            sending = asyncio.create_task(peer.send(data))
            while writer.transport.is_reading():
                await asyncio.sleep(0)
            await turns(20)
            assert len(reader._buffer) < 2 * MIB
            assert await reader.readexactly(2 * MIB) == data
            assert writer.transport.is_reading()
            await sending

    run(main())


def test_read_everything(run):
    async def main():
        async with stream() as (reader, writer, peer):
            data = pattern(MIB)

            async def send():
                await peer.send(data)
                peer.send_eof()

            sending = asyncio.create_task(send())
            assert digest(await reader.read()) == digest(data)
            await sending

    run(main())


def test_drain_under_back_pressure(run):
    """drain waits while the peer does not read, and goes on when it does."""

    async def main():
        async with stream() as (reader, writer, peer):
            data = pattern(8 * MIB)
            await writer.drain()
            writer.write(data)
            draining = asyncio.create_task(writer.drain())
            await turns(10)
            assert not draining.done()
            assert digest(await peer.recv_exactly(8 * MIB)) == digest(data)
            await draining

    run(main())


def test_several_drains_at_once(run):
    async def main():
        async with stream() as (reader, writer, peer):
            writer.write(bytes(8 * MIB))
            drains = [asyncio.create_task(writer.drain()) for _ in range(3)]
            await turns(5)
            assert not any(task.done() for task in drains)
            await peer.recv_exactly(8 * MIB)
            await asyncio.gather(*drains)

    run(main())


def test_drain_after_the_connection_was_lost(run):
    async def main():
        async with stream() as (reader, writer, peer):
            writer.write(bytes(8 * MIB))
            draining = asyncio.create_task(writer.drain())
            await turns(5)
            peer.reset()
            with pytest.raises(ConnectionError):
                await draining
            with pytest.raises(ConnectionError):
                await reader.read()

    run(main())


def test_cancelled_reads_lose_nothing(run):
    async def main():
        async with stream() as (reader, writer, peer):
            for _ in range(5):
                task = asyncio.create_task(reader.readexactly(4))
                await turns(1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await peer.send(b"data")
            assert await reader.readexactly(4) == b"data"

    run(main())


def test_timeout_of_a_read(run):
    async def main():
        async with stream() as (reader, writer, peer):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.01)
            await peer.send(b"x")
            assert await asyncio.wait_for(reader.read(1), PATIENCE) == b"x"

    run(main())


def test_two_readers_are_refused(run):
    async def main():
        async with stream() as (reader, writer, peer):
            first = asyncio.create_task(reader.read(1))
            await turns(1)
            with pytest.raises(RuntimeError, match="another coroutine"):
                await reader.read(1)
            await peer.send(b"x")
            assert await first == b"x"

    run(main())


def test_write_eof(run):
    async def main():
        async with stream() as (reader, writer, peer):
            writer.write(b"request")
            writer.write_eof()
            assert await peer.recv_all() == b"request"
            await peer.send(b"response")
            peer.send_eof()
            assert await reader.read() == b"response"

    run(main())


def test_writelines(run):
    async def main():
        async with stream() as (reader, writer, peer):
            writer.writelines([b"a", b"b", bytearray(b"c")])
            await writer.drain()
            assert await peer.recv_exactly(3) == b"abc"

    run(main())


def test_wait_closed(run):
    async def main():
        async with stream() as (reader, writer, peer):
            writer.write(pattern(MIB))
            writer.close()
            assert writer.is_closing()
            waiting = asyncio.create_task(writer.wait_closed())
            assert len(await peer.recv_all()) == MIB
            await waiting
            await writer.wait_closed()

    run(main())


async def echo(reader, writer):
    while data := await reader.read(64 * KIB):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_an_echo_server(run, tmp_path, family, tls):
    """64 clients at once, each with its own bytes."""
    server_options = {"ssl": server_context()} if tls else {}
    options = (
        {"ssl": client_context(), "server_hostname": "localhost"}
        if tls
        else {}
    )

    async def main():
        if family == "tcp":
            server = await asyncio.start_server(
                echo, "127.0.0.1", 0, **server_options
            )
            address = server.sockets[0].getsockname()
        else:
            path = str(tmp_path / "s")
            server = await asyncio.start_unix_server(
                echo, path, **server_options
            )

        async def client(i):
            if family == "tcp":
                pair = await asyncio.open_connection(*address, **options)
            else:
                pair = await asyncio.open_unix_connection(path, **options)
            reader, writer = pair
            for seed in range(3):
                data = pattern(10_000, i * 3 + seed)
                writer.write(data)
                await writer.drain()
                assert await reader.readexactly(10_000) == data
            if not tls:
                writer.write_eof()
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

        async with server:
            await asyncio.gather(*(client(i) for i in range(64)))

    run(main())


# Early releases of 3.11 left the report to the handler's task.
HANDLER_FAILED = (
    "client_connected_cb"
    if "in client_connected_cb" in inspect.getsource(asyncio.streams)
    else "Task exception was never retrieved"
)


def test_a_handler_that_raises_is_reported(run, reports):
    async def bad(reader, writer):
        writer.close()
        raise ZeroDivisionError

    async def main():
        server = await asyncio.start_server(bad, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname()
        )
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await turns(5)
        (report,) = reports
        server.close()
        assert isinstance(report["exception"], ZeroDivisionError)
        assert HANDLER_FAILED in report["message"]

    run(main())


def test_a_plain_function_as_handler(run, loop):
    seen = loop.create_future()

    def handler(reader, writer):
        seen.set_result((reader, writer))

    async def main():
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        sock = socket.create_connection(server.sockets[0].getsockname())
        sock.send(b"data")
        reader, writer = await seen
        assert await reader.read(4) == b"data"
        sock.close()
        writer.close()
        await writer.wait_closed()
        server.close()

    run(main())


def test_a_pipeline_of_requests(run, loop):
    """Many small requests in flight: the answers come in order."""

    async def handler(reader, writer):
        async for line in reader:
            writer.write(b"re: ")
            writer.write(line)
        writer.close()

    async def main():
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname()
        )
        for i in range(2000):
            writer.write(b"%d\n" % i)
        writer.write_eof()
        lines = (await reader.read()).splitlines()
        assert lines == [b"re: %d" % i for i in range(2000)]
        writer.close()
        await writer.wait_closed()
        server.close()

    run(main())


def test_a_proxy(run, loop):
    """Two streams joined by two tasks, as proxies do it."""

    async def pump(reader, writer):
        while data := await reader.read(64 * KIB):
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def main():
        origin = await asyncio.start_server(echo, "127.0.0.1", 0)

        async def forward(reader, writer):
            up_reader, up_writer = await asyncio.open_connection(
                *origin.sockets[0].getsockname()
            )
            await asyncio.gather(
                pump(reader, up_writer), pump(up_reader, writer)
            )
            for end in (writer, up_writer):
                end.close()
                await end.wait_closed()
            loop.call_soon(over.set)

        over = asyncio.Event()
        proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(
            *proxy.sockets[0].getsockname()
        )
        data = pattern(4 * MIB)

        async def send():
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert digest(await reader.read()) == digest(data)
        await sending
        writer.close()
        await writer.wait_closed()
        await over.wait()
        proxy.close()
        origin.close()

    run(main())


def test_a_reader_of_a_subclass(run, loop):
    """A protocol with its own StreamReader class works as always."""

    class Loud(asyncio.StreamReader):
        def feed_data(self, data):
            super().feed_data(data.upper())

    async def main():
        near, far = tcp_socketpair()
        reader = Loud(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(
            lambda: protocol, sock=near
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        far.send(b"quiet\n")
        assert await reader.readline() == b"QUIET\n"
        far.close()
        writer.close()
        await writer.wait_closed()

    run(main())


def test_feed_data_patched_on_an_instance(run):
    async def main():
        async with stream() as (reader, writer, peer):
            seen = []
            feed = reader.feed_data

            def feed_data(data):
                seen.append(bytes(data))
                feed(data)

            reader.feed_data = feed_data
            await peer.send(b"data")
            assert await reader.readexactly(4) == b"data"
            assert b"".join(seen) == b"data"

    run(main())
