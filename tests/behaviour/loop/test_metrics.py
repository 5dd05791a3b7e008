"""loop.metrics(): what a loop says that it has done.

asyncio has no counterpart, so these run on fastloop alone.  What happened is
counted exactly; times are only compared with each other and with a clock.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from builds import SANITIZED
from datagram_helpers import endpoint
from hosts import only_tcp
from loop_helpers import spend
from net_helpers import Peer, Recorder, spin

from fastloop.metrics import Lag, LoopMetrics, SlowCallback

pytestmark = pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)


# -- turning it on ------------------------------------------------------------


def test_metrics_are_off_and_stay_so_in_a_closed_loop(loop):
    with pytest.raises(RuntimeError, match="metrics are off"):
        loop.metrics()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.enable_metrics()


def test_a_closed_loop_reports_its_last_metrics(loop, iterate):
    loop.enable_metrics()
    loop.call_later(3600, print)
    iterate(2)
    loop.enable_metrics()  # again, which changes nothing
    loop.close()
    found = loop.metrics()
    assert found.iterations == 2
    assert found.timers_high_water == 1
    assert found.timers == found.ready == found.connections_open == 0


# -- iterations and times -----------------------------------------------------


def test_iterations_polls_and_callbacks_are_counted(loop, iterate):
    loop.enable_metrics()
    for _ in range(7):
        loop.call_soon(int)
    iterate(3)
    found = loop.metrics()
    # Each iteration is ended by a callback of its own.
    assert (found.iterations, found.callbacks) == (3, 7 + 3)
    assert 1 <= found.polls <= 3
    assert found.ready_high_water == 7 + 1
    assert found.ready == 0


async def test_time_goes_to_callbacks_and_to_sleep(loop):
    loop.enable_metrics()
    await asyncio.sleep(0)
    began = time.monotonic_ns()
    first = loop.metrics()
    spend(0.03)
    await asyncio.sleep(0.05)
    found = loop.metrics().since(first)
    took = time.monotonic_ns() - began
    assert 30e6 <= found.callback_time_ns <= took
    assert 45e6 <= found.sleep_time_ns <= took
    assert found.busy_time_ns + found.sleep_time_ns <= took
    assert 0.0 < found.utilization < 1.0


def test_a_blocked_loop_is_late_by_so_much(loop, iterate):
    """One value for the stretch, and none for those before and after."""
    loop.enable_metrics()
    loop.call_soon(spend, 0.03)
    iterate()
    lag = loop.metrics().lag
    late = [n for n, count in enumerate(lag.counts) if count]
    assert lag.bounds_ns[late[-1]] >= 30e6
    assert lag.max_ns >= 30e6
    assert lag.sum_ns >= lag.max_ns
    assert lag.percentile_ns(100) >= 30e6


COUNTERS = [
    name
    for name in LoopMetrics.__slots__
    if not name.endswith(("lag", "busy_ns", "_water", "ready", "timers"))
]


async def test_metrics_read_by_another_thread_never_decrease(loop, in_thread):
    loop.enable_metrics()
    done = threading.Event()
    wrong = []

    def look():
        before = loop.metrics()
        while not done.is_set():
            now = loop.metrics()
            change = now.since(before)
            counts = [getattr(change, name) for name in COUNTERS]
            if min(*counts, *change.lag.counts) < 0:
                wrong.append(change)
            before = now

    in_thread(look)
    for _ in range(300):
        await asyncio.sleep(0)
        await asyncio.sleep(0.0001)
    done.set()
    assert not wrong
    found = loop.metrics()
    assert found.lag.sum_ns <= found.busy_time_ns


async def test_timers_are_counted(loop):
    loop.enable_metrics()
    timers = [loop.call_later(3600, int) for _ in range(5)]
    await asyncio.sleep(0.001)
    before = loop.metrics()
    assert before.timers_high_water >= before.timers >= 5
    for timer in timers:
        timer.cancel()
    await asyncio.sleep(0.001)
    found = loop.metrics()
    assert found.timers == before.timers - 5
    assert found.timers_high_water == before.timers_high_water


# -- connections --------------------------------------------------------------


async def test_connections_and_their_bytes_are_counted(loop, host):
    loop.enable_metrics()
    await host.serve(lambda: Recorder(data=lambda c, x: c.transport.write(x)))
    reader, writer = await host.open()
    writer.write(b"x" * 1000)
    assert await reader.readexactly(1000) == b"x" * 1000
    found = loop.metrics()
    assert found.connections_accepted == 1
    assert found.connections_made == found.connections_open == 2
    assert found.bytes_in == found.bytes_out == 2000
    writer.close()
    await writer.wait_closed()
    await spin(lambda: not loop.metrics().connections_open)
    found = loop.metrics()
    assert found.connections_lost == found.connections_refused == 0


@pytest.mark.skipif(SANITIZED, reason="is slower than the clock's tick")
@only_tcp
async def test_no_poll_delays_a_new_connection(loop, host):
    polls = []

    class Polls(asyncio.Protocol):
        def __init__(self):
            self.before = loop.metrics().polls

        def connection_made(self, transport):
            polls.append(loop.metrics().polls - self.before)
            transport.abort()

    loop.enable_metrics()
    await host.serve(Polls)
    for _ in range(9):
        host.plain().close()
    await spin(lambda: len(polls) == 9)
    assert 0 in polls  # one at a tick of the coarse clock


async def test_connections_from_before_count_as_open(loop, pair):
    a, b = pair
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
    loop.enable_metrics()
    found = loop.metrics()
    assert (found.connections_open, found.connections_made) == (1, 0)
    transport.abort()
    await asyncio.sleep(0)
    assert loop.metrics().connections_open == 0
    b.close()


@only_tcp
async def test_a_reset_connection_is_lost(loop, host):
    loop.enable_metrics()
    await host.serve()
    sock = host.plain()
    await spin(lambda: host.made)
    Peer(sock).reset()
    assert isinstance(await host.made[0].wait_lost(), ConnectionResetError)
    found = loop.metrics()
    assert (found.connections_lost, found.connections_open) == (1, 0)


async def test_bytes_that_wait_to_be_written_are_counted(loop, pair):
    a, b = pair
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
    loop.enable_metrics()
    transport.write(bytes(4 << 20))
    found = loop.metrics()
    assert found.write_buffer_bytes == transport.get_write_buffer_size() > 0
    assert found.bytes_out + found.write_buffer_bytes == 4 << 20
    b.setblocking(False)
    while transport.get_write_buffer_size() > 0:
        assert await loop.sock_recv(b, 1 << 20)
    assert loop.metrics().write_buffer_bytes == 0
    transport.write(bytes(4 << 20))
    transport.write(bytes(1 << 20))
    assert (
        loop.metrics().write_buffer_bytes == transport.get_write_buffer_size()
    )
    transport.abort()
    await asyncio.sleep(0)
    assert loop.metrics().write_buffer_bytes == 0


async def test_datagrams_count_as_bytes_and_not_as_connections(loop):
    loop.enable_metrics()
    async with endpoint() as near:
        name = near.transport.get_extra_info("sockname")
        async with endpoint(remote_addr=name) as far:
            far.transport.sendto(b"x" * 100)
            await near.wait("datagram")
            found = loop.metrics()
    assert found.bytes_in == found.bytes_out == 100
    assert found.connections_open == found.connections_made == 0


# -- executors ----------------------------------------------------------------


async def test_calls_of_thread_pools_are_counted(loop):
    loop.enable_metrics()
    go = threading.Event()
    running = threading.Event()

    def call():
        running.set()
        go.wait()

    with ThreadPoolExecutor(1) as pool:
        calls = [loop.run_in_executor(pool, call) for _ in range(3)]
        await loop.run_in_executor(None, running.wait)
        found = loop.metrics()
        assert (found.executor_running, found.executor_queue) == (1, 2)
        assert found.executor_threads == 1
        calls[2].cancel()
        go.set()
        await asyncio.gather(*calls, return_exceptions=True)
    found = loop.metrics()
    assert found.executor_queue == found.executor_running == 0
    assert found.executor_calls == 3
    assert found.executor_wait_time_ns > 0
    assert found.executor_run_time_ns > 0


# -- slow callbacks -----------------------------------------------------------


@pytest.fixture
def slow(loop):
    """Return what the hook of slow callbacks got, with a low limit."""
    loop.slow_callback_duration = 0.02
    found: list[SlowCallback] = []
    loop.slow_callback_hook = found.append
    return found


async def inner_step():
    await asyncio.sleep(0)
    spend(0.03)
    await asyncio.sleep(0)


async def test_a_slow_task_is_reported(loop, slow):
    async def outer():
        await inner_step()

    assert not loop.get_debug()
    await asyncio.create_task(outer())
    assert len(slow) == loop.metrics().slow_callbacks == 1
    assert slow[0].name.endswith("outer")
    assert 30e6 <= slow[0].duration_ns < 20e9
    names = [frame.name for frame in slow[0].stack]
    assert names[:2] == ["outer", "inner_step"]
    assert slow[0].stack[1].filename == __file__


def be_slow():
    spend(0.03)


@pytest.mark.parametrize("limit", [0.02, 0.05])
def test_a_slow_function_is_reported(loop, iterate, slow, limit):
    """Below 44 ms by the precise clock, above by the coarse one."""
    loop.slow_callback_duration = limit
    loop.call_soon(int)
    loop.call_soon(spend, limit + 0.02)
    loop.call_soon(int)
    iterate()
    assert [found.name for found in slow] == ["spend"]
    assert slow[0].duration_ns >= limit * 1e9
    assert slow[0].stack[0].lineno == spend.__code__.co_firstlineno


async def test_slow_events_and_timers_are_reported(loop, slow, pair):
    loop.call_later(0.001, be_slow)
    a, b = pair
    done = loop.create_future()

    def on_readable():
        loop.remove_reader(a)
        spend(0.03)
        done.set_result(None)

    class Protocol(asyncio.Protocol):
        def data_received(self, data):
            spend(0.03)

    loop.add_reader(a, on_readable)
    b.send(b"x")
    await done
    transport, _ = await loop.create_connection(Protocol, sock=a)
    # On a busy machine others may be slow, too.
    missing = {"Protocol", "be_slow", "on_readable"}
    while missing := missing - {one.name.rpartition(".")[2] for one in slow}:
        await asyncio.sleep(0.001)
    transport.abort()


def test_a_hook_that_raises_is_reported(loop, iterate, reports):
    def hook(found):
        raise ValueError("of the hook")

    loop.slow_callback_duration = 0
    loop.slow_callback_hook = hook
    loop.call_soon(int)
    iterate()
    assert str(reports[0]["exception"]) == "of the hook"
    assert "slow_callback_hook" in reports[0]["message"]


def test_a_slow_callback_that_ends_the_run_is_reported(loop, slow):
    def callback():
        spend(0.03)
        raise KeyboardInterrupt

    loop.call_soon(callback)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert len(slow) == 1


async def test_a_hook_that_writes_sends(loop, pair):
    """Its writes are corked no longer than a callback's."""
    a, b = pair
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=a)
    b.setblocking(False)

    def hook(found):
        loop.slow_callback_hook = None
        transport.write(b"one")
        transport.write(b"two")

    loop.slow_callback_duration = 0
    loop.slow_callback_hook = hook
    await asyncio.sleep(0)
    assert await loop.sock_recv(b, 6) == b"onetwo"
    transport.abort()


# -- arithmetic ---------------------------------------------------------------


def lag(counts):
    return Lag(tuple(counts) + (0,) * (27 - len(counts)), 100, 3000)


def test_percentiles_are_bounds_of_the_histogram(loop_kind):
    found = lag([2, 0, 2])
    assert found.count == 4
    assert found.mean_ns == 25.0
    assert found.percentile_ns(25) == 512
    assert found.percentile_ns(50) == 1024
    assert 2048 < found.percentile_ns(75) <= 3000
    assert found.percentile_ns(100) == 3000
    assert lag([]).percentile_ns(50) == 0.0
    with pytest.raises(ValueError):
        found.percentile_ns(101)


def test_answers_go_through_json(loop, iterate):
    loop.enable_metrics()
    iterate()
    found = loop.metrics()
    text = json.dumps(found.to_dict())
    assert LoopMetrics.from_dict(json.loads(text)) == found
    with pytest.raises(ValueError, match="invalid literal"):
        LoopMetrics.from_dict({**json.loads(text), "timers": "\x1b[2J"})
