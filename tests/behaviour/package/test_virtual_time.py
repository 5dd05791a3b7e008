"""Virtual time: when the clock jumps, what it waits for, what deadlocks.

asyncio has no such loop.  What the tests compare with is real time: the same
coroutine gives the same outcome there.
"""

import asyncio
import io
import math
import multiprocessing
import os
import queue
import re
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import anyio
import pytest
from patience import TEST_LIMIT

from fastloop import testing
from fastloop.testing import virtual_time as module


@pytest.fixture
def virtual():
    """Return a function that runs a coroutine on a loop with virtual time."""

    def run(main, **options):
        def factory():
            return testing.VirtualTimeLoop(**options)

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main)

    return run


def now():
    return asyncio.get_running_loop().time()


# -- what programs wait by ----------------------------------------------------


async def nested_timeouts():
    """The inner one is later, so the outer one fires."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            async with asyncio.timeout(9):
                await asyncio.Event().wait()


async def calls_later():
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    late = loop.call_later(50, done.set)
    loop.call_at(loop.time() + 20, late.cancel)
    loop.call_later(70, done.set)
    await done.wait()


async def ends_before_an_early_timeout():
    """As in looptime's documentation: the first timer is the time-out's."""
    async with asyncio.timeout(9):
        await asyncio.sleep(1)


@pytest.mark.parametrize(
    ("main", "seconds"),
    [
        (ends_before_an_early_timeout, 1),
        (nested_timeouts, 5),
        (calls_later, 70),
    ],
)
def test_a_wait_takes_its_time_on_the_clock_alone(virtual, main, seconds):
    async def timed():
        began = now(), time.monotonic()
        await main()
        return now() - began[0], time.monotonic() - began[1]

    took_s, real_s = virtual(timed(), start=1000.0)
    assert took_s == pytest.approx(seconds)
    assert real_s < seconds / 2


async def get_time():
    return now()


def test_the_clock_begins_where_it_is_told_to(virtual):
    assert virtual(get_time(), start=1e6) == 1e6
    assert testing.run(get_time(), virtual_time=True, start=-5.0) == -5
    assert testing.run(get_time()) == pytest.approx(time.monotonic(), abs=60)


def test_the_clock_jumps_while_pythons_own_is_frozen(virtual, monkeypatch):
    """As freezegun freezes it, in each module that has its name."""

    async def main():
        server = await asyncio.start_server(print, "127.0.0.1", 0)
        async with server:
            for module in [*sys.modules.values()]:
                if getattr(module, "monotonic", None) is time.monotonic:
                    monkeypatch.setattr(module, "monotonic", lambda: 0.0)
            await asyncio.sleep(1000)
            return now()

    assert virtual(main()) == 1000


# -- what the clock waits for -------------------------------------------------


async def executor_job():
    released = threading.Event()
    threading.Timer(0.05, released.set).start()
    return await asyncio.to_thread(released.wait, 10)


async def call_of_a_thread():
    future = asyncio.get_running_loop().create_future()
    loop = future.get_loop()

    def call():
        loop.call_soon_threadsafe(future.set_result, True)

    threading.Timer(0.01, call).start()
    return await future


async def socket_data():
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        threading.Timer(0.01, far.send, [b"x"]).start()
        loop = asyncio.get_running_loop()
        return await loop.sock_recv(near, 9) == b"x"


@pytest.mark.parametrize(
    "event", [executor_job, call_of_a_thread, socket_data]
)
def test_real_events_come_before_a_jump(virtual, event):
    """A timer an hour away does not make the clock jump over them."""

    async def main():
        return await asyncio.wait_for(event(), 3600), now()

    assert virtual(main(), idle_s=1.0) == (True, 0.0)


async def job_of_anyio():
    """As an endpoint of FastAPI that is no coroutine function."""
    await anyio.to_thread.run_sync(time.sleep, 0.05)


async def job_of_a_pool():
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            await asyncio.wrap_future(pool.submit(time.sleep, 0.05))


async def job_of_a_thread_that_nobody_awaits():
    done = asyncio.Event()
    call = asyncio.get_running_loop().call_soon_threadsafe
    threading.Timer(0.05, call, [done.set]).start()
    await done.wait()


async def jobs_that_wake_one_another():
    """No moment without work, but some between looks at two of them."""
    queues = [queue.SimpleQueue() for _ in range(5)]
    queues[0].put(None)

    def job(number):
        for _ in range(400):
            queues[number].get()
            time.sleep(0.0003)
            queues[(number + 1) % len(queues)].put(None)

    jobs = [asyncio.to_thread(job, number) for number in range(len(queues))]
    await asyncio.gather(*jobs)


async def child_process():
    script = "import time; time.sleep(0.05)"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await child.wait() == 0


async def sleep_after(job):
    await asyncio.wait_for(job, 3600)
    assert now() == 0
    await asyncio.sleep(1000)
    return now()


sees_threads = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux says what a thread does"
)


@sees_threads
@pytest.mark.parametrize(
    "work",
    [
        job_of_anyio,
        job_of_a_pool,
        job_of_a_thread_that_nobody_awaits,
        jobs_that_wake_one_another,
        child_process,
    ],
)
def test_the_clock_stands_still_while_others_work(virtual, work):
    """Afterwards it jumps, though a worker thread may wait for more."""
    assert virtual(sleep_after(work()), patience_s=TEST_LIMIT) == 1000


@sees_threads
def test_a_job_that_waits_for_a_timer_does_not_delay_it(virtual):
    async def main():
        go = threading.Event()
        asyncio.get_running_loop().call_later(1000, go.set)
        await asyncio.to_thread(go.wait)
        return now()

    assert virtual(main(), patience_s=TEST_LIMIT) == 1000


def test_a_process_pool_is_waited_for_while_it_has_jobs(virtual):
    async def main():
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn) as pool:
            for _ in range(2):
                began = now()
                job = asyncio.wrap_future(pool.submit(time.sleep, 0.05))
                await asyncio.wait_for(job, 3600)
                assert now() == began
                await asyncio.sleep(1000)
        return now()

    assert virtual(main(), patience_s=TEST_LIMIT / 5) == 2000


def test_workers_of_a_daemon_thread_are_waited_for(virtual):
    """As of Starlette's TestClient, whose loop is in one."""
    times = []

    async def main():
        await asyncio.wait_for(asyncio.to_thread(time.sleep, 0.05), 3600)
        times.append(now())

    thread = threading.Thread(target=lambda: virtual(main()), daemon=True)
    thread.start()
    thread.join(TEST_LIMIT / 2)
    assert times == [0]


