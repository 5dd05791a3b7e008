"""Datagrams that must wait for room, and the end of a transport."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging

import pytest
from datagram_helpers import (
    HEADER,
    Datagrams,
    drain,
    endpoint,
    must_pause,
    plain,
    skip_if_miscounted,
    stuffed,
)
from net_helpers import iterations

both = pytest.mark.parametrize("connected", [True, False])


@both
async def test_buffered_datagrams_are_sent_in_order(tmp_path, connected):
    async with stuffed(tmp_path, connected) as (p, peer, address):
        for number in range(100):
            p.transport.sendto(b"queued %d" % number, address)
        await iterations()
        data = bytearray(b"before")
        p.transport.sendto(data, address)
        data[:] = b"after."
        got = await drain(peer, 101)
        while got[-1] != b"before":
            got += await drain(peer, 1)
        number = got.index(b"queued 0")
        assert got[:number] == [b"%04d" % n for n in range(number)]
        assert got[number:-1] == [b"queued %d" % n for n in range(100)]
        assert p.names == ["made"]
        p.transport.sendto(b"at once", address)
        assert peer.recv(9) == b"at once"


@both
async def test_water_marks(tmp_path, connected):
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
        assert p.names == ["made", "pause"]
        await iterations()
        assert p.names == ["made", "pause"]
        while "resume" not in p.names:
            await drain(peer, 1)
        await iterations()
        assert p.names == ["made", "pause", "resume"]


async def test_limits_below_the_buffer_size_pause_at_once(tmp_path):
    async with stuffed(tmp_path, True) as (p, _, _):
        p.transport.set_write_buffer_limits(high=1)
        assert p.names == ["made", "pause"]


@both
async def test_close_sends_buffered_datagrams(tmp_path, connected):
    async with stuffed(tmp_path, connected) as (p, peer, address):
        p.transport.sendto(b"last", address)
        p.transport.close()
        p.transport.close()
        assert p.transport.is_closing()
        await iterations()
        assert p.names == ["made"]
        # asyncio takes more until the transport is lost.
        p.transport.sendto(b"late", address)
        got = await drain(peer, 3)
        while got[-1] != b"late":
            got += await drain(peer, 1)
        await p.wait("lost")
        assert got[-2:] == [b"last", b"late"]
        assert p.events == [("made",), ("lost", None)]


@both
async def test_abort_drops_buffered_datagrams(tmp_path, connected):
    async with stuffed(tmp_path, connected) as (p, peer, address):
        p.transport.sendto(b"dropped", address)
        p.transport.abort()
        assert p.names == ["made"]
        assert await p.wait("lost") is None
        peer.setblocking(False)
        got = []
        with pytest.raises(BlockingIOError):
            while True:
                got.append(peer.recv(99))
        assert got == [b"%04d" % n for n in range(len(got))]


@both
def test_a_peer_that_dies_while_datagrams_wait(run, tmp_path, connected):
    """Each one that waits has its error; a connected socket loses its peer."""

    async def main():
        async with stuffed(tmp_path, connected) as (p, peer, address):
            p.transport.sendto(b"a", address)
            p.transport.sendto(b"b", address)
            peer.close()
            await p.wait("error", 3)
            await iterations()
            assert p.transport.get_write_buffer_size() in (0, 3 * HEADER)
            return [e[1].errno for e in p.events if e[0] == "error"]

    refused = errno.ECONNREFUSED
    after = errno.ENOTCONN if connected else refused
    assert run(main())[:3] == [refused, after, after]


@both
async def test_closing_when_the_peer_is_gone(tmp_path, connected):
    async with stuffed(tmp_path, connected) as (p, peer, _):
        p.transport.close()
        peer.close()
        assert await p.wait("lost") is None
        assert "error" in p.names
        assert p.names[-1] == "lost"


async def test_aborting_in_error_received(tmp_path):
    def abort(p, exc):
        p.transport.abort()

    async with stuffed(tmp_path, False, error=abort) as (p, peer, path):
        p.transport.sendto(b"a", path)
        peer.close()
        assert await p.wait("lost") is None
        assert p.names == ["made", "error", "lost"]


# --- an address that uses the transport --------------------------------------

DATA = b"the same object"


class Port:
    """Refuses each datagram sent to it, unless `answers` has that attempt."""

    def __init__(self):
        self.tried = 0
        self.answers = {}

    def __index__(self):
        self.tried += 1
        answer = self.answers.pop(self.tried, None)
        if answer is None:
            raise BlockingIOError
        answer()
        return 9


@contextlib.asynccontextmanager
async def queued(count):
    """An endpoint that has queued the same datagram so often."""
    port = Port()
    address = ("127.0.0.1", port)
    async with endpoint() as p:
        for _ in range(count):
            p.transport.sendto(DATA, address)
        assert port.tried == 1
        port.tried = 0
        yield p.transport, port, address


def is_queued(transport, count):
    return transport.get_write_buffer_size() == count * (len(DATA) + HEADER)


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
async def test_a_sent_datagram_is_dropped_but_none_queued_after_an_abort():
    """asyncio counts on what an abort has cleared."""
    async with queued(2) as (transport, port, address):

        def abort_and_send():
            transport.abort()
            transport.sendto(DATA, address)
            assert is_queued(transport, 1)

        port.answers[1] = abort_and_send
        transport._sendto_ready()
        assert is_queued(transport, 1)


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_nested_sendto_ready_sends_no_datagram_twice(loop_kind, count):
    skip_if_miscounted(loop_kind)
    async with queued(count) as (transport, port, _):
        for number in range(2, count + 5):
            port.answers[number] = bool
        port.answers[1] = transport._sendto_ready
        transport._sendto_ready()
        assert port.tried == count
        assert is_queued(transport, 0)


@pytest.mark.parametrize("refused", [False, True])
async def test_datagrams_queued_by_a_send_stay_queued(loop_kind, refused):
    skip_if_miscounted(loop_kind)
    async with queued(2) as (transport, port, address):

        def send_more():
            for _ in range(3):
                transport.sendto(DATA, address)
            if refused:
                raise BlockingIOError

        port.answers[1] = send_more
        transport._sendto_ready()
        assert is_queued(transport, 4 + refused)


# --- the end ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_lost_once_and_later(how):
    async with endpoint() as p:
        end = getattr(p.transport, how)
        assert end() is None
        assert p.transport.is_closing()
        assert p.names == ["made"]
        end()
        await iterations()
        end()
        p.transport.abort()
        p.transport.close()
        await iterations()
        assert p.events == [("made",), ("lost", None)]
        assert p.transport.get_protocol() is None


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_reading_until_the_end(loop_kind, how):
    must_pause(loop_kind)
    async with endpoint() as p:
        assert p.transport.is_reading()
        getattr(p.transport, how)()
        assert not p.transport.is_reading()


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


async def test_sending_anywhere_after_the_end():
    """asyncio sends as long as there is a socket, and then has none."""
    with plain() as peer:
        async with endpoint() as p:
            p.transport.close()
            p.transport.sendto(b"still", peer.getsockname())
            assert peer.recv(9) == b"still"
            await p.wait("lost")
            with pytest.raises(AttributeError):
                p.transport.sendto(b"gone", peer.getsockname())


async def test_an_exception_class_of_the_program(reports):
    async with endpoint() as p:
        error = RuntimeError("own")
        p.transport._fatal_error(error, "message")
        assert await p.wait("lost") is error
    assert reports[0]["message"] == "message"


def test_closing_the_loop_of_an_open_endpoint(loop_factory):
    loop = loop_factory()
    made = [Datagrams()]
    loop.run_until_complete(
        loop.create_datagram_endpoint(
            lambda: made[0], local_addr=("127.0.0.1", 0)
        )
    )
    transport = made[0].transport
    sock = transport._sock
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        transport.close()
    assert made[0].names == ["made"]
    with pytest.warns(ResourceWarning, match="unclosed transport"):
        made.clear()
        del transport
        gc.collect()
    assert sock.fileno() == -1


async def test_repr():
    async with endpoint() as p:
        assert "DatagramTransport fd=" in repr(p.transport)
        assert "bufsize=0" in repr(p.transport)
        p.transport.close()
        assert "closing" in repr(p.transport)
        await asyncio.sleep(0)
        assert "closed" in repr(p.transport)


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
async def test_a_datagram_queued_after_abort_does_not_wait(tmp_path, loop):
    loop.enable_metrics()
    async with stuffed(tmp_path, False) as (p, _, address):
        p.transport.abort()
        p.transport.sendto(b"late", address)
        await iterations()
        assert p.names[-1] == "lost"
        assert loop.metrics().write_buffer_bytes == 0
