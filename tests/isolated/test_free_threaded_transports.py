"""What other threads do to a transport while the loop's thread changes it.

The tests that look for a race do so for a second: it need not come.
"""

import itertools

import pytest
from builds import FREE_THREADED

pytestmark = pytest.mark.skipif(
    not FREE_THREADED,
    reason="this Python cannot run without a GIL",
)


BEFORE = """
import contextlib

def for_a_second():
    '''Yield numbers.'''
    until = time.monotonic() + 1
    number = 0
    while time.monotonic() < until:
        yield number
        number += 1

def full_pair():
    '''Non-blocking sockets, the first of which takes no more, and how much
    it took.'''
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += near.send(bytes(4096))
    return near, far, filled

async def opened(sock, make):
    '''The transport of a socket, as if the loop had made the socket.'''
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    transport = loop._make_socket_transport(sock, make(), waiter)
    await waiter
    return transport

async def received(far, size):
    '''How much comes, at most this much.'''
    got = 0
    while got < size:
        data = await asyncio.wait_for(
            asyncio.get_running_loop().sock_recv(far, 1 << 16), 20)
        if not data:
            break
        got += len(data)
    return got

@contextlib.contextmanager
def worker(work):
    '''Call work(transport, number) in a thread for each one that is put.'''
    jobs, done = [], []
    stops = threading.Event()
    def run():
        while not stops.is_set():
            if jobs:
                job = jobs.pop()
                work(*job)
                done.append(job)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield jobs, done
    finally:
        stops.set()
        thread.join()
"""


def test_a_write_while_reading_begins_is_sent(fast_script):
    fast_script("""
def write(transport, number):
    for _ in range(number * 3 % 60):
        pass
    transport.write(b"late!")

async def main():
    loop = asyncio.get_running_loop()
    with worker(write) as (jobs, done):
        for number in for_a_second():
            near, far, filled = full_pair()
            class Made(asyncio.Protocol):
                def connection_made(self, transport):
                    jobs.append((transport, number))
                    for _ in range(number * 7 % 200):
                        pass
            transport = await opened(near, Made)
            while not done:
                await asyncio.sleep(0)
            done.clear()
            assert await received(far, filled + 5) == filled + 5
            transport.abort()
            far.close()
            await asyncio.sleep(0)

on_new_loop(main())
""")


def test_the_loops_thread_pauses_the_protocol(fast_script):
    fast_script("""
async def main():
    loop = asyncio.get_running_loop()
    near, far, filled = full_pair()
    calls = []
    resumed = loop.create_future()
    class Paused(asyncio.Protocol):
        def pause_writing(self):
            calls.append(("pause", threading.get_ident()))
        def resume_writing(self):
            calls.append(("resume", threading.get_ident()))
            resumed.set_result(None)
    transport = await opened(near, Paused)
    size = 1 << 20
    await loop.run_in_executor(None, transport.write, bytes(size))
    while not calls:
        await asyncio.sleep(0)
    assert await received(far, filled + size) == filled + size
    await resumed
    here = threading.get_ident()
    assert calls == [("pause", here), ("resume", here)], calls
    transport.abort()
    far.close()
    await asyncio.sleep(0)

on_new_loop(main())
""")


def test_bytes_written_at_the_end_of_a_drain_are_sent_before_eof(fast_script):
    fast_script("""
DATA = bytes(1 << 20)

def write(transport, number):
    while transport.get_write_buffer_size():
        pass
    for _ in range(number % 12):
        pass
    transport.write(DATA)
    transport.write_eof()

async def main():
    loop = asyncio.get_running_loop()
    with worker(write) as (jobs, done):
        for number in for_a_second():
            near, far, filled = full_pair()
            transport = await opened(near, asyncio.Protocol)
            transport.write(b"first")
            jobs.append((transport, number))
            size = filled + 5 + len(DATA)
            assert await received(far, size) == size
            while not done:
                await asyncio.sleep(0)
            done.clear()
            transport.abort()
            far.close()
            await asyncio.sleep(0)

on_new_loop(main())
""")


@pytest.mark.parametrize(
    ("where", "ends"),
    [
        *itertools.product(["in_a_run", "between_runs"], ["run", "close"]),
        ("in_this_thread", "at_once"),
    ],
)
def test_connections_that_the_gc_collects_are_closed(fast_script, where, ends):
    """Only a thread that has claimed the loop may end them."""
    fast_script(
        f"ENDS, WHERE = {ends!r}, {where!r}"
        """
class Paused(asyncio.Protocol):
    made = 0
    def connection_made(self, transport):
        self.transport = transport
        transport.pause_reading()
        Paused.made += 1

def collect():
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()

def collect_and_stop():
    collect()
    loop.stop()

async def accept():
    '''Have connections accepted that nothing refers to.'''
    server = await loop.create_server(Paused, "127.0.0.1", 0)
    for _ in range(5):
        address = server.sockets[0].getsockname()
        peers.append(socket.create_connection(address, 60))
    while Paused.made < 5:
        await asyncio.sleep(0)
    server.close()

gc.disable()
peers = []
loop = new_loop()
loop.run_until_complete(accept())
if WHERE == "in_a_run":
    loop.call_soon(collect_and_stop)
    loop.run_forever()
elif WHERE == "between_runs":
    collect()
else:
    gc.collect()
if ENDS == "run":
    loop.run_until_complete(asyncio.sleep(0))
elif ENDS == "close":
    loop.close()
for peer in peers:
    assert peer.recv(1) == b""
    peer.close()
loop.close()
""",
        "-W",
        "ignore",
    )
