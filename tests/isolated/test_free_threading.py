"""Many threads at once on many loops, through the calls that allow it.

With a GIL these are tests of order and loss; without one, and under
ThreadSanitizer, of everything that the GIL would have hidden.
"""

import pytest
from builds import FREE_THREADED
from isolated_scripts import IN_THREADS

needs_no_gil = pytest.mark.skipif(
    not FREE_THREADED, reason="this Python cannot run without a GIL"
)

BEFORE = (
    IN_THREADS
    + """
import contextlib

class Running:
    '''A loop that runs in a thread of its own.'''
    def __enter__(self):
        self.loop = new_loop()
        self.reports = []
        self.loop.set_exception_handler(
            lambda loop, context: self.reports.append(context)
        )
        running = threading.Event()
        self.loop.call_soon(running.set)
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        running.wait()
        return self.loop
    def __exit__(self, *exc):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        assert not self.reports, self.reports
"""
)


@needs_no_gil
def test_the_gil_stays_off(fast_script):
    fast_script(
        """
import fastloop.executor, fastloop.policy
from fastloop import _core
loop = new_loop()
loop.run_until_complete(loop.run_in_executor(None, int))
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
assert not sys._is_gil_enabled()
""",
        "-W",
        "error",
    )


#: Where there is no GIL, on fastloop.
WITHOUT_A_GIL = {
    # Threads that did would wait for each other at every callback.
    "instances_do_not_count_their_types": """
loop = new_loop()
kinds = type(loop.call_soon(int)), type(loop.call_later(9, int))
before = [sys.getrefcount(kind) for kind in kinds]
kept = [loop.call_soon(int) for _ in range(100)]
kept += [loop.call_later(9, int) for _ in range(100)]
assert [sys.getrefcount(kind) for kind in kinds] == before
loop.close()
""",
    "queues_are_not_shown_to_other_threads": """
with Running() as loop:
    for name in ("_ready", "_scheduled"):
        try:
            getattr(loop, name)
        except RuntimeError as exc:
            assert "own thread" in str(exc)
        else:
            raise AssertionError(name)
""",
    # asyncio's loop never does: its error is the same.
    "only_the_loops_thread_takes_an_fd_from_a_transport": """
def call(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(100)

async def add_and_remove(fd):
    loop.add_reader(fd, int)
    return loop.remove_reader(fd)

near, far = socket.socketpair()
other, peer = socket.socketpair()
with Running() as loop:
    call(loop.create_connection(asyncio.Protocol, sock=near))
    fd = near.fileno()
    near.close()
    os.dup2(other.fileno(), fd)
    try:
        loop.add_reader(fd, int)
    except RuntimeError as exc:
        assert "is used by transport" in str(exc), exc
    else:
        raise AssertionError("another thread took the fd")
    assert call(add_and_remove(fd))
""",
    # The loop's own thread closes unreferenced transports.
    "another_thread_collects_while_the_loop_schedules": """
import warnings

class Paused(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        transport.pause_reading()

def collect():
    while True:
        collecting.acquire()
        if over:
            return
        gc.collect()
        collected.set()

def count():
    global ran
    ran += 1

async def leave(count):
    '''Connections that nobody has; return their far ends.'''
    fars = []
    for _ in range(count):
        near, far = socket.socketpair()
        await loop.create_connection(Paused, sock=near)
        fars.append(far)
    return fars

async def main():
    scheduled = 0
    for _ in range(20):
        fars = await leave(400)
        await asyncio.sleep(0)
        collected.clear()
        collecting.release()
        while not collected.is_set():
            for _ in range(100):
                loop.call_soon(count)
            scheduled += 100
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert ran == scheduled, (ran, scheduled)
        for far in fars:
            far.setblocking(False)
            assert await asyncio.wait_for(loop.sock_recv(far, 1), 100) == b""
            far.close()

over = False
ran = 0
gc.disable()
warnings.simplefilter("ignore", ResourceWarning)
collecting, collected = threading.Semaphore(0), threading.Event()
collector = threading.Thread(target=collect)
collector.start()
loop = new_loop()
try:
    loop.run_until_complete(main())
finally:
    over = True
    collecting.release()
    collector.join()
    loop.close()
""",
    # Each write arrives whole, and those of one thread in order.
    "two_threads_write_to_one_stream": """
import collections

RECORDS, SIZE = 4000, 64

def record(thread, number):
    return b"%c%07d" % (thread, number) + bytes([thread]) * (SIZE - 8)

def write_all(transport, thread):
    for number in range(0, RECORDS, 4):
        transport.write(record(thread, number))
        transport.write(bytearray(record(thread, number + 1)))
        transport.writelines(
            [record(thread, number + 2), record(thread, number + 3)]
        )
        transport.set_write_buffer_limits(1 << 30)

async def main():
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    reader, _writer = await asyncio.open_connection(sock=far)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=near)
    gate = threading.Barrier(2)
    def other():
        gate.wait()
        write_all(transport, ord("o"))
    thread = threading.Thread(target=other)
    thread.start()
    gate.wait()
    write_all(transport, ord("m"))
    found = collections.defaultdict(list)
    for _ in range(2 * RECORDS):
        data = await reader.readexactly(SIZE)
        assert data == record(data[0], int(data[1:8])), data
        found[data[0]].append(int(data[1:8]))
    thread.join()
    loop.call_soon(threading.Thread(target=transport.write_eof).start)
    assert await reader.read() == b""
    assert list(found.values()) == [list(range(RECORDS))] * 2
    transport.close()

loop = new_loop()
for _ in range(3):
    loop.run_until_complete(main())
loop.close()
""",
    "two_threads_send_by_one_datagram_endpoint": """
class Receiver(asyncio.DatagramProtocol):
    def datagram_received(self, data, addr):
        seen.append(data)

async def main():
    loop = asyncio.get_running_loop()
    receiver, _ = await loop.create_datagram_endpoint(
        Receiver, local_addr=("127.0.0.1", 0)
    )
    address = receiver.get_extra_info("sockname")
    sender, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    gate = threading.Barrier(2)
    def send(letter):
        gate.wait()
        for _ in range(40):
            sender.sendto(bytearray(letter * 100), address)
    thread = threading.Thread(target=send, args=(b"o",))
    thread.start()
    send(b"m")
    while len(seen) < 80:
        await asyncio.sleep(0.001)
    thread.join()
    sender.close()
    receiver.close()
    await asyncio.sleep(0)

loop = new_loop()
for _ in range(20):
    seen = []
    loop.run_until_complete(main())
    assert sorted(seen) == [b"m" * 100] * 40 + [b"o" * 100] * 40
loop.close()
""",
}


