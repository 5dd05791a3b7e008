"""Datagram endpoints: addresses, order, flow, errors and ends."""

import asyncio
import contextlib
import errno
import itertools
import logging
import socket
import sys
from asyncio.selector_events import _SelectorTransport

import pytest
from datagram_helpers import (
    HEADER,
    Datagrams,
    drain,
    endpoint,
    plain,
    stuffed,
)
from net_helpers import PY312, iterations, listening_socket, moved_to
from patience import PATIENCE

both = pytest.mark.parametrize("connected", [True, False])
only_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="names and full sockets are others there"
)


def own_name(protocol):
    return protocol.transport.get_extra_info("sockname")


# --- addresses --------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_what_an_endpoint_says_of_itself(how):
    async with endpoint() as p:
        assert isinstance(p.transport, asyncio.Transport)
        assert isinstance(p.transport, asyncio.DatagramTransport) is PY312
        info, end = p.transport.get_extra_info, getattr(p.transport, how)
        sock, name = info("socket"), info("sockname")
        assert sock.family == socket.AF_INET
        assert sock.type == socket.SOCK_DGRAM
        assert name == sock.getsockname()
        assert info("peername") is None
        assert info("peername", "unknown") is None
        assert info("other", "unknown") == "unknown"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        assert "DatagramTransport fd=" in repr(p.transport)
        assert "bufsize=0" in repr(p.transport)
        assert end() is None
        assert p.transport.is_closing()
        assert "closing" in repr(p.transport)
        assert p.names == ["made"]
        end()
        await iterations()
        assert "closed" in repr(p.transport)
        p.transport.abort()
        p.transport.close()
        await iterations()
        assert p.events == [("made",), ("lost", None)]
        assert p.transport.get_protocol() is None
    assert info("sockname") == name
    assert info("socket").type == socket.SOCK_DGRAM
    assert info("socket").fileno() == -1


@pytest.mark.parametrize("by", ["remote_addr", "_address"])
async def test_a_connected_endpoint_sends_to_its_peer_alone(by):
    """asyncio_dgram sets the attribute for a socket that is connected."""
    with plain() as peer, socket.socket(type=socket.SOCK_DGRAM) as own:
        address = peer.getsockname()
        how = {by: address}
        if by == "_address":
            own.connect(address)
            how = {"sock": own.dup()}
        async with endpoint(**how) as p:
            if by == "_address":
                p.transport._address = address
            assert p.transport.get_extra_info("peername") == address
            for wrong in (("127.0.0.1", 1), ("localhost", address[1])):
                with pytest.raises(ValueError) as caught:
                    p.transport.sendto(b"x", wrong)
                assert str(caught.value) == (
                    f"Invalid address: must be None or {address}"
                )
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
            name = own_name(p)
            peer.sendto(b"in", name)
            await p.wait("datagram")
            assert p.events[-1] == ("datagram", b"in", peer.getsockname())
            sender = p.events[-1][2]
            assert type(sender) is tuple
            equal = peer.getsockname()
            others = [equal, equal[:2]]
            if family == socket.AF_INET6:
                others.append((*equal[:2], 5, socket.if_nameindex()[0][0]))
            for address in (sender, *others):
                p.transport.sendto(b"out", address)
                assert peer.recvfrom(99) == (b"out", name)
            assert p.names == ["made", "datagram"]


@only_linux
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


