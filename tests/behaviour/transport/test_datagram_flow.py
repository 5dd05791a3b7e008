"""Datagrams that must wait for room, and the end of a transport."""

from __future__ import annotations

import logging

import pytest
from datagram_helpers import (
    HEADER,
    drain,
    endpoint,
    plain,
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
async def test_close_sends_buffered_datagrams_and_abort_drops_them(
    tmp_path, connected
):
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
    (tmp_path / "b").mkdir()
    async with stuffed(tmp_path / "b", connected) as (p, peer, address):
        p.transport.sendto(b"dropped", address)
        p.transport.abort()
        assert p.names == ["made"]
        assert await p.wait("lost") is None
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            while data := peer.recv(99):
                assert data != b"dropped"


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


# --- an address that uses the transport --------------------------------------


# --- the end ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_lost_once_and_later(how):
    async with endpoint() as p:
        end = getattr(p.transport, how)
        assert "DatagramTransport fd=" in repr(p.transport)
        assert "bufsize=0" in repr(p.transport)
        assert end() is None
        assert p.transport.is_closing()
        assert "closing" in repr(p.transport)
        assert p.names == ["made"]
        end()
        await iterations()
        assert "closed" in repr(p.transport)
        end()
        p.transport.abort()
        p.transport.close()
        await iterations()
        assert p.events == [("made",), ("lost", None)]
        assert p.transport.get_protocol() is None


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
