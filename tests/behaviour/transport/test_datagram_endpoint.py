"""How datagram endpoints come to be, and what they say of themselves."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import pytest
from datagram_helpers import endpoint, plain
from net_helpers import PY312, iterations, listening_socket, moved_to
from patience import PATIENCE


async def test_extra_info():
    async with endpoint() as p:
        assert isinstance(p.transport, asyncio.Transport)
        assert isinstance(p.transport, asyncio.DatagramTransport) is PY312
        info = p.transport.get_extra_info
        sock = info("socket")
        assert (sock.family, sock.type) == (
            socket.AF_INET,
            socket.SOCK_DGRAM,
        )
        assert info("sockname") == sock.getsockname()
        assert info("peername") is None
        assert info("peername", "unknown") is None
        assert info("other", "unknown") == "unknown"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        name = info("sockname")
    assert info("sockname") == name
    assert info("socket").type == socket.SOCK_DGRAM
    assert info("socket").fileno() == -1


async def test_a_connected_endpoint_knows_its_peer():
    with plain() as peer:
        address = peer.getsockname()
        async with endpoint(remote_addr=address) as p:
            assert p.transport.get_extra_info("peername") == address
            p.transport.sendto(b"one")
            p.transport.sendto(b"two", None)
            p.transport.sendto(b"three", address)
            p.transport.sendto(data=b"four", addr=tuple(address))
            got = [peer.recv(9) for _ in range(4)]
            assert got == [b"one", b"two", b"three", b"four"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_internet_addresses_both_ways(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with plain(family, (host, 0)) as peer:
        async with endpoint(local_addr=(host, 0)) as p:
            name = p.transport.get_extra_info("sockname")
            peer.sendto(b"in", name)
            await p.wait("datagram")
            assert p.events[-1] == ("datagram", b"in", peer.getsockname())
            sender = p.events[-1][2]
            assert type(sender) is tuple
            equal = peer.getsockname()
            others = [equal, equal[:2]]
            if family == socket.AF_INET6:
                others.append((*equal[:2], 5, socket.if_nametoindex("lo")))
            for address in (sender, *others):
                p.transport.sendto(b"out", address)
                assert peer.recvfrom(99) == (b"out", name)
            assert p.names == ["made", "datagram"]


async def test_unix_sockets_without_a_name(tmp_path):
    """And abstract names, which are bytes."""
    name = "\0" + str(tmp_path)
    with plain(socket.AF_UNIX, name) as peer:
        async with endpoint(
            family=socket.AF_UNIX, local_addr=name + "2", remote_addr=name
        ) as p:
            info = p.transport.get_extra_info
            assert info("sockname") == (name + "2").encode()
            assert info("peername") == name.encode()
            p.transport.sendto(b"out")
            assert peer.recvfrom(9) == (b"out", info("sockname"))
    path = str(tmp_path / "own")
    async with endpoint(family=socket.AF_UNIX, local_addr=path) as p:
        with plain(socket.AF_UNIX, None) as peer:
            peer.sendto(b"anonymous", path)
            await p.wait("datagram")
            assert p.events[-1] == ("datagram", b"anonymous", None)


async def test_a_connected_socket_that_is_given():
    """No remote address is known, but the socket has a peer."""
    with plain() as peer, plain() as other:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(peer.getsockname())
        async with endpoint(sock=sock) as p:
            p.transport.sendto(b"one")
            # asyncio looks at no address here.
            p.transport.sendto(b"two", other.getsockname())
            p.transport.sendto(b"three", "nonsense")
            got = [peer.recv(9) for _ in range(3)]
            assert got == [b"one", b"two", b"three"]


@contextlib.asynccontextmanager
async def nameless_pair(loop_kind):
    """An endpoint on one of a pair of sockets, and the other socket."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio ends the transport with TypeError")
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    right.settimeout(PATIENCE)
    with right:
        async with endpoint(sock=left) as p:
            yield p, right


async def test_one_of_a_pair_sends_to_the_other_without_an_address(loop_kind):
    async with nameless_pair(loop_kind) as (p, right):
        right.send(b"in")
        await p.wait("datagram")
        assert p.events[-1] == ("datagram", b"in", None)
        p.transport.sendto(b"out")
        p.transport.sendto(bytearray(b"more"), None)
        assert [right.recv(9) for _ in range(2)] == [b"out", b"more"]


@pytest.mark.parametrize("queued", [False, True])
async def test_a_pair_whose_other_end_is_gone_reports_errors(
    loop_kind, queued
):
    async with nameless_pair(loop_kind) as (p, right):
        while queued and not p.transport.get_write_buffer_size():
            p.transport.sendto(b"waits")
        right.close()
        if not queued:
            p.transport.sendto(b"nobody")
        assert isinstance(await p.wait("error"), ConnectionError)
        p.transport.sendto(b"again")
        assert isinstance(await p.wait("error", 2), OSError)
        assert not p.transport.is_closing()


async def test_a_socket_that_lost_its_fd_to_a_server_is_an_error():
    """The server registers the fd before connection_lost runs."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    with plain() as peer:
        async with endpoint(sock=sock) as p:
            fd = sock.fileno()
            sock.close()
            server = await loop.create_server(
                asyncio.Protocol,
                sock=moved_to(fd, listening_socket()),
                start_serving=False,
            )
            server._start_serving()
            p.transport.sendto(b"data", peer.getsockname())
            assert p.names == ["made", "error"]
            assert p.events[-1][1].errno == errno.EBADF
            server.close()
            await iterations()
