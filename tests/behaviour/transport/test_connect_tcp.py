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
from net_helpers import (
    PY312,
    Recorder,
    listening_socket,
    tcp_socketpair,
    turns,
)


def closed_port():
    """A port of the loopback address on which nobody listens.

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


def info(family, port, host="127.0.0.1"):
    return (family, socket.SOCK_STREAM, 6, "", (host, port))


def answering(loop, *infos):
    """Make loop.getaddrinfo answer with *infos*; returns the calls."""
    calls = []

    async def getaddrinfo(host, port, **options):
        calls.append((host, port, options))
        return list(infos)

    loop.getaddrinfo = getaddrinfo
    return calls


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_host_and_port_name_the_peer(loop, host):
    with listening_socket() as listener:
        port = listener.getsockname()[1]
        connect = loop.create_connection(
            Recorder, host, port, family=socket.AF_INET
        )
        async with connected(connect) as (transport, protocol):
            assert protocol.names == ["made"]
            assert protocol.transport is transport
            peername = transport.get_extra_info("peername")
            assert peername == ("127.0.0.1", port)


async def test_the_port_may_be_text(loop):
    with listening_socket() as listener:
        port = str(listener.getsockname()[1])
        connect = loop.create_connection(Recorder, "127.0.0.1", port)
        async with connected(connect) as (transport, _):
            assert not transport.is_closing()


async def test_a_connection_over_ipv6(loop):
    with listening_socket(socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        connect = loop.create_connection(Recorder, "::1", port)
        async with connected(connect) as (transport, _):
            sock = transport.get_extra_info("socket")
            assert sock.family == socket.AF_INET6


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


async def test_a_given_socket_is_used(loop):
    near, far = tcp_socketpair()
    near.setblocking(False)
    connect = loop.create_connection(Recorder, sock=near)
    async with connected(connect) as (transport, _):
        sock = transport.get_extra_info("socket")
        assert sock.fileno() == near.fileno()
    far.close()
    assert near.fileno() == -1


async def test_given_socket_is_made_non_blocking(loop):
    near, far = tcp_socketpair()
    assert near.gettimeout() is None
    connect = loop.create_connection(Recorder, sock=near)
    async with connected(connect):
        assert near.gettimeout() == 0
    far.close()


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({}, ValueError, "host and port was not specified and no sock"),
        (
            {"host": "a", "port": 1, "sock": object()},
            ValueError,
            "host/port and sock can not be specified at the same time",
        ),
        ({"server_hostname": "a", "host": "b"}, ValueError, "only meaningful"),
        ({"ssl": True, "sock": object()}, ValueError, "server_hostname"),
        (
            {"host": "a", "port": 1, "ssl_handshake_timeout": 1},
            ValueError,
            "ssl_handshake_timeout is only meaningful with ssl",
        ),
        (
            {"host": "a", "port": 1, "ssl_shutdown_timeout": 1},
            ValueError,
            "ssl_shutdown_timeout is only meaningful with ssl",
        ),
    ],
    ids=lambda x: "-".join(x) or "none" if isinstance(x, dict) else "",
)
async def test_options_that_do_not_go_together(loop, options, error, text):
    with pytest.raises(error, match=text):
        await loop.create_connection(Recorder, **options)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_sockets_of_another_kind(loop, family):
    """Only a stream socket will do."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    with sock, pytest.raises(ValueError, match="Stream Socket was exp"):
        await loop.create_connection(Recorder, sock=sock)


async def test_a_refused_connect_raises(loop):
    port = closed_port()
    with pytest.raises(ConnectionRefusedError) as caught:
        await loop.create_connection(Recorder, "127.0.0.1", port)
    assert caught.value.errno == errno.ECONNREFUSED
    assert f"('127.0.0.1', {port})" in str(caught.value)


async def test_a_name_without_address_raises(loop):
    answering(loop)
    with pytest.raises(OSError, match="returned empty list"):
        await loop.create_connection(Recorder, "nowhere", 80)


