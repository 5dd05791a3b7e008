"""What other threads read of a transport while the loop's thread changes it.

Most tests look for a race for a second: it need not come, even where it is
possible.
"""

import itertools
from pathlib import Path

import pytest
from builds import FREE_THREADED
from isolated_scripts import REPEATED

CERTS = Path(__file__).parent.parent / "certs"
pytestmark = pytest.mark.skipif(
    not FREE_THREADED,
    reason="this Python cannot run without a GIL",
)

BEFORE = (
    f"CERTS = {str(CERTS)!r}\n"
    + REPEATED
    + """
import ssl

def for_a_second():
    '''Yield numbers.'''
    until = time.monotonic() + 1
    number = 0
    while time.monotonic() < until:
        yield number
        number += 1

class Protocol(asyncio.Protocol):
    def __init__(self):
        self.items = list(range(20))
    def pause_writing(self):
        self.items = [1] * 20
    def resume_writing(self):
        self.items = [2] * 20

async def pair():
    near, far = socket.socketpair()
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(Protocol, sock=near))[0], far

async def upgraded(sock, context, **options):
    loop = asyncio.get_running_loop()
    protocol = Protocol()
    plain, _ = await loop.create_connection(lambda: protocol, sock=sock)
    return await loop.start_tls(plain, protocol, context, **options)

async def tls_pair():
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTS + "/localhost.pem", CERTS + "/localhost.key")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(CERTS + "/ca.pem")
    near, far = socket.socketpair()
    return await asyncio.gather(
        upgraded(near, client, server_hostname="localhost"),
        upgraded(far, server, server_side=True),
    )

def run(main):
    loop = new_loop()
    loop.run_until_complete(main())
    loop.close()
"""
)


@pytest.mark.parametrize(
    "kinds", ["Receiver", "BufferedReceiver", "Receiver, BufferedReceiver"]
)
def test_the_protocol_is_set_while_tls_data_is_delivered(fast_script, kinds):
    """Data never goes to a protocol in the way of the one before it."""
    fast_script(
        f"names = {kinds!r}"
        """
class Receiver(Protocol):
    def data_received(self, data):
        self.items = [1] * 20

class BufferedReceiver(asyncio.BufferedProtocol):
    def get_buffer(self, sizehint):
        self.buffer = bytearray(4096)
        return self.buffer
    def buffer_updated(self, nbytes):
        pass

async def main():
    near, far = await tls_pair()
    makes = [globals()[name] for name in names.split(", ")]
    def change():
        for make in makes:
            near.set_protocol(make())
    with repeated(1, change):
        for _ in for_a_second():
            far.write(b"x" * 100)
            await asyncio.sleep(0)
    assert not near.is_closing()
    near.abort()
    far.abort()
    await asyncio.sleep(0.01)

run(main)
"""
    )


def test_all_threads_get_one_socket_object(fast_script):
    fast_script("""
async def main():
    loop = asyncio.get_running_loop()
    made = []
    class Accepted(asyncio.Protocol):
        def connection_made(self, transport):
            made.append(transport)
    server = await loop.create_server(Accepted, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for _ in for_a_second():
        far = socket.create_connection(address)
        while not made:
            await asyncio.sleep(0)
        transport = made.pop()
        gate = threading.Barrier(4)
        found = []
        def get():
            gate.wait()
            found.append(transport.get_extra_info("socket"))
        threads = [threading.Thread(target=get) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(sock is found[0] for sock in found), found
        transport.abort()
        far.close()
        await asyncio.sleep(0)
    server.close()
    await asyncio.sleep(0)

run(main)
""")


def test_a_datagram_goes_to_its_address_while_others_arrive(fast_script):
    """The address of the last sender is kept, parsed, for answers."""
    fast_script("""
class First(asyncio.DatagramProtocol):
    address = None
    def datagram_received(self, data, address):
        if data == b"first":
            self.address = address

def drain(sock):
    '''The datagrams that have come.'''
    with contextlib.suppress(BlockingIOError):
        while True:
            yield sock.recv(100)

async def main():
    transport, protocol = await asyncio.get_running_loop(
    ).create_datagram_endpoint(First, local_addr=("127.0.0.1", 0))
    here = transport.get_extra_info("sockname")
    socks = []
    for _ in range(2):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        socks.append(sock)
    first, second = socks
    def flood():
        first.sendto(b"first", here)
        second.sendto(b"second", here)
        for _ in drain(first):
            pass
        assert not list(drain(second))
    def answer():
        if protocol.address is not None:
            transport.sendto(b"for the first", protocol.address)
    with repeated(1, flood), repeated(1, answer):
        for _ in for_a_second():
            await asyncio.sleep(0.01)
    assert protocol.address is not None
    transport.close()
    for sock in socks:
        sock.close()
    await asyncio.sleep(0)

run(main)
""")


FULL = """
from contextlib import suppress

def full_pair():
    '''Non-blocking sockets, the first of which takes no more, and how much
    it took.'''
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    filled = 0
    with suppress(BlockingIOError):
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
    fast_script(
        FULL
        + """
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

run(main)
"""
    )


def test_the_loops_thread_pauses_the_protocol(fast_script):
    fast_script(
        FULL
        + """
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

run(main)
"""
    )


def test_bytes_written_at_the_end_of_a_drain_are_sent_before_eof(fast_script):
    fast_script(
        FULL
        + """
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
            transport = await opened(near, Protocol)
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

run(main)
"""
    )


def test_a_call_displaced_by_another_thread_leaves_its_sockets_count(
    fast_script,
):
    fast_script(
        """
import socket

loop = new_loop()
near, far = socket.socketpair()
near.setblocking(False)
ended = False

def displaces():
    while not ended:
        loop.add_reader(near, int)
        loop.remove_reader(near)

async def waits():
    for _ in range(2000):
        calls = [
            asyncio.ensure_future(loop.sock_recv(near, 10)) for _ in range(2)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)  # the last one is displaced in the loop's thread

thread = threading.Thread(target=displaces)
thread.start()
loop.run_until_complete(waits())
ended = True
thread.join()
assert near._io_refs == 0
near.close()
assert near.fileno() == -1
far.close()
loop.close()
"""
    )


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
