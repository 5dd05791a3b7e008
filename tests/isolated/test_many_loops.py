"""Loops in several threads, abandoned loops, loops by the hundred."""

import pytest

BEFORE = """
def count():
    return len(os.listdir("/dev/fd"))

def in_thread(target, *args):
    thread = threading.Thread(target=target, args=args)
    thread.start()
    thread.join()

def assert_leaves_nothing(cycle, times):
    cycle()
    cycle()
    before = count()
    for _ in range(times):
        cycle()
    gc.collect()
    assert count() <= before, (before, count())
"""
FLAGS = ("-W", "ignore::ResourceWarning")


CYCLES = {
    "loops_of_a_thread_that_ends": """
def runner():
    for _ in range(3):
        loop = new_loop()
        loop.run_until_complete(asyncio.sleep(0.0001))
        loop.close()

assert_leaves_nothing(lambda: in_thread(runner), 20)
assert_leaves_nothing(runner, 200)
""",
    "abandoned_loops": """
import itertools, weakref
alive = []
numbers = itertools.count()

def abandon():
    loop = new_loop()
    left, right = socket.socketpair()
    if next(numbers) % 2:
        loop.add_reader(left, print, loop, right)
    loop.call_later(100, print, loop)
    loop.call_soon(print, loop)
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.me = loop
    alive.append(weakref.ref(loop))

def cycle():
    for _ in range(10):
        abandon()
    gc.collect()

assert_leaves_nothing(cycle, 2)
signal.signal(signal.SIGUSR1, signal.SIG_DFL)
assert not any(ref() for ref in alive)
""",
    "a_loop_abandoned_in_another_thread": """
def runner(holder):
    loop = new_loop()
    loop.run_until_complete(asyncio.sleep(0.0001))
    holder.append(loop)

def cycle():
    in_thread(runner, [])
    gc.collect()

assert_leaves_nothing(cycle, 10)
""",
    "abandoned_connections": """
sys.unraisablehook = print

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    transport, protocol = await loop.create_connection(Echo, *address)
    transport.write(b"x")
    await asyncio.sleep(0.001)
    loop.kept = server, transport, protocol

def cycle():
    loop = new_loop()
    loop.run_until_complete(main())
    loop.me = loop
    del loop
    gc.collect()
    gc.collect()

assert_leaves_nothing(cycle, 10)
""",
}


MARKS = {
    "a_loop_abandoned_in_another_thread": [
        pytest.mark.asyncio_needs_gil("__del__() closes a finalized socket")
    ]
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=MARKS.get(name, [])) for name in CYCLES]
)
def test_no_descriptors_stay_of(script, name):
    script(CYCLES[name])
