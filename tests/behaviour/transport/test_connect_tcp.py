"""create_connection and connect_accepted_socket over TCP.

Every keyword, several addresses, Happy Eyeballs, errors, and cancellation at
each moment: the descriptor is closed once, and a user's socket stays his
where asyncio leaves it to him.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import random
import socket

import pytest
from hosts import Made, answering, info
from net_helpers import (
    PY312,
    Recorder,
    iterations,
    listening_socket,
    tcp_socketpair,
)


def closed_port():
    """A port of the loopback address without a listener.

    Below those that the kernel gives away: no other process listens there in
    the meantime, and no connect finds itself.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with contextlib.suppress(OSError):
            with socket.create_server(("127.0.0.1", port)):
                return port


@contextlib.asynccontextmanager
async def connected(connect):
    """Await a connect coroutine; end the connection afterwards."""
    transport, protocol = await connect
    try:
        yield transport, protocol
    finally:
        transport.abort()
        await protocol.wait_lost()
        protocol.check()


@pytest.mark.parametrize(
    ("host", "convert", "family"),
    [
        ("127.0.0.1", int, socket.AF_INET),
        ("127.0.0.1", str, socket.AF_INET),
        ("localhost", int, socket.AF_INET),
        ("::1", int, socket.AF_INET6),
    ],
)
async def test_host_and_port_name_the_peer(loop, host, convert, family):
    with listening_socket(family) as listener:
        address = listener.getsockname()
        connect = loop.create_connection(
            Recorder, host, convert(address[1]), family=family
        )
        async with connected(connect) as (transport, protocol):
            assert protocol.names == ["made"]
            assert protocol.transport is transport
            assert transport.get_extra_info("peername") == address
            assert transport.get_extra_info("socket").family == family


async def test_family_proto_and_flags_reach_getaddrinfo(loop):
    with listening_socket() as listener:
        port = listener.getsockname()[1]
        calls = answering(loop, info(socket.AF_INET, port))
        connect = loop.create_connection(
            Recorder,
            "some.name",
            port,
            family=socket.AF_INET,
            proto=socket.IPPROTO_TCP,
            flags=socket.AI_ADDRCONFIG,
        )
        async with connected(connect):
            pass
        (call,) = calls
        assert call[:2] == ("some.name", port)
        assert call[2] == {
            "family": socket.AF_INET,
            "type": socket.SOCK_STREAM,
            "proto": socket.IPPROTO_TCP,
            "flags": socket.AI_ADDRCONFIG,
        }


class Mine(socket.socket):
    pass


@pytest.mark.parametrize("kind", [socket.socket, Mine])
@pytest.mark.parametrize(
    "make", ["create_connection", "connect_accepted_socket"]
)
async def test_a_given_socket_is_used(loop, make, kind):
    """It blocks no more, and is closed with the transport."""
    near, far = tcp_socketpair()
    near = kind(fileno=near.detach())
    assert near.gettimeout() is None
    connect = getattr(loop, make)(Recorder, sock=near)
    async with connected(connect) as (transport, protocol):
        assert near.gettimeout() == 0
        assert protocol.names == ["made"]
        sock = transport.get_extra_info("socket")
        assert sock.fileno() == near.fileno()
        assert transport.get_extra_info("peername") == far.getsockname()
        far.send(b"data")
        assert await protocol.wait_data(4) == b"data"
    far.close()
    assert near.fileno() == -1


class Equal(socket.socket):
    """Like others of the same fd, and so without a hash."""

    def __eq__(self, other):
        return self.fileno() == other.fileno()


async def test_a_given_socket_need_not_have_a_hash(loop):
    near, far = tcp_socketpair()
    near = Equal(fileno=near.detach())
    connect = loop.create_connection(Recorder, sock=near)
    async with connected(connect) as (_, protocol):
        far.send(b"data")
        assert await protocol.wait_data(4) == b"data"
    far.close()


async def test_a_refused_connect_raises(loop):
    port = closed_port()
    with pytest.raises(ConnectionRefusedError) as caught:
        await loop.create_connection(Recorder, "127.0.0.1", port)
    assert caught.value.errno == errno.ECONNREFUSED
    assert f"('127.0.0.1', {port})" in str(caught.value)


