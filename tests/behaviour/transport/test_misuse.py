"""Transports that are used as none should be: what is reported and raised."""

import asyncio
import contextlib
import errno
import sys

import pytest
from net_helpers import Recorder, iterations


async def connected(loop, pair, **hooks):
    """Return a transport on one socket of a pair, and the other socket."""
    near, far = pair
    transport, _ = await loop.create_connection(
        lambda: Recorder(**hooks), sock=near
    )
    return transport, far


async def test_connection_made_that_closes_the_socket(
    loop, pair, reports, loop_kind
):
    if loop_kind == "asyncio":
        pytest.skip("asyncio reports it, and the transport waits for ever")
    near, _ = pair
    made = []

    def close(protocol):
        made.append(protocol)
        near.close()

    with pytest.raises(OSError) as found:
        await connected(loop, pair, made=close)
    assert found.value.errno == errno.EBADF
    assert made[0].lost
    assert made[0].exc.errno == errno.EBADF
    assert reports == []


VIEWS = {
    "strided": (lambda: memoryview(b"0123456789")[::2], b"02468"),
    "backwards": (lambda: memoryview(b"012")[::-1], b"210"),
    "no dimension": (lambda: memoryview(b"x").cast("B", shape=[]), b"x"),
    "two dimensions": (
        lambda: memoryview(b"012345").cast("B", shape=[2, 3]),
        b"012345",
    ),
    "of integers": (lambda: memoryview(b"01234567").cast("I"), b"01234567"),
}
NOT_SENT = ("strided", "backwards", "no dimension")
COUNTS_ITEMS = sys.version_info >= (3, 12)


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("way", ["write", "writelines"])
async def test_all_items_of_a_memoryview_are_sent(
    loop, pair, loop_kind, name, way
):
    if loop_kind == "asyncio" and name in NOT_SENT:
        pytest.skip("asyncio raises, or ends the transport")
    if loop_kind == "asyncio" and way == "writelines" and COUNTS_ITEMS:
        pytest.skip("asyncio takes a view's items for its bytes")
    make, data = VIEWS[name]
    transport, far = await connected(loop, pair)
    transport.write(b"before")
    if way == "write":
        transport.write(make())
    else:
        transport.writelines([make()])
    transport.write(b"after")
    protocol = transport.get_protocol()
    transport.close()
    await protocol.wait_lost()
    assert far.recv(100) == b"before" + data + b"after"


async def test_reports_for_no_protocol(loop, pair, reports):
    """Its calls are reported, and one of data ends the transport."""
    transport, far = await connected(loop, pair)
    transport.set_write_buffer_limits(1)
    transport.set_protocol(None)
    size = 4_000_000
    transport.write(bytes(size))
    while size:
        with contextlib.suppress(BlockingIOError):
            size -= len(far.recv(1 << 20))
        await asyncio.sleep(0)
    await iterations()
    far.send(b"x")
    while len(reports) < 4:
        await asyncio.sleep(0)
    assert transport.is_closing()
    assert [report["message"] for report in reports[:3]] == [
        "protocol.pause_writing() failed",
        "protocol.resume_writing() failed",
        "Fatal error: protocol.data_received() call failed.",
    ]
    nothing = "'NoneType' object has no attribute "
    *_, data, lost = reports
    assert str(data["exception"]) == nothing + "'data_received'"
    assert data["protocol"] is None and data["transport"] is transport
    assert str(lost["exception"]) == nothing + "'connection_lost'"
    assert lost["message"].startswith("Exception in callback")
    assert set(lost) == {"message", "exception", "handle"}
