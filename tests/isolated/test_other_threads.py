"""Descriptor calls from other threads while the loop waits.

asyncio forbids most of them and yet survives: a collection in any thread runs
destructors, and those unregister and close.  A loop that is changed while its
thread waits must not end the process, nor sleep over a wake-up.
"""

import pytest

BEFORE = """
def assert_wake_ups_are_heard(loop, count=50):
    \"\"\"Each with the loop asleep, for nothing else is there to do.\"\"\"
    heard = threading.Event()
    def wake():
        for _ in range(count):
            heard.clear()
            loop.call_soon_threadsafe(heard.set)
            assert heard.wait(100), "a wake-up was lost"
        loop.call_soon_threadsafe(loop.stop)
    thread = threading.Thread(target=wake)
    thread.start()
    loop.run_forever()
    thread.join()

def assert_idle(loop):
    loop.run_until_complete(asyncio.sleep(0.01))
    start = time.process_time()
    loop.run_until_complete(asyncio.sleep(0.2))
    assert time.process_time() - start < 0.1
"""


@pytest.mark.parametrize("method", ["close", "abort", "pause_reading"])
def test_collected_owners_change_transports_in_another_thread(
    fast_script, method
):
    """asyncio survives it with errors of its selector's map."""
    fast_script(
        f"""
METHOD = {method!r}
"""
        + """
class Owner:
    def __init__(self, transport):
        self.transport = transport
        self.me = self
    def __del__(self):
        getattr(self.transport, METHOD)()

class Owned(asyncio.Protocol):
    def connection_made(self, transport):
        opened.append(transport)
        Owner(transport)
        made.release()

def collect():
    while not ended:
        if made.acquire(timeout=0.1):
            gc.collect()

async def main():
    loop = asyncio.get_running_loop()
    end = loop.time() + 1
    server = await loop.create_server(Owned, "127.0.0.1", 0)
    name = server.sockets[0].getsockname()
    while loop.time() < end:
        for _ in range(4):
            await loop.create_connection(Owned, *name)
        await asyncio.sleep(0.002)
        for transport in opened:
            transport.abort()
        opened.clear()
    server.close()
    await server.wait_closed()

made = threading.Semaphore(0)
gc.disable()
opened, ended = [], []
thread = threading.Thread(target=collect)
thread.start()
loop = new_loop()
try:
    loop.run_until_complete(main())
finally:
    ended.append(True)
    thread.join()
gc.collect()
assert_wake_ups_are_heard(loop)
assert_idle(loop)
loop.close()
""",
        "-W",
        "ignore",
    )


def test_a_reader_added_by_another_thread_gets_events(script):
    script("""
loop = new_loop()
def add():
    for round in range(50):
        left, right = socket.socketpair()
        right.send(b"x")
        heard = threading.Event()
        time.sleep(0.0005)
        loop.add_reader(left, lambda: (left.recv(1), heard.set()))
        assert heard.wait(100), round
        heard.clear()
        right.send(b"y")
        assert heard.wait(100), round
        assert loop.remove_reader(left)
        left.close()
        right.close()
    loop.call_soon_threadsafe(loop.stop)
failures = []
threading.excepthook = lambda args: (failures.append(args), os._exit(3))
thread = threading.Thread(target=add)
thread.start()
loop.run_forever()
thread.join()
assert_idle(loop)
loop.close()
""")
