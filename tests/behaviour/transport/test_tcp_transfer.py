"""Many bytes and many connections, both ends on the loop under test.

Each transfer is compared by checksum.  Random sizes, pauses, half closes and
resets are in the generated programs (tests/differential).
"""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from net_helpers import (
    KIB,
    MIB,
    Recorder,
    both_ends,
    digest,
    pattern,
)


class Sender(Recorder):
    """Writes *data* in pieces as flow control allows; hashes what comes."""

    def __init__(self, payload=b"", piece=64 * KIB, **hooks):
        super().__init__(**hooks)
        self.view = memoryview(payload)
        self.piece = piece
        self.paused = False
        self.got = hashlib.sha256()
        self.size = 0

    def data_received(self, data):
        self.got.update(data)
        self.size += len(data)
        self.note("data", None, data)

    def pause_writing(self):
        super().pause_writing()
        self.paused = True

    def resume_writing(self):
        super().resume_writing()
        self.paused = False
        self.go_on()

    def go_on(self):
        while self.view and not self.paused:
            piece, self.view = self.view[: self.piece], self.view[self.piece :]
            self.transport.write(piece)
        if not self.view and not self.paused:
            self.transport.write_eof()


@pytest.mark.parametrize("piece", [1000, 64 * KIB, MIB])
async def test_ten_mebibytes_both_ways(piece):
    there, back = pattern(10 * MIB, 1), pattern(10 * MIB, 2)
    near = Sender(there, piece, eof=lambda p: True)
    far = Sender(back, piece, eof=lambda p: True)
    async with both_ends(near, far):
        near.go_on()
        far.go_on()
        await near.wait_for("eof")
        await far.wait_for("eof")
        assert far.got.hexdigest() == digest(there)
        assert near.got.hexdigest() == digest(back)


@pytest.mark.parametrize("kind", ["tcp-client"])
async def test_a_flooding_peer_does_not_starve_callbacks(transport_pair, loop):
    bulk = await transport_pair(Sender())
    chunk = bytes(4 * MIB)

    async def flood():
        for _ in range(5):
            await bulk.peer.send(chunk)

    task = asyncio.create_task(flood())
    iterations = 0
    longest = 0
    before = 0
    while not task.done():
        await asyncio.sleep(0)
        iterations += 1
        longest = max(longest, bulk.protocol.size - before)
        before = bulk.protocol.size
    await task
    # At most a bounded number of bytes between two iterations.
    assert iterations > 10
    assert longest <= 2 * MIB
