"""The fixtures that join two ends do what the tests on them rely on."""

from net_helpers import Recorder, every_kind, turns


@every_kind
async def test_calls_are_recorded_in_order(transport_pair):
    c = await transport_pair(Recorder())
    await c.peer.send(b"one")
    await c.protocol.wait_data(3)
    await c.peer.send(b"two")
    assert await c.protocol.wait_data(6) == b"onetwo"
    c.peer.send_eof()
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names == ["made", "data", "eof", "lost"]
    assert c.protocol.events[1] == ("data", 3)


@every_kind
async def test_a_test_may_open_two_pairs(transport_pair):
    first, second = await transport_pair(), await transport_pair()
    first.transport.write(b"first")
    second.transport.write(b"second")
    assert await first.peer.recv_exactly(5) == b"first"
    assert await second.peer.recv_exactly(6) == b"second"


@every_kind
async def test_what_was_written_leaves_before_the_test_ends(transport_pair):
    c = await transport_pair()
    c.transport.write(b"last")
    c.transport.close()
    assert await c.peer.recv_all() == b"last"


async def test_streams_are_joined_both_ways(stream_pair):
    (reader, writer), (far_reader, far_writer) = stream_pair
    writer.write(b"ping\n")
    assert await far_reader.readline() == b"ping\n"
    far_writer.write(b"pong\n")
    far_writer.close()
    assert await reader.read() == b"pong\n"
    await turns()