@only_linux
@pytest.mark.parametrize("queued", [False, True])
async def test_a_pair_of_sockets_without_names(loop_kind, queued):
    """One sends to the other without an address, until that is gone."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio ends the transport with TypeError")
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    right.settimeout(PATIENCE)
    async with endpoint(sock=left) as p:
        right.send(b"in")
        await p.wait("datagram")
        assert p.events[-1] == ("datagram", b"in", None)
        p.transport.sendto(b"out")
        p.transport.sendto(bytearray(b"more"), None)
        assert [right.recv(9) for _ in range(2)] == [b"out", b"more"]
        while queued and not p.transport.get_write_buffer_size():
            p.transport.sendto(b"waits")
        right.close()
        if not queued:
            p.transport.sendto(b"nobody")
        assert isinstance(await p.wait("error"), ConnectionError)
        p.transport.sendto(b"again")
        assert isinstance(await p.wait("error", 2), OSError)
        assert not p.transport.is_closing()


async def test_a_socket_that_lost_its_fd_to_a_server_is_an_error(loop):
    """The server registers the fd before connection_lost runs."""
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


# --- in ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [
        *[range(count) for count in (1, 2, 3, 17, 40)],
        (0, 1, 0, 0),
        (65507, 1, 65507),  # the largest
    ],
)
async def test_datagrams_arrive_in_order(sizes):
    """Each with its sender."""
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]
    async with endpoint() as p:
        with plain() as one, plain() as two:
            senders = [(one, two)[number % 2] for number in range(len(sent))]
            for data, peer in zip(sent, senders, strict=True):
                peer.sendto(data, own_name(p))
            await p.wait("datagram", len(sent))
            assert p.data == sent
            assert all(type(data) is bytes for data in p.data)
            names = [peer.getsockname() for peer in senders]
            assert [e[2] for e in p.events[1:]] == names


async def test_datagrams_that_arrive_in_a_read_wait_for_the_next_iteration(
    loop,
):
    order = []

    def note(p, data, addr):
        order.append(data)
        if data == b"first":
            p.transport.sendto(b"second", own_name(p))
            loop.call_soon(order.append, "scheduled meanwhile")

    async with endpoint(Datagrams(datagram=note)) as p:
        with plain() as peer:
            peer.sendto(b"first", own_name(p))
            await p.wait("datagram", 2)
            assert order == [b"first", "scheduled meanwhile", b"second"]


async def test_a_flood_does_not_stop_the_loop():
    """A protocol that sends with every datagram it gets is not alone."""
    ticks = []

    def again(p, data, addr):
        p.transport.sendto(data, addr)

    async with endpoint(Datagrams(datagram=again)) as p:
        for _ in range(50):
            p.transport.sendto(b"x", own_name(p))
        await p.wait("datagram", 50)
        for _ in range(20):
            await asyncio.sleep(0)
            ticks.append(len(p.data))
        assert all(b - a <= 40 for a, b in itertools.pairwise(ticks))


TEN = [b"%d" % number for number in range(10)]


def send_ten(protocol):
    with plain() as peer:
        for data in TEN:
            peer.sendto(data, own_name(protocol))


@contextlib.asynccontextmanager
async def burst(act):
    """An endpoint whose protocol acts at the third of ten datagrams."""

    def hook(protocol, data, addr):
        if len(protocol.data) == 3:
            act(protocol.transport)

    async with endpoint(Datagrams(datagram=hook)) as p:
        send_ten(p)
        await p.wait("datagram", 3)
        yield p


@pytest.mark.parametrize("then", ["resume", "close", "abort"])
async def test_pausing_before_a_burst(loop_kind, then):
    if loop_kind == "asyncio" and "is_reading" not in vars(_SelectorTransport):
        pytest.skip("this asyncio's datagrams cannot be paused (3.11.2)")
    async with endpoint() as p:
        p.transport.pause_reading()
        send_ten(p)
        await iterations(10)
        assert not p.transport.is_reading()
        p.transport.resume_reading()
        assert p.data == []
        if then == "resume":
            await p.wait("datagram", 10)
            assert p.data == TEN
            return
        getattr(p.transport, then)()
        assert not p.transport.is_reading()
        assert await p.wait("lost") is None
        assert p.data == []


async def test_another_protocol_amid_a_burst():
    second = Datagrams()
    async with burst(lambda t: t.set_protocol(second)) as p:
        await second.wait("datagram", 7)
        assert p.data + second.data == TEN
        p.transport.set_protocol(p)


def test_exceptions_that_leave_the_loop_lose_no_datagram(loop):
    def leave(protocol, data, addr):
        if len(protocol.data) == 2:
            raise KeyboardInterrupt

    async def main():
        async with endpoint(Datagrams(datagram=leave)) as p:
            send_ten(p)
            await p.wait("datagram", 10)
            assert p.data == TEN

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(task)


# --- out --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "data", "kind"),
    [
        (("127.0.0.1", 70000), b"x", OverflowError),
        (("127.0.0.1", -1), b"x", OverflowError),
        (("127.0.0.1", 10**30), b"x", OverflowError),
        (("127.0.0.1", "9"), b"x", TypeError),
        (("127.0.0.1",), b"x", TypeError),
        (("127.0.0.1", 9, 0), b"x", TypeError),
        (None, b"x", TypeError),
        ("127.0.0.1", b"x", TypeError),
        (("127.0.0.1\0", 9), b"x", (TypeError, ValueError)),
        (("127.0.0.1", 9), memoryview(b"abcdef")[::2], BufferError),
    ],
)
async def test_what_cannot_be_sent_closes_the_transport(
    reports, address, data, kind
):
    async with endpoint() as p:
        p.transport.sendto(data, address)
        exc = await p.wait("lost")
        assert p.names == ["made", "lost"]
    assert isinstance(exc, kind)
    (report,) = reports
    assert report["exception"] is exc
    assert report["message"] == "Fatal write error on datagram transport"
    assert set(report) == {"message", "exception", "transport", "protocol"}


@pytest.mark.parametrize("data", ["text", 5, None, [b"x"]])
async def test_types_that_may_not_be_sent(data):
    async with endpoint() as p:
        with pytest.raises(
            TypeError, match="data argument must be a bytes-like object"
        ):
            p.transport.sendto(data, ("127.0.0.1", 9))
        with pytest.raises(TypeError):
            p.transport.sendto(b"x", where=None)
        assert p.names == ["made"]


async def test_system_errors_go_to_the_protocol():
    """error_received may clear the data; sendto raises its exception."""
    data = bytearray(70_000)

    def clear_and_fail(protocol, exc):
        data.clear()
        handled.append(sys.exc_info()[1] is exc)
        raise ZeroDivisionError

    handled = []
    async with endpoint(Datagrams(error=clear_and_fail)) as p:
        try:
            raise LookupError
        except LookupError as outer:
            with pytest.raises(ZeroDivisionError):
                p.transport.sendto(data, ("127.0.0.1", 9))
            assert sys.exc_info()[1] is outer
        assert not p.transport.is_closing()
        assert p.names == ["made", "error"]
        assert str(p.events[-1][1]) == "[Errno 90] Message too long"
    assert handled == [True]
    assert data == b""


@pytest.mark.parametrize("fails", [False, True])
async def test_a_refusing_peer_is_reported_and_the_endpoint_stays_open(
    reports, fails
):
    def fail(protocol, exc):
        if fails:
            raise ZeroDivisionError

    # A socket that takes only what it sends to itself.  Others get the answer
    # of a free port, which may become another program's, or the sender's.
    with plain() as peer:
        peer.connect(peer.getsockname())
        async with endpoint(
            Datagrams(error=fail), remote_addr=peer.getsockname()
        ) as p:
            for count in range(1, 4):
                with contextlib.suppress(ZeroDivisionError):
                    p.transport.sendto(b"nobody")
                await p.wait("error", count)
            await iterations(2)
            assert {e[1].errno for e in p.events[1:]} == {errno.ECONNREFUSED}
            peer.connect(own_name(p))  # it takes what comes from there now
            p.transport.sendto(b"somebody")
            assert peer.recv(9) == b"somebody"
            peer.send(b"hello")
            assert await p.wait("datagram") == b"hello"
    assert bool(reports) == fails
    for report in reports:
        assert isinstance(report["exception"], ZeroDivisionError)


# --- datagrams that wait for room -------------------------------------------


@both
async def test_datagrams_pause_and_resume_at_the_marks(tmp_path, connected):
    async with stuffed(tmp_path, connected) as (p, peer, address):
        transport = p.transport
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=400, low=50)
        size = transport.get_write_buffer_size()
        transport.sendto(bytes(400 - size - HEADER), address)
        assert transport.get_write_buffer_size() == 400
        assert p.names == ["made"]
        transport.sendto(bytes(1), address)
        transport.sendto(bytes(1), address)
        await iterations()
        assert p.names == ["made", "pause"]
        while "resume" not in p.names:
            await drain(peer, 1)
        await iterations()
        assert p.names == ["made", "pause", "resume"]
        while transport.get_write_buffer_size() < 4:
            transport.sendto(b"x", address)
        transport.set_write_buffer_limits(high=1)
        assert p.names == ["made", "pause", "resume", "pause"]


async def test_aborting_in_error_received(tmp_path):
    def abort(p, exc):
        p.transport.abort()

    async with stuffed(tmp_path, False, error=abort) as (p, peer, path):
        p.transport.sendto(b"a", path)
        peer.close()
        assert await p.wait("lost") is None
        assert p.names == ["made", "error", "lost"]


async def test_sending_to_the_remote_after_close_warns(caplog):
    with plain() as peer:
        async with endpoint(remote_addr=peer.getsockname()) as p:
            p.transport.close()
            with caplog.at_level(logging.WARNING, "asyncio"):
                for _ in range(7):
                    p.transport.sendto(b"x")
            await p.wait("lost")
            p.transport.sendto(b"y")
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(9)
    assert caplog.messages.count("socket.send() raised exception.") >= 3
