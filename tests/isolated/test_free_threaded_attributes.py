"""What other threads read and set of a loop, its timers and transports.

Each test looks for a race: it need not come, even where it is possible.
"""

import pytest
from builds import FREE_THREADED
from isolated_scripts import REPEATED

pytestmark = pytest.mark.skipif(
    not FREE_THREADED,
    reason="this Python cannot run without a GIL",
)

BEFORE = REPEATED


def test_another_thread_reads_the_write_buffer(fast_script):
    fast_script("""
async def main():
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    read = lambda: len(list(transport._buffer))
    with repeated(2, read), repeated(1, lambda: far.recv(1 << 16)):
        for number in range(ROUNDS):
            for _ in range(20):
                transport.write(b"%08d" % number * 300)
            await asyncio.sleep(0)
            while transport.get_write_buffer_size() > 1 << 20:
                await asyncio.sleep(0)
        transport.abort()
        await asyncio.sleep(0)
    far.close()

ROUNDS = 1500
loop = new_loop()
loop.run_until_complete(main())
loop.close()
""")


def test_another_thread_reads_the_current_handle(fast_script):
    """In debug mode, where the loop sets it for each callback."""
    fast_script("""
def read():
    for _ in range(100):
        assert type(loop._current_handle) in (type(None), type(handle))

async def main():
    for _ in range(2_000):
        loop.call_soon(int)
        await asyncio.sleep(0)

loop = new_loop()
loop.set_debug(True)
loop.slow_callback_duration = 100
handle = loop.call_soon(int)
with repeated(2, read):
    loop.run_until_complete(main())
loop.close()
""")


def test_another_thread_reads_the_thread_of_a_run(fast_script):
    fast_script("""
here = threading.get_ident()

def read():
    for _ in range(1000):
        assert loop._thread_id in (None, here)

loop = new_loop()
with repeated(2, read):
    for _ in range(20_000):
        loop._thread_id = here
        loop._thread_id = None
loop.close()
""")


def test_another_thread_reads_the_server_and_the_loop_of_a_connection(
    fast_script,
):
    """ThreadSanitizer alone can find this race: both objects live on."""
    fast_script("""
class Kept(asyncio.Protocol):
    def connection_made(self, transport):
        global newest
        newest = transport
        made.set()

def read():
    transport = newest
    for _ in range(100):
        assert transport is None or transport._loop in (None, loop)
        assert transport is None or transport._server in (None, server)

async def main():
    global server, made
    server = await loop.create_server(Kept, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with repeated(2, read):
        for _ in range(1000):
            made = asyncio.Event()
            with socket.create_connection(address):
                await made.wait()
            newest.abort()
            await asyncio.sleep(0)
    server.close()
    await server.wait_closed()

newest = server = None
loop = new_loop()
loop.run_until_complete(main())
loop.close()
""")
