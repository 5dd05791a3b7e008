"""How much memory a loop keeps after it had much to do."""

import os
import platform

import pytest
from builds import FREE_THREADED, SANITIZED

from fastloop._core import StreamTransport


@pytest.mark.skipif(
    FREE_THREADED or SANITIZED or not os.path.exists("/proc/self/statm"),
    reason="each callback has a handle, whose memory is CPython's, or the "
    "sanitizer keeps what was freed, or no file says how much is used",
)
def test_a_burst_gives_its_memory_back_while_the_loop_waits(fast_script):
    """A further burst soon after it would use it again."""
    fast_script("""
import resource

def nothing():
    pass

def iterate(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()

def size():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

loop = new_loop()
iterate(loop)
before = size()
for _ in range(1_000_000):
    loop.call_soon(nothing)
assert size() - before > 50_000_000, size() - before
iterate(loop)

async def wait():
    for _ in range(12):  # half of what is left each time
        await asyncio.sleep(0.001)

loop.run_until_complete(wait())
assert size() - before < 15_000_000, size() - before
loop.close()
""")


@pytest.mark.skipif(
    FREE_THREADED or platform.libc_ver()[0] != "glibc" or SANITIZED,
    reason="which blocks are mapped for themselves is known of glibc",
)
def test_a_large_message_maps_no_memory(fast_script):
    fast_script("""
import resource
import socket

COUNT, SIZE = 300, 200_000
near, far = socket.socketpair()
for end in (near, far):
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

class Counts(asyncio.Protocol):
    got_bytes = 0

    def data_received(self, data):
        self.got_bytes += len(data)
        if self.got_bytes == SIZE * COUNT:
            loop.stop()
        elif self.got_bytes % SIZE == 0:
            far.send(bytes(SIZE))

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

loop = new_loop()
loop.run_until_complete(loop.create_connection(Counts, sock=near))
far.send(bytes(SIZE))
before = faults()
loop.run_forever()
# A mapped block of that size has 49 pages.
assert faults() - before < 10 * COUNT, faults() - before
loop.close()
far.close()
""")


def test_a_connection_is_small():
    """An idle one is mostly this; the allocator rounds up to 16 bytes."""
    assert StreamTransport.__basicsize__ <= 320