def test_a_thread_that_computed_before_delays_nothing(virtual, in_thread):
    over = threading.Event()

    def spin():
        while not over.is_set():
            pass

    async def main():
        await asyncio.sleep(1000)
        over.set()
        return now()

    in_thread(spin)
    assert virtual(main(), patience_s=TEST_LIMIT) == 1000


@pytest.mark.parametrize("text", [None, ""])
def test_an_idle_thread_delays_nothing_where_none_can_be_seen(
    virtual, monkeypatch, text
):
    """As in a container that hides or empties files of /proc."""

    def opened(name):
        if text is None:
            raise PermissionError(name)
        return io.StringIO(text)

    monkeypatch.setattr(module, "open", opened, raising=False)
    monkeypatch.setattr(module, "_FUTEX", module._find_futex())
    job = sleep_after(asyncio.to_thread(time.sleep, 0.05))
    assert virtual(job, patience_s=TEST_LIMIT) == 1000


async def job_with_a_time_limit():
    asyncio.get_running_loop().call_later(500, (go := threading.Event()).set)
    await asyncio.to_thread(go.wait, TEST_LIMIT)
    await asyncio.sleep(500)


async def thread_that_never_rests():
    near, far = socket.socketpair()
    with near, far:
        threading.Thread(target=near.recv, args=[1]).start()
        for _ in range(100):
            await asyncio.sleep(10)
        far.send(b"x")


def serve(sock):
    with sock:
        while data := sock.recv(1):
            time.sleep(0.05)
            sock.send(data)


async def ask_later(sock):
    loop = asyncio.get_running_loop()
    await asyncio.sleep(1000)
    await loop.sock_sendall(sock, b"x")
    assert await asyncio.wait_for(loop.sock_recv(sock, 1), 10) == b"x"


async def thread_that_serves():
    near, far = socket.socketpair()
    near.setblocking(False)
    with near:
        threading.Thread(target=serve, args=[far]).start()
        await ask_later(near)


async def child_that_serves():
    child = await asyncio.create_subprocess_exec("cat", stdin=-1)
    for _ in range(100):
        await asyncio.sleep(10)
    child.stdin.close()
    assert await child.wait() == 0


@pytest.mark.parametrize(
    "work",
    [
        job_with_a_time_limit,
        thread_that_never_rests,
        thread_that_serves,
        child_that_serves,
    ],
)
def test_what_works_for_too_long_delays_the_clock_once(virtual, work):
    async def main():
        began = time.monotonic()
        await work()
        return now(), time.monotonic() - began

    virtual_s, real_s = virtual(main(), patience_s=0.5)
    assert virtual_s == 1000
    assert 0.5 < real_s < TEST_LIMIT / 10


