"""loop.sendfile: parts of files, odd files, and refusals."""

from __future__ import annotations

import io
import select

import pytest
from net_helpers import (
    PY314,
    Recorder,
    link,
    no_free_fd,
    pattern,
)

DATA = pattern(300_000)
#: Keywords, and what of the file they mean.
PARTS = [
    ({}, slice(None)),
    ({"offset": 1000}, slice(1000, None)),
    ({"count": 5000}, slice(0, 5000)),
    ({"offset": 70_000, "count": 100_000}, slice(70_000, 170_000)),
    ({"offset": 299_000, "count": 9_000_000}, slice(299_000, None)),
    ({"offset": 300_000}, slice(300_000, None)),
]
part = pytest.mark.parametrize(("how", "meant"), PARTS, ids=str)


@pytest.fixture(params=["file", "memory"])
def file(request, tmp_path):
    """A file the system can send, and one that only Python can read."""
    if request.param == "memory":
        yield io.BytesIO(DATA)
        return
    path = tmp_path / "file"
    path.write_bytes(DATA)
    with path.open("rb") as opened:
        yield opened


def check_position(file, meant, size):
    """asyncio leaves the file behind what it sent (always from 3.14 on)."""
    if size or PY314:
        assert file.tell() == meant.indices(len(DATA))[0] + size


@pytest.mark.parametrize("kind", ["unix"])
@part
async def test_on_a_transport(transport_pair, loop, file, how, meant):
    c = await transport_pair()
    wanted = b"before " + DATA[meant] + b" after"
    c.transport.write(b"before ")
    task = loop.create_task(c.peer.recv_exactly(len(wanted)))
    sent = await loop.sendfile(c.transport, file, **how)
    c.transport.write(b" after")
    assert await task == wanted
    assert sent == len(DATA[meant])
    check_position(file, meant, sent)


async def test_it_ends_when_the_socket_has_all(loop, loop_kind, tmp_path):
    """The peer reads nothing, and the socket has too little room for more.

    Callbacks run in between, even if a task does nothing but send.
    """
    path = tmp_path / "file"
    path.write_bytes(DATA)
    seen = []
    async with link("unix") as c:
        with path.open("rb") as file:
            loop.call_soon(seen.append, "run")
            assert await loop.sendfile(c.transport, file, 0, 1) == 1
            assert seen == ["run"]
            if loop_kind == "asyncio":
                return  # it waits for the room
            size = await loop.sendfile(c.transport, file, 1, 100_000)
        assert size == 100_000
        sock = c.transport.get_extra_info("socket")
        assert not select.select([], [sock], [], 0)[1]
        assert await c.peer.recv_exactly(100_001) == DATA[:100_001]


@pytest.mark.parametrize("kind", ["tcp-server"])
async def test_nothing_is_written_meanwhile(transport_pair, loop, tmp_path):
    """Nor is a descriptor needed: none is free while it begins."""
    path = tmp_path / "file"
    path.write_bytes(DATA * 20)
    c = await transport_pair(Recorder())
    c.shrink()
    with path.open("rb") as file, no_free_fd():
        task = loop.create_task(
            loop.sendfile(c.transport, file, fallback=False)
        )
        assert await c.peer.recv_exactly(1000) == DATA[:1000]
        with pytest.raises(RuntimeError, match="sendfile"):
            c.transport.write(b"between")
        rest = await c.peer.recv_exactly(len(DATA) * 20 - 1000)
        assert rest == (DATA * 20)[1000:]
        assert await task == len(DATA) * 20