async def test_second_address_after_a_refusal(loop):
    with listening_socket() as listener:
        port = listener.getsockname()[1]
        answering(
            loop,
            info(socket.AF_INET, closed_port()),
            info(socket.AF_INET, port),
        )
        connect = loop.create_connection(Recorder, "name", 1)
        async with connected(connect) as (transport, _):
            peername = transport.get_extra_info("peername")
            assert peername == ("127.0.0.1", port)


async def test_several_refusals_are_named_together(loop):
    ports = [closed_port(), closed_port()]
    answering(loop, *(info(socket.AF_INET, port) for port in ports))
    with pytest.raises(OSError) as caught:
        await loop.create_connection(Recorder, "name", 1)
    text = str(caught.value)
    if ports[0] != ports[1]:
        assert "Multiple exceptions" in text or "refused" in text
    for port in ports:
        assert str(port) in text


@pytest.mark.skipif(not PY312, reason="all_errors came with 3.12")
async def test_all_errors_gives_the_refusals_as_a_group(loop):
    ports = [closed_port(), closed_port()]
    answering(loop, *(info(socket.AF_INET, port) for port in ports))
    with pytest.raises(ExceptionGroup) as caught:
        await loop.create_connection(Recorder, "name", 1, all_errors=True)
    assert len(caught.value.exceptions) == 2
    for exc in caught.value.exceptions:
        assert isinstance(exc, ConnectionRefusedError)


async def test_the_socket_is_bound_to_the_local_address(loop):
    with listening_socket() as listener:
        address = listener.getsockname()
        local = closed_port()
        connect = loop.create_connection(
            Recorder, *address, local_addr=("127.0.0.1", local)
        )
        async with connected(connect) as (transport, _):
            sockname = transport.get_extra_info("sockname")
            assert sockname == ("127.0.0.1", local)


async def test_local_address_of_another_family(loop):
    with listening_socket() as listener:
        address = listener.getsockname()
        with pytest.raises(OSError):
            await loop.create_connection(
                Recorder, *address, local_addr=("::1", 0)
            )


async def test_local_address_in_use(loop):
    with listening_socket() as listener:
        address = listener.getsockname()
        with pytest.raises(OSError) as caught:
            await loop.create_connection(
                Recorder, *address, local_addr=address
            )
        assert caught.value.errno == errno.EADDRINUSE
        assert "error while attempting to bind" in str(caught.value)


@pytest.mark.parametrize("delay", [0.001, 10])
async def test_happy_eyeballs_takes_the_first_that_connects(loop, delay):
    """One that refuses is passed over at once, whatever the delay."""
    with listening_socket() as listener:
        port = listener.getsockname()[1]
        answering(
            loop,
            info(socket.AF_INET, closed_port()),
            info(socket.AF_INET, closed_port()),
            info(socket.AF_INET, port),
        )
        started = loop.time()
        connect = loop.create_connection(
            Recorder, "name", 1, happy_eyeballs_delay=delay
        )
        async with connected(connect) as (transport, _):
            assert transport.get_extra_info("peername")[1] == port
        assert loop.time() - started < 5


async def test_happy_eyeballs_passes_over_a_silent_address(loop):
    """A connect that never ends: the next starts after the delay."""
    connects = []
    real = loop.sock_connect

    async def sock_connect(sock, address):
        connects.append(address)
        if address[1] == 1:
            await asyncio.Event().wait()
        await real(sock, address)

    loop.sock_connect = sock_connect
    with listening_socket() as listener:
        port = listener.getsockname()[1]
        answering(loop, info(socket.AF_INET, 1), info(socket.AF_INET, port))
        connect = loop.create_connection(
            Recorder, "name", 1, happy_eyeballs_delay=0.005
        )
        async with connected(connect) as (transport, _):
            assert transport.get_extra_info("peername")[1] == port
        if connects:
            assert [a[1] for a in connects] == [1, port]


