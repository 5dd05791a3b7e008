"""Descriptor calls from other threads while the loop waits.

asyncio forbids most of them and yet survives: a collection in any thread runs
destructors, and those unregister and close.  A loop that is changed while its
thread waits must not end the process, nor sleep over a wake-up.
"""

import pytest

BEFORE = """
def run_beside(main, *threads, seconds=1.0):
    \"\"\"Run a coroutine function while threads repeat the others.\"\"\"
    loop = new_loop()
    failures = []
    ended = threading.Event()

    def repeat(call):
        try:
            while not ended.is_set():
                call(loop)
        except BaseException as exc:
            failures.append(exc)

    workers = [threading.Thread(target=repeat, args=(t,)) for t in threads]
    async def whole():
        for worker in workers:
            worker.start()
        try:
            await main(time.monotonic() + seconds)
        finally:
            ended.set()
            while any(worker.is_alive() for worker in workers):
                await asyncio.sleep(0.001)
    loop.run_until_complete(whole())
    assert not failures, failures
    return loop

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
@pytest.mark.parametrize("side", ["server", "client"])
def test_collected_owners_change_transports_in_another_thread(
    fast_script, method, side
):
    """asyncio survives it with errors of its selector's map."""
    fast_script(
        f"""
METHOD, SIDE = {method!r}, {side!r}
"""
        + """
class Owner:
    def __init__(self, transport):
        self.transport = transport
        self.me = self
    def __del__(self):
        getattr(self.transport, METHOD)()

made = threading.Semaphore(0)
gc.disable()
opened = []

class Owned(asyncio.Protocol):
    def connection_made(self, transport):
        opened.append(transport)
        Owner(transport)
        made.release()

def collect(loop):
    if made.acquire(timeout=0.1):
        gc.collect()

async def main(end):
    loop = asyncio.get_running_loop()
    kinds = Owned, asyncio.Protocol
    if SIDE == "client":
        kinds = kinds[::-1]
    server = await loop.create_server(kinds[0], "127.0.0.1", 0)
    name = server.sockets[0].getsockname()
    while time.monotonic() < end:
        clients = []
        for _ in range(4):
            client, _ = await loop.create_connection(kinds[1], *name)
            clients.append(client)
        await asyncio.sleep(0.002)
        for transport in clients + opened:
            transport.abort()
        opened.clear()
    server.close()
    await server.wait_closed()

loop = run_beside(main, collect)
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