@sees_threads
def test_a_thread_that_served_before_is_waited_for_while_it_answers(
    virtual, in_thread
):
    near, far = socket.socketpair()
    near.setblocking(False)
    in_thread(serve, far)
    with near:
        virtual(ask_later(near), patience_s=TEST_LIMIT)


def test_a_jump_costs_the_same_among_many_timers(virtual):
    async def main(count):
        sleeps = [asyncio.sleep(n * 7 % 5000) for n in range(count)]
        began = time.process_time()
        await asyncio.gather(*sleeps)
        return time.process_time() - began

    # Four times the jumps: quadratic is sixteen times the cost, or more.
    assert virtual(main(8000)) < 10 * virtual(main(2000))


def test_a_signal_by_a_thread_that_ends_is_no_deadlock(virtual):
    async def main():
        future = asyncio.get_running_loop().create_future()
        call = future.get_loop().call_soon_threadsafe
        signal.signal(signal.SIGUSR1, lambda *_: call(future.set_result, 1))
        kill = threading.Timer(0.01, os.kill, [os.getpid(), signal.SIGUSR1])
        kill.start()
        return await future

    old = signal.getsignal(signal.SIGUSR1)
    try:
        assert virtual(main()) == 1
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_a_pool_that_is_older_than_the_loop_is_waited_for(virtual):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()

        async def main():
            job = pool.submit(threading.Event().wait, 0.4)
            return await asyncio.wrap_future(job)

        assert virtual(main()) is False


def test_a_loop_that_only_serves_another_thread_waits_on(virtual):
    serving = testing.VirtualTimeLoop(patience_s=0)
    thread = threading.Thread(target=serving.run_forever, daemon=True)
    thread.start()

    async def main():
        await asyncio.to_thread(time.sleep, 0.3)
        call = asyncio.run_coroutine_threadsafe(get_time(), serving)
        return await asyncio.wrap_future(call)

    try:
        assert virtual(main()) == 0
    finally:
        serving.call_soon_threadsafe(serving.stop)
        thread.join()
        serving.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"idle_s": -1},
        {"patience_s": math.nan},
        {"start": math.inf},
        {"end": math.nan},
        {"seed": []},
    ],
)
def test_settings_that_are_of_no_use_are_refused(settings):
    text = "start must be a finite time, |supported seed types"
    with pytest.raises((TypeError, ValueError), match=text):
        testing.VirtualTimeLoop(**settings)


def test_the_clock_does_not_pass_its_end(virtual):
    text = (
        "the next timer is after the clock's end, 60 s\n.* waits in sleeps, "
    )

    async def sleeps():
        await asyncio.sleep(60)
        await asyncio.sleep(1)

    with pytest.raises(TimeoutError, match=text):
        virtual(sleeps(), end=60)


# -- what would wait for ever -------------------------------------------------


async def two_tasks_wait():
    event = asyncio.Event()
    await asyncio.gather(event.wait(), event.wait())


async def a_socket_is_silent():
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        await asyncio.get_running_loop().sock_recv(near, 1)


async def a_job_does_not_end():
    released = threading.Event()
    try:
        await asyncio.to_thread(released.wait, TEST_LIMIT)
    finally:
        released.set()


async def a_job_waits_for_the_loop():
    released = threading.Event()
    try:
        await asyncio.to_thread(released.wait)
    finally:
        released.set()


@pytest.mark.parametrize(
    ("main", "patience_s", "text"),
    [
        (
            two_tasks_wait,
            10,
            r"deadlock: 3 tasks wait, no timer is set, nothing is registered\n"
            r"(  Task-\d+ waits in \w+, .*:\d+(\n|$)){3}",
        ),
        (
            a_socket_is_silent,
            0.1,
            "deadlock: 1 task waits, no timer is set, 1 descriptor had no "
            "event in 0.1 s of real time\n.* waits in a_socket_is_silent, ",
        ),
        (
            a_job_does_not_end,
            0.1,
            "deadlock: 1 task waits, no timer is set, nothing is registered, "
            "1 worker did not end in 0.1 s of real time",
        ),
        (
            a_job_waits_for_the_loop,
            TEST_LIMIT,
            r"deadlock: 1 task waits, no timer is set, nothing is regi\w+\n",
        ),
    ],
)
def test_a_deadlock_names_the_tasks(virtual, main, patience_s, text):
    began = time.monotonic()
    with pytest.raises(testing.DeadlockError, match=text) as caught:
        virtual(main(), patience_s=patience_s)
    assert time.monotonic() - began < 5
    assert re.match("deadlock: ", str(caught.value))
