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
import fastloop._loop._pool, fastloop.policy
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


#: Asyncio and fastloop are new, and no loop has loaded the core yet.
ANEW = """
for name in [*sys.modules]:
    if name.partition(".")[0] in ("asyncio", "_asyncio", "fastloop"):
        del sys.modules[name]
import asyncio, fastloop
new_loop = lambda: fastloop.new_event_loop()
"""

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
    # Imported by another thread than asyncio, which owns these objects.
    "nor_do_tasks_and_timeouts_count_asyncios_objects": ANEW
    + """
assert not sys._is_immortal(asyncio.sleep)
in_threads(1, lambda number: new_loop().close())

async def nap():
    async with asyncio.timeout(60):
        await asyncio.sleep(0)

async def main():
    await asyncio.gather(*(nap() for _ in range(9)))
    assert asyncio.current_task().get_name() == "Task-1"

loop = new_loop()
loop.run_until_complete(main())
loop.close()
from fastloop._loop._private import shared_by_threads
shared = shared_by_threads()
called = {asyncio.Task, asyncio.sleep, asyncio.current_task, asyncio.Queue}
assert called < set(shared), shared
assert [one for one in shared if not sys._is_immortal(one)] == []
""",
    # A test patched and deleted names while it ran the first loop.
    "what_replaces_asyncios_objects_is_freed": ANEW
    + """
import functools, weakref
from unittest import mock

@functools.wraps(asyncio.gather)
def gather(*args):
    raise NotImplementedError

del asyncio.TaskGroup
with (
    mock.patch("asyncio.sleep", mock.AsyncMock()) as sleep,
    mock.patch("asyncio.gather", gather),
):
    loop = new_loop()
    loop.run_until_complete(asyncio.sleep(60))
    loop.close()
replaced = weakref.ref(sleep), weakref.ref(gather)
del sleep, gather
gc.collect()
assert [one() for one in replaced] == [None, None]
""",
    "the_ready_queue_is_not_shown_to_other_threads": """
with Running() as loop:
    try:
        len(loop._ready)
    except RuntimeError as exc:
        assert "own thread" in str(exc)
    else:
        raise AssertionError
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
}


@needs_no_gil
@pytest.mark.parametrize("name", WITHOUT_A_GIL)
def test_without_a_gil(fast_script, name):
    fast_script(WITHOUT_A_GIL[name])


#: One loop after the other is closed while threads make a call of it: each is
#: done or refused.
CLOSING = """
import contextlib
with contextlib.ExitStack() as stack:
    pairs = [map(stack.enter_context, socket.socketpair()) for _ in range(3)]
    ends = [near for near, far in pairs]
    for _ in range(ROUNDS):
        loop = new_loop()
        gate = threading.Barrier(4)
        def calls(near):
            gate.wait()
            try:
                while True:
                    CALL
            except RuntimeError as exc:
                if str(exc) != "Event loop is closed":
                    failures.append(exc)
            except Exception as exc:
                failures.append(exc)
        threads = [threading.Thread(target=calls, args=(n,)) for n in ends]
        for thread in threads:
            thread.start()
        gate.wait()
        loop.run_until_complete(asyncio.sleep(0.0005))
        loop.close()
        for thread in threads:
            thread.join()
assert not failures, failures
"""
#: With and without, on both loops.
PROGRAMS = {
    # Each runs unless it was cancelled, and those of one thread in order.
    "calls_from_eight_threads": """
ran = [[] for _ in range(8)]
with Running() as loop:
    def calls(number):
        for n in range(1000):
            handle = loop.call_soon_threadsafe(ran[number].append, n)
            if n % 2:
                handle.cancel()
                assert handle.cancelled()
            if n % 250 == 0:
                time.sleep(0.0005)
    in_threads(8, calls)
for numbers in ran:
    assert numbers == sorted(set(numbers))
    assert set(range(0, 1000, 2)) <= set(numbers)
""",
    "closing_while_others_call": CLOSING.replace("ROUNDS", "30").replace(
        "CALL", "loop.call_soon_threadsafe(int)"
    ),
    # Each loop's own, and one that they share.  A job's end and its future's
    # cancellation cross each other.
    "executors_of_many_loops": """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(3) as shared:
    def jobs(number):
        loop = new_loop()
        async def main():
            for n in range(50):
                futures = [
                    loop.run_in_executor(pool, pow, n, 2)
                    for pool in (None, shared, None, shared, None)
                ]
                if n % 3:
                    await asyncio.sleep(0)
                for future in futures[:2]:
                    future.cancel()
                results = await asyncio.gather(*futures[2:])
                assert results == [n * n] * 3, results
        loop.run_until_complete(main())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    in_threads(6, jobs)
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_in_many_threads(script, name):
    script(PROGRAMS[name])


def test_closing_while_others_add_and_remove_readers(fast_script):
    """What close() frees is overwritten, so that a use of it is noticed.

    asyncio forbids it, and raises other errors.
    """
    calls = "loop.add_reader(near, int), loop.remove_reader(near)"
    fast_script(
        CLOSING.replace("ROUNDS", "200").replace("CALL", calls),
        MALLOC_PERTURB_="165",
    )


#: Whether a thread runs the loop meanwhile.
DRIVERS = {
    "before the first run": "in_threads(2, calls)",
    "in a run": """
thread = threading.Thread(target=loop.run_forever)
thread.start()
in_threads(2, calls)
loop.call_soon_threadsafe(loop.stop)
thread.join()
""",
    "between short runs": """
def drive():
    while calling:
        loop.run_until_complete(asyncio.sleep(0))
in_threads(3, lambda number: calls(number) if number < 2 else drive())
""",
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_calls_that_are_not_for_other_threads(fast_script, driver):
    """Under a GIL they do no harm; without one neither.

    asyncio's heap of timers is not made for other threads.
    """
    fast_script(
        """
loop = new_loop()
ran, timed, ended = [[], []], [[], []], [[], []]
calling = [0, 1]

def calls(number):
    kept = []
    for n in range(1000):
        loop.call_soon(ran[number].append, n)
        timer = loop.call_later(0, timed[number].append, n)
        if n % 2:
            timer.cancel()
        kept.append(loop.call_later(60, print))
        if n % 3 == 0:
            kept.pop(n % len(kept)).cancel()
        future = loop.create_future()
        future.add_done_callback(lambda f: ended[number].append(f.result()))
        future.set_result(n)
    for timer in kept:
        timer.cancel()
    calling.remove(number)
"""
        + DRIVERS[driver]
        + """
loop.run_until_complete(asyncio.sleep(0.001))
assert not loop._scheduled
loop.close()
for number in range(2):
    assert ran[number] == ended[number] == list(range(1000))
    assert len(timed[number]) == len(set(timed[number]))
    assert set(timed[number]) >= set(range(0, 1000, 2))
"""
    )
