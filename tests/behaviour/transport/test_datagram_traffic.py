"""Datagrams in and out: order, sizes, errors, and what a protocol may do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import sys

import pytest
from datagram_helpers import (
    Datagrams,
    endpoint,
    must_pause,
    plain,
    refusing,
)
from net_helpers import iterations


def own_name(protocol):
    return protocol.transport.get_extra_info("sockname")


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


async def test_datagrams_that_arrive_in_a_read_wait_for_the_next_iteration():
    loop = asyncio.get_running_loop()
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

    async with endpoint(
        Datagrams(datagram=again), local_addr=("127.0.0.1", 0)
    ) as p:
        for _ in range(50):
            p.transport.sendto(b"x", own_name(p))
        await p.wait("datagram", 50)
        for _ in range(20):
            await asyncio.sleep(0)
            ticks.append(len(p.data))
        assert all(b - a <= 40 for a, b in itertools.pairwise(ticks))


def send_burst(protocol, count=10):
    with plain() as peer:
        for number in range(count):
            peer.sendto(b"%d" % number, own_name(protocol))


@contextlib.asynccontextmanager
async def burst(act):
    """An endpoint whose protocol acts at the third of ten datagrams."""

    def hook(protocol, data, addr):
        if len(protocol.data) == 3:
            act(protocol.transport)

    async with endpoint(Datagrams(datagram=hook)) as p:
        send_burst(p)
        await p.wait("datagram", 3)
        yield p


TEN = [b"%d" % number for number in range(10)]


async def test_pausing_amid_a_burst(loop_kind):
    must_pause(loop_kind)
    async with burst(lambda t: t.pause_reading()) as p:
        await iterations(10)
        assert len(p.data) == 3
        assert not p.transport.is_reading()
        p.transport.resume_reading()
        assert len(p.data) == 3
        await p.wait("datagram", 10)
        assert p.data == TEN


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_ending_amid_a_burst(loop_kind, how, paused):
    if paused:
        must_pause(loop_kind)
    act = "pause_reading" if paused else how
    async with burst(lambda t: getattr(t, act)()) as p:
        if paused:
            p.transport.resume_reading()
            getattr(p.transport, how)()
            assert not p.transport.is_reading()
        assert await p.wait("lost") is None
        assert p.names == ["made"] + ["datagram"] * 3 + ["lost"]


async def test_another_protocol_amid_a_burst():
    second = Datagrams()
    async with burst(lambda t: t.set_protocol(second)) as p:
        await second.wait("datagram", 7)
        assert p.data + second.data == TEN
        p.transport.set_protocol(p)


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
    events = await outcome_of(address, data)
    assert [event[0] for event in events] == ["lost"]
    assert isinstance(events[0][1], kind)
    assert reports[0]["exception"] is events[0][1]
    (report,) = reports
    assert report["message"] == "Fatal write error on datagram transport"
    assert set(report) == {"message", "exception", "transport", "protocol"}


async def test_exceptions_of_datagram_received_are_reported(reports):
    def fail(protocol, data, addr):
        raise ZeroDivisionError(data)

    async with endpoint(
        Datagrams(datagram=fail), local_addr=("127.0.0.1", 0)
    ) as p:
        send_burst(p, 3)
        await p.wait("datagram", 3)
        await iterations(2)
        assert not p.transport.is_closing()
    assert [r["exception"].args[0] for r in reports] == [b"0", b"1", b"2"]
    assert all("_read_ready()" in r["message"] for r in reports)


def test_exceptions_that_leave_the_loop_lose_no_datagram(loop):
    def leave(protocol, data, addr):
        if len(protocol.data) == 2:
            raise KeyboardInterrupt

    protocol = Datagrams(datagram=leave)

    async def main():
        await loop.create_datagram_endpoint(
            lambda: protocol, local_addr=("127.0.0.1", 0)
        )

    loop.run_until_complete(main())
    send_burst(protocol, 5)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(protocol.wait("datagram", 5))
    assert len(protocol.data) == 2
    for task in asyncio.all_tasks(loop):
        loop.run_until_complete(task)
    assert protocol.data == [b"%d" % n for n in range(5)]
    protocol.transport.close()
    loop.run_until_complete(protocol.wait("lost"))


# --- out --------------------------------------------------------------------


@pytest.mark.parametrize("data", ["text", 5, None, [b"x"]])
async def test_types_that_may_not_be_sent(data):
    async with endpoint() as p:
        with pytest.raises(
            TypeError, match="data argument must be a bytes-like object"
        ):
            p.transport.sendto(data, ("127.0.0.1", 9))
        with pytest.raises(TypeError):
            p.transport.sendto()
        with pytest.raises(TypeError):
            p.transport.sendto(b"x", None, None)
        with pytest.raises(TypeError):
            p.transport.sendto(b"x", where=None)
        assert p.names == ["made"]


async def test_only_the_remote_address():
    with plain() as peer:
        address = peer.getsockname()
        async with endpoint(remote_addr=address) as p:
            with pytest.raises(ValueError) as caught:
                p.transport.sendto(b"x", ("127.0.0.1", 1))
            assert str(caught.value) == (
                f"Invalid address: must be None or {address}"
            )
            with pytest.raises(ValueError):
                p.transport.sendto(b"x", ("localhost", address[1]))
            p.transport.sendto(b"y")
            assert peer.recv(9) == b"y"


async def outcome_of(address, data=b"x", **how):
    """What sending there does: the events after connection_made."""
    async with endpoint(**how) as p:
        p.transport.sendto(data, address)
        await iterations(3)
        return p.events[1:]


async def test_system_errors_go_to_the_protocol():
    """error_received may clear the data; sendto raises its exception."""
    data = bytearray(70_000)

    def clear_and_fail(protocol, exc):
        data.clear()
        raise ZeroDivisionError

    async with endpoint(Datagrams(error=clear_and_fail)) as p:
        with pytest.raises(ZeroDivisionError):
            p.transport.sendto(data, ("127.0.0.1", 9))
        assert not p.transport.is_closing()
        assert p.names == ["made", "error"]
        assert str(p.events[-1][1]) == "[Errno 90] Message too long"
    assert data == b""


async def test_error_received_leaves_the_coroutine_no_exception():
    """It began in an except block, and continues outside."""

    async def send(transport):
        transport.sendto(bytes(70_000), ("127.0.0.1", 9))
        await asyncio.sleep(0)
        return sys.exc_info()[1]

    async with endpoint() as p:
        coroutine = send(p.transport)
        try:
            raise LookupError
        except LookupError:
            coroutine.send(None)
        with pytest.raises(StopIteration) as stopped:
            coroutine.send(None)
        assert stopped.value.value is None
        assert p.names == ["made", "error"]


async def test_a_refusing_peer_is_reported_and_the_endpoint_stays_open():
    with refusing() as peer:
        async with endpoint(remote_addr=peer.getsockname()) as p:
            for _ in range(3):
                p.transport.sendto(b"nobody")
                await p.wait("error", p.names.count("error") + 1)
            assert {e[1].errno for e in p.events[1:]} == {errno.ECONNREFUSED}
            peer.connect(own_name(p))  # it takes what comes from there now
            p.transport.sendto(b"somebody")
            assert peer.recv(9) == b"somebody"
            peer.send(b"hello")
            await p.wait("datagram")
            assert p.data == [b"hello"]


async def test_exceptions_of_error_received_in_an_event_are_reported(reports):
    def fail(protocol, exc):
        raise ZeroDivisionError

    with refusing() as peer:
        async with endpoint(
            Datagrams(error=fail), remote_addr=peer.getsockname()
        ) as p:
            p.transport.sendto(b"nobody")
            await p.wait("error")
            await iterations(2)
            assert not p.transport.is_closing()
    assert isinstance(reports[0]["exception"], ZeroDivisionError)
    assert "_read_ready()" in reports[0]["message"]