@needs_no_gil
@pytest.mark.parametrize("name", WITHOUT_A_GIL)
def test_without_a_gil(fast_script, name):
    fast_script(WITHOUT_A_GIL[name])


#: With and without, on both loops.
PROGRAMS = {
    # None is lost, and those of one thread stay in order.
    "calls_from_eight_threads": """
seen = [[] for _ in range(8)]
with Running() as loop:
    def calls(number):
        for n in range(1000):
            loop.call_soon_threadsafe(seen[number].append, n)
            if n % 250 == 0:
                time.sleep(0.0005)
    in_threads(8, calls)
assert all(numbers == list(range(1000)) for numbers in seen)
""",
    # A callback runs unless it was cancelled, and once at most.
    "cancelled_by_eight_threads": """
ran = [[] for _ in range(8)]
with Running() as loop:
    def calls(number):
        for n in range(500):
            handle = loop.call_soon_threadsafe(ran[number].append, n)
            if n % 2:
                handle.cancel()
                assert handle.cancelled()
    in_threads(8, calls)
for numbers in ran:
    assert numbers == sorted(set(numbers))
    assert set(range(0, 500, 2)) <= set(numbers)
""",
    # A call is queued or refused, and never lost in between.
    "closing_while_others_call": """
for _ in range(30):
    loop = new_loop()
    gate = threading.Barrier(4)
    def calls():
        gate.wait()
        try:
            while True:
                loop.call_soon_threadsafe(int)
        except RuntimeError as exc:
            if str(exc) != "Event loop is closed":
                failures.append(exc)
    threads = [threading.Thread(target=calls) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.wait()
    loop.run_until_complete(asyncio.sleep(0.0005))
    loop.close()
    for thread in threads:
        thread.join()
assert not failures, failures
""",
    # Each loop's own, and one that they share.
    "executors_of_many_loops": """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(3) as shared:
    def jobs(number):
        loop = new_loop()
        async def main():
            for n in range(20):
                results = await asyncio.gather(
                    *(loop.run_in_executor(None, pow, n, 2) for _ in "123"),
                    *(loop.run_in_executor(shared, pow, n, 2) for _ in "12"),
                )
                assert results == [n * n] * 5, results
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    in_threads(6, jobs)
""",
    # A job's end and its future's cancellation cross each other.
    "cancelled_jobs": """
def jobs(number):
    loop = new_loop()
    async def main():
        for n in range(100):
            futures = [loop.run_in_executor(None, int) for _ in range(4)]
            if n % 3:
                await asyncio.sleep(0)
            for future in futures[::2]:
                future.cancel()
            assert await asyncio.gather(*futures[1::2]) == [0, 0]
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
in_threads(4, jobs)
""",
    # run_coroutine_threadsafe in a ring of loops.
    "coroutines_for_each_other": """
with contextlib.ExitStack() as stack:
    loops = [stack.enter_context(Running()) for _ in range(4)]
    async def passed_on(left):
        if not left:
            return 0
        there = loops[left % 4]
        future = asyncio.run_coroutine_threadsafe(passed_on(left - 1), there)
        return 1 + await asyncio.wrap_future(future)
    def ask(number):
        for _ in range(10):
            future = asyncio.run_coroutine_threadsafe(
                passed_on(12), loops[number]
            )
            assert future.result(100) == 12
    in_threads(4, ask)
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_in_many_threads(script, name):
    script(PROGRAMS[name])


def test_calls_that_are_not_for_other_threads(fast_script):
    """Under a GIL they do no harm; without one neither."""
    fast_script("""
ran = [[] for _ in range(4)]
with Running() as loop:
    def calls(number):
        kept = []
        for n in range(400):
            loop.call_soon(ran[number].append, n)
            loop.call_later(0, ran[number].append, n)
            kept.append(loop.call_later(60, print))
            if n % 3 == 0:
                kept.pop(n % len(kept)).cancel()
            future = loop.create_future()
            future.add_done_callback(lambda f: ran[number].append(f.result()))
            future.set_result(n)
        for timer in kept:
            timer.cancel()
    in_threads(4, calls)
    done = threading.Event()
    def look():
        left.append(len(loop._scheduled))
        done.set()
    left = []
    loop.call_soon_threadsafe(loop.call_later, 0.01, look)
    done.wait(100)
    assert left == [0]
for numbers in ran:
    assert sorted(numbers) == sorted([*range(400)] * 3)
""")
