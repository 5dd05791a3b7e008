"""Protocols that write, close or clear their buffers where few do."""

from __future__ import annotations

import pytest
from net_helpers import Recorder, iterations, link

only_fastloop = pytest.mark.parametrize(
    "loop_kind", ["fastloop"], indirect=True
)
on_given_socket = pytest.mark.parametrize("kind", ["unix"])

BIG = 4 * 1024 * 1024


def write_twice(protocol):
    """As soon as it may write again: the second one is corked."""
    protocol.transport.write(b"one")
    protocol.transport.write(b"two")


@on_given_socket
async def test_two_writes_in_resume_writing_leave_no_registration(
    transport_pair,
):
    c = await transport_pair(Recorder(resume=write_twice))
    c.transport.write(bytes(BIG))
    assert (await c.peer.recv_exactly(BIG + 6))[-6:] == b"onetwo"
    assert c.protocol.count("resume") == 1
    # A registration that stays would fire in every iteration.
    assert "write=<idle, bufsize=0>" in repr(c.transport)


@only_fastloop
@on_given_socket
@pytest.mark.parametrize("before", [0, 1, 2])
async def test_pause_writing_may_clear_the_buffer_that_is_written(
    transport_pair, before
):
    """Whether the write is sent, or corked after others of the callback.

    asyncio's transport still exports the buffer there from 3.12 on.
    """
    data = bytearray(BIG)
    c = await transport_pair(Recorder(pause=lambda p: data.clear()))
    for _ in range(before):
        c.transport.write(b"x")
    c.transport.write(data)
    assert c.protocol.count("pause") == 1
    assert data == b""
    await c.peer.recv_exactly(before + BIG)


def _raise(transport):
    raise RuntimeError("after writing")


@pytest.mark.reports
@on_given_socket
@pytest.mark.parametrize(
    "fail",
    [
        _raise,
        lambda transport: transport._fatal_error(RuntimeError("written")),
        lambda transport: transport._force_close(RuntimeError("written")),
    ],
    ids=["raise", "_fatal_error", "_force_close"],
)
async def test_data_written_before_an_error_is_sent(transport_pair, fail):
    """A server's last words, header and body, and then its exception."""

    def answer(protocol, data):
        protocol.transport.write(b"header, ")
        protocol.transport.write(b"body")
        fail(protocol.transport)

    c = await transport_pair(Recorder(data=answer))
    await c.peer.send(b"request")
    assert await c.peer.recv_all() == b"header, body"


@only_fastloop
@pytest.mark.parametrize("end", ["close", "write_eof", "nothing"])
def test_resume_writing_may_leave_the_loop(loop, end):
    """asyncio's own transport fails an assertion in every iteration then."""

    def interrupt(protocol):
        raise KeyboardInterrupt

    async def main():
        async with link("unix", Recorder(resume=interrupt)) as c:
            c.transport.write(bytes(BIG))
            if end != "nothing":
                getattr(c.transport, end)()
            await c.peer.recv_exactly(BIG)
            await iterations()
            assert "write=<polling" not in repr(c.transport)
            assert c.protocol.lost == (end == "close")
            if end != "nothing":
                assert await c.peer.recv() == b""

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    loop.run_until_complete(task)
