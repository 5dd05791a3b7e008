"""Debug mode refuses transports ended by threads, and async protocols.

On fastloop alone: asyncio raises the same, and leaves a transport behind that
is closing for ever, or open without a connection_made.
"""

import contextlib
import socket

import pytest
from builds import FREE_THREADED
from net_helpers import Recorder, client_context, iterations, server_context

pytestmark = pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
MANY = 8 << 20
needs_gil = pytest.mark.skipif(
    FREE_THREADED,
    reason="without a GIL a transport passes the call to its loop's thread",
)


@contextlib.asynccontextmanager
async def opened_by_tls(loop, protocol):
    """Open a TLS connection, and close it at the end."""
    server = await loop.create_server(
        Recorder, "127.0.0.1", 0, ssl=server_context()
    )
    transport, _ = await loop.create_connection(
        lambda: protocol,
        *server.sockets[0].getsockname(),
        ssl=client_context(),
        server_hostname="localhost",
    )
    server.close()
    try:
        yield transport
    finally:
        transport.close()
        await protocol.wait_lost()
        await server.wait_closed()
        await iterations(10)


@contextlib.asynccontextmanager
async def opened(loop, kind, protocol):
    """Open a transport of this kind, and close it at the end."""
    if kind == "tls":
        async with opened_by_tls(loop, protocol) as transport:
            yield transport
        return
    near, far = socket.socketpair(
        type=socket.SOCK_DGRAM if kind == "datagrams" else socket.SOCK_STREAM
    )
    near.setblocking(False)
    make = {
        "stream": lambda: loop.create_connection(lambda: protocol, sock=near),
        "datagrams": lambda: loop.create_datagram_endpoint(
            lambda: protocol, sock=near
        ),
        "read pipe": lambda: loop.connect_read_pipe(lambda: protocol, near),
        "write pipe": lambda: loop.connect_write_pipe(lambda: protocol, near),
    }[kind]
    with near, far:
        transport, _ = await make()
        try:
            yield transport
        finally:
            transport.close()
            await protocol.wait_lost()


RAW = ["stream", "datagrams", "read pipe", "write pipe"]
each_transport = pytest.mark.parametrize("kind", [*RAW, "tls"])


@needs_gil
@each_transport
@pytest.mark.parametrize("method", ["close", "abort"])
async def test_another_thread_may_not_end_a_transport(debug, kind, method):
    protocol = Recorder()
    async with opened(debug, kind, protocol) as transport:
        if not hasattr(transport, method):
            pytest.skip("a read pipe has no abort()")
        end = getattr(transport, method)
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            await debug.run_in_executor(None, end)
        assert not transport.is_closing()


class Coroutine(Recorder):
    async def connection_made(self, transport):
        raise AssertionError


class Number(Recorder):
    connection_made = 5


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.parametrize(
    ("protocol", "text"),
    [
        (Coroutine, r"coroutines cannot be used with call_soon\(\)"),
        (Number, r"a callable object was expected by call_soon\(\), got 5"),
    ],
)
async def test_connection_made_must_be_a_function(debug, kind, protocol, text):
    with pytest.raises(TypeError, match=text):
        async with opened(debug, kind, protocol()):
            pass


@needs_gil
async def test_a_close_that_schedules_nothing_is_not_checked(debug):
    """An abort() then schedules the end of the transport."""
    protocol = Recorder()
    async with opened(debug, "stream", protocol) as transport:
        transport.write(bytes(MANY))
        assert transport.get_write_buffer_size()
        await debug.run_in_executor(None, transport.close)
        assert transport.is_closing()
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            await debug.run_in_executor(None, transport.abort)
        transport.abort()


@needs_gil
async def test_each_end_of_a_tls_transport_is_checked(debug):
    """Its close() sets a timer, even while bytes are unsent."""
    protocol = Recorder()
    async with opened(debug, "tls", protocol) as transport:
        transport.write(bytes(MANY))
        for end in (transport.close, transport.abort):
            with pytest.raises(RuntimeError, match="Non-thread-safe"):
                await debug.run_in_executor(None, end)
            assert not transport.is_closing()
