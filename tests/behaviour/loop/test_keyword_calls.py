"""Keywords of the loop's calls that no other test is about."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import sys

import pytest
from datagram_helpers import Datagrams
from net_helpers import Recorder, client_context, server_context

LOCAL = ("127.0.0.1", 0)


async def end(server, *protocols):
    for protocol in protocols:
        if not protocol.lost:
            protocol.transport.abort()
        await protocol.wait_lost()
    server.close()
    await server.wait_closed()


async def test_names_of_addresses(loop):
    numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    call = loop.getnameinfo(("127.0.0.1", 80), flags=numeric)
    assert await call == ("127.0.0.1", "80")
    call = loop.getnameinfo(sockaddr=("::1", 443, 0, 0), flags=numeric)
    assert await call == ("::1", "443")
    with pytest.raises(OSError):
        await loop.getnameinfo(("no address", 80), flags=numeric)


async def test_addresses_of_names(loop):
    found = await loop.getaddrinfo(
        host="localhost",
        port=80,
        family=socket.AF_INET,
        type=socket.SOCK_STREAM,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_CANONNAME,
    )
    assert found == socket.getaddrinfo(
        "localhost",
        80,
        socket.AF_INET,
        socket.SOCK_STREAM,
        socket.IPPROTO_TCP,
        socket.AI_CANONNAME,
    )


async def test_timer_at_a_time_in_a_context(loop):
    variable = contextvars.ContextVar("variable")
    context = contextvars.copy_context()
    context.run(variable.set, "given")
    done = loop.create_future()
    loop.call_at(
        loop.time() + 0.001,
        lambda: done.set_result(variable.get()),
        context=context,
    )
    assert await done == "given"


async def test_connection_by_keywords(loop):
    far = Recorder()
    server = await loop.create_server(
        protocol_factory=lambda: far,
        host="localhost",
        port=0,
        family=socket.AF_INET,
        flags=socket.AI_PASSIVE,
        backlog=5,
        reuse_address=True,
        reuse_port=False,
        start_serving=True,
    )
    host, port = server.sockets[0].getsockname()
    assert host == "127.0.0.1"
    transport, near = await loop.create_connection(
        protocol_factory=Recorder,
        host=host,
        port=port,
        family=socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST,
        local_addr=("127.0.0.1", 0),
        happy_eyeballs_delay=0.2,
        interleave=1,
    )
    transport.write(b"x")
    assert await far.wait_data(1) == b"x"
    await end(server, near, far)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="new in 3.13")
@pytest.mark.parametrize("on", [True, False])
async def test_keep_alive_of_a_server(loop, on):
    server = await loop.create_server(Recorder, *LOCAL, keep_alive=on)
    option = server.sockets[0].getsockopt(
        socket.SOL_SOCKET, socket.SO_KEEPALIVE
    )
    assert bool(option) is on
    await end(server)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
async def test_all_errors_of_a_connection(loop):
    with socket.create_server(LOCAL) as gone:
        address = gone.getsockname()
    with pytest.raises(ExceptionGroup) as raised:
        await loop.create_connection(Recorder, *address, all_errors=True)
    (one,) = raised.value.exceptions
    assert isinstance(one, ConnectionRefusedError)


async def test_tls_over_tcp_with_time_limits(loop):
    far = Recorder()
    server = await loop.create_server(
        lambda: far,
        *LOCAL,
        ssl=server_context(),
        ssl_handshake_timeout=15,
        ssl_shutdown_timeout=15,
    )
    transport, near = await loop.create_connection(
        Recorder,
        *server.sockets[0].getsockname(),
        ssl=client_context(),
        server_hostname="localhost",
        ssl_handshake_timeout=15,
        ssl_shutdown_timeout=15,
    )
    transport.write(b"x")
    assert await far.wait_data(1) == b"x"
    await end(server, near, far)


async def test_tls_over_unix_with_time_limits(loop, tmp_path):
    far, path = Recorder(), str(tmp_path / "path")
    server = await loop.create_unix_server(
        lambda: far,
        path=path,
        ssl=server_context(),
        ssl_handshake_timeout=15,
        ssl_shutdown_timeout=15,
    )
    transport, near = await loop.create_unix_connection(
        Recorder,
        path=path,
        ssl=client_context(),
        server_hostname="localhost",
        ssl_handshake_timeout=15,
        ssl_shutdown_timeout=15,
    )
    transport.write(b"x")
    assert await far.wait_data(1) == b"x"
    await end(server, near, far)


async def test_tls_begun_later_with_time_limits(loop):
    """By an accepted socket that has it at once, and by start_tls."""
    ours, theirs = socket.socketpair()
    near, far = Recorder(), Recorder()
    plain, _ = await loop.create_unix_connection(lambda: near, sock=ours)
    accepted = loop.create_task(
        loop.connect_accepted_socket(
            lambda: far,
            theirs,
            ssl=server_context(),
            ssl_handshake_timeout=15,
            ssl_shutdown_timeout=15,
        )
    )
    secret = await loop.start_tls(
        plain,
        near,
        client_context(),
        server_side=False,
        server_hostname="localhost",
        ssl_handshake_timeout=15,
        ssl_shutdown_timeout=15,
    )
    await accepted
    secret.write(b"x")
    assert await far.wait_data(1) == b"x"
    secret.abort()
    await near.wait_lost()
    await far.wait_lost()


async def test_datagrams_by_keywords(loop):
    far, _ = await loop.create_datagram_endpoint(
        Datagrams,
        local_addr=LOCAL,
        family=socket.AF_INET,
        proto=socket.IPPROTO_UDP,
        flags=socket.AI_NUMERICHOST,
        reuse_port=True,
        allow_broadcast=True,
    )
    sock = far.get_extra_info("socket")
    for option in (socket.SO_REUSEPORT, socket.SO_BROADCAST):
        assert sock.getsockopt(socket.SOL_SOCKET, option)
    near, protocol = await loop.create_datagram_endpoint(
        protocol_factory=Datagrams, remote_addr=sock.getsockname()
    )
    assert near.get_extra_info("peername") == sock.getsockname()
    near.sendto(b"x", addr=None)
    await far.get_protocol().wait("datagram")
    given = socket.socket(type=socket.SOCK_DGRAM)
    given.bind(LOCAL)
    third, other = await loop.create_datagram_endpoint(Datagrams, sock=given)
    near.close()
    far.close()
    third.close()
    await other.wait("lost")
    await protocol.wait("lost")
    await asyncio.sleep(0)


async def test_connecting_a_socket(loop):
    with socket.create_server(LOCAL) as listener, socket.socket() as near:
        near.setblocking(False)
        address = listener.getsockname()
        await loop.sock_connect(near, address)
        assert near.getpeername() == address
    with socket.socket() as near:
        near.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            await loop.sock_connect(sock=near, address=address)


async def test_how_much_is_received(loop):
    near, far = socket.socketpair(type=socket.SOCK_DGRAM)
    with near, far:
        near.setblocking(False)
        far.send(b"abcdef")
        far.send(b"abcdef")
        buffer = bytearray(10)
        size, _ = await loop.sock_recvfrom_into(near, buffer, nbytes=4)
        assert buffer[:size] == b"abcd"
        size, _ = await loop.sock_recvfrom_into(near, buf=buffer)
        assert buffer[:size] == b"abcdef"


async def test_a_server_as_a_context(loop):
    server = await loop.create_server(Recorder, *LOCAL)
    assert await server.__aenter__() is server
    assert await server.__aexit__(None, None, None) is None
    assert not server.is_serving()
    async with await loop.create_server(Recorder, *LOCAL) as server:
        assert server.is_serving()
        assert server.get_loop() is loop
    assert server.sockets == ()


async def test_shutting_the_executor_down_in_time(loop):
    await asyncio.to_thread(int)
    how = {} if sys.version_info < (3, 12) else {"timeout": 15}
    await loop.shutdown_default_executor(**how)
    with pytest.raises(RuntimeError, match="shutdown"):
        loop.run_in_executor(None, int)