@pytest.mark.parametrize(
    ("interleave", "expected"),
    [
        (None, [6, 6, 6, 4, 4]),
        (0, [6, 6, 6, 4, 4]),
        (1, [6, 4, 6, 4, 6]),
        (2, [6, 6, 4, 6, 4]),
    ],
)
async def test_interleave_orders_the_families(loop, interleave, expected):
    """All refuse; the order of the tries is what counts."""
    port = closed_port()
    tried = []
    real = loop.sock_connect

    async def sock_connect(sock, address):
        tried.append(4 if sock.family == socket.AF_INET else 6)
        await real(sock, address)

    loop.sock_connect = sock_connect
    answering(
        loop,
        *[info(socket.AF_INET6, port, "::1")] * 3,
        *[info(socket.AF_INET, port)] * 2,
    )
    with pytest.raises(OSError):
        await loop.create_connection(
            Recorder, "name", 1, interleave=interleave
        )
    assert tried == expected


@pytest.mark.parametrize(
    "name", ["ssl", "sock", "local_addr", "server_hostname"]
)
async def test_an_option_that_is_none(loop, name):
    with listening_socket() as listener:
        transport, _ = await loop.create_connection(
            Recorder, *listener.getsockname(), **{name: None}
        )
        transport.close()


async def test_overridden_methods_are_called(loop, monkeypatch):
    """Of each connection, also of one address without options."""
    called = []

    def note(name):
        original = getattr(loop, name)

        def noted(*args, **kwargs):
            called.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(loop, name, noted)

    note("sock_connect")
    note("_make_socket_transport")
    with listening_socket() as listener:
        transport, _ = await loop.create_connection(
            Recorder, *listener.getsockname()
        )
        transport.close()
    assert called == ["sock_connect", "_make_socket_transport"]


async def test_a_given_socket_is_the_programs_after_one_that_was_made(loop):
    """It may be closed behind the transport, which then ends."""
    with listening_socket() as listener:
        address = listener.getsockname()
        made, _ = await loop.create_connection(Recorder, *address)
        sock = socket.create_connection(address)
        sock.setblocking(False)
        given, protocol = await loop.create_connection(Recorder, sock=sock)
        sock.close()
        given.write(b"data")
        assert (await protocol.wait_lost()).errno == errno.EBADF
        made.close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
async def test_protocol_factory_raises(loop):
    """The error reaches the caller; no descriptor is left (see conftest)."""

    def factory():
        raise ZeroDivisionError

    with listening_socket() as listener:
        address = listener.getsockname()
        with pytest.raises(ZeroDivisionError):
            await loop.create_connection(factory, *address)


async def test_cancelled_while_the_handshake_lasts(loop):
    """A backlog that is full keeps a connect waiting; then the number of
    the closed descriptor is used again without harm."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        tasks = [
            loop.create_task(loop.create_connection(Recorder, *address))
            for _ in range(4)
        ]
        await iterations(20)
        waiting = [task for task in tasks if not task.done()]
        assert waiting
        for task in waiting:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, tuple):
                result[0].abort()
                await result[1].wait_lost()
    near, far = tcp_socketpair()
    connect = loop.create_connection(Recorder, sock=near)
    async with connected(connect) as (_, protocol):
        far.send(b"data")
        assert await protocol.wait_data(4) == b"data"
    far.close()


def test_on_a_closed_loop(loop_factory):
    loop = loop_factory()
    loop.close()
    connect = loop.create_connection(Recorder, "127.0.0.1", 1)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_until_complete(connect)
    connect.close()


@pytest.mark.parametrize("count", range(8))
async def test_cancelled_at_each_iteration(loop, count):
    """Nothing is left, and the descriptor is closed once: a second close
    would hit another file that got the fd in between.
    """
    with listening_socket() as listener:
        made = Made()
        task = loop.create_task(
            loop.create_connection(made, *listener.getsockname())
        )
        await iterations(count)
        task.cancel()
        # These take the fds that a close frees, iteration by iteration.
        kept = []
        for _ in range(6):
            kept.extend(os.pipe())
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            transport, _ = await task
            transport.abort()
        await iterations(3)
        gc.collect()
        await iterations(3)
        inodes = [os.fstat(number).st_ino for number in kept]
        assert len(set(inodes)) == len(kept) // 2
        for number in kept:
            os.close(number)
        for protocol in made:
            # A cancelled waiter closes the transport it waited for.
            if "made" in protocol.names:
                assert await protocol.wait_lost() is None