async def test_an_unknown_name_raises(loop):
    async def getaddrinfo(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    loop.getaddrinfo = getaddrinfo
    with pytest.raises(socket.gaierror):
        await loop.create_connection(Recorder, "no.such.name", 80)


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


@pytest.mark.parametrize("interleave", [None, 0, 1, 2])
async def test_interleave_orders_the_families(loop, interleave):
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
    expected = {
        None: [6, 6, 6, 4, 4],
        0: [6, 6, 6, 4, 4],
        1: [6, 4, 6, 4, 6],
        2: [6, 6, 4, 6, 4],
    }[interleave]
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


async def test_an_unknown_option(loop):
    with pytest.raises(TypeError):
        await loop.create_connection(Recorder, "127.0.0.1", 9, other=None)


async def test_methods_of_the_program_take_part(loop, monkeypatch):
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


@pytest.mark.parametrize("turn", range(5))
async def test_cancelled_at_each_turn(loop, turn):
    """Nothing is left, however far the connect had come."""
    with listening_socket() as listener:
        address = listener.getsockname()
        made = []

        def factory():
            made.append(Recorder())
            return made[-1]

        task = loop.create_task(loop.create_connection(factory, *address))
        await turns(turn)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            transport, _ = await task
            transport.abort()
        await turns(3)
        for protocol in made:
            # A cancelled waiter closes the transport it waited for.
            if "made" in protocol.names:
                assert await protocol.wait_lost() is None


async def test_cancelled_while_resolving(loop):
    async def getaddrinfo(*args, **options):
        await asyncio.Event().wait()

    loop.getaddrinfo = getaddrinfo
    task = loop.create_task(loop.create_connection(Recorder, "name", 1))
    await turns(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


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
        await turns(20)
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


async def test_timeout_around_a_connect(loop):
    async def getaddrinfo(*args, **options):
        await asyncio.Event().wait()

    loop.getaddrinfo = getaddrinfo
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await loop.create_connection(Recorder, "name", 1)


async def test_many_connects_at_once(loop):
    with listening_socket() as listener:
        address = listener.getsockname()
        pairs = await asyncio.gather(
            *(loop.create_connection(Recorder, *address) for _ in range(50))
        )
        assert len({pair[0] for pair in pairs}) == 50
        for transport, protocol in pairs:
            transport.close()
            assert await protocol.wait_lost() is None


async def test_connection_made_comes_before_create_connection_returns(loop):
    with listening_socket() as listener:
        order = []
        protocol = Recorder(made=lambda p: order.append("made"))
        connect = loop.create_connection(
            lambda: protocol, *listener.getsockname()
        )
        async with connected(connect):
            assert order == ["made"]


def test_on_a_closed_loop(loop_factory):
    loop = loop_factory()
    loop.close()
    connect = loop.create_connection(Recorder, "127.0.0.1", 1)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.run_until_complete(connect)
    connect.close()


async def test_accepted_socket(loop):
    near, far = tcp_socketpair()
    near.setblocking(False)
    connect = loop.connect_accepted_socket(Recorder, near)
    async with connected(connect) as (transport, protocol):
        assert protocol.names == ["made"]
        peername = transport.get_extra_info("peername")
        assert peername == far.getsockname()
        far.send(b"data")
        assert await protocol.wait_data(4) == b"data"
    far.close()
    assert near.fileno() == -1


async def test_accepted_socket_of_another_kind(loop):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        with pytest.raises(ValueError, match="Stream Socket was exp"):
            await loop.connect_accepted_socket(Recorder, sock)


@pytest.mark.parametrize(
    "option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"]
)
async def test_accepted_socket_with_options_of_tls(loop, option):
    near, far = tcp_socketpair()
    with near, far, pytest.raises(ValueError, match="only meaningful"):
        await loop.connect_accepted_socket(Recorder, near, **{option: 1})


async def test_a_subclass_of_socket(loop):
    class Mine(socket.socket):
        pass

    near, far = tcp_socketpair()
    mine = Mine(fileno=near.detach())
    mine.setblocking(False)
    connect = loop.create_connection(Recorder, sock=mine)
    async with connected(connect) as (_, protocol):
        far.send(b"data")
        assert await protocol.wait_data(4) == b"data"
    assert mine.fileno() == -1
    far.close()


async def test_one_socket_object_cannot_be_given_twice(loop):
    near, far = tcp_socketpair()
    near.setblocking(False)
    connect = loop.create_connection(Recorder, sock=near)
    async with connected(connect) as (transport, protocol):
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(near, print)
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.remove_writer(near.fileno())
        far.send(b"data")
        assert await protocol.wait_data(4) == b"data"
    far.close()


@pytest.mark.parametrize("turn", range(8))
async def test_a_cancelled_connect_closes_its_descriptor_once(loop, turn):
    """A second close would hit whatever got the number in between."""
    with listening_socket() as listener:
        task = loop.create_task(
            loop.create_connection(asyncio.Protocol, *listener.getsockname())
        )
        await turns(turn)
        task.cancel()
        # These take the numbers that a close gives back, turn by turn.
        kept = []
        for _ in range(6):
            kept.extend(os.pipe())
            await asyncio.sleep(0)
        with contextlib.suppress(asyncio.CancelledError):
            transport, _ = await task
            transport.abort()
        await turns(3)
        gc.collect()
        await turns(3)
        inodes = [os.fstat(number).st_ino for number in kept]
        assert len(set(inodes)) == len(kept) // 2
        for number in kept:
            os.close(number)
