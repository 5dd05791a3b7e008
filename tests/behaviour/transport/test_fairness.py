"""Nothing starves: I/O, timers and other threads among busy callbacks.

The loop may leave out polls while callbacks keep coming, and reads its clock
less than once an iteration; these bound what that costs the others.
"""

import asyncio
import contextlib
import itertools
import resource
import socket
import time

import pytest
from hosts import Made
from net_helpers import MIB, BufferedRecorder, end, iterations, link

#: How long each callback works, in us, and in how many I/O is looked at.
SLOW = {10: 6, 100: 2, 2000: 2}


def spin_until_seen(loop, before, work):
    """Return how many iterations pass until I/O is looked at."""
    left, right = socket.socketpair()
    iterations, seen = [0], []

    def spin():
        iterations[0] += 1
        if iterations[0] == before:
            right.send(b"x")
            seen.append(iterations[0])
        work()
        loop.call_soon(spin)

    def reader():
        loop.stop()
        seen.append(iterations[0])

    with left, right:
        loop.add_reader(left, reader)
        loop.call_soon(spin)
        loop.run_forever()
        loop.remove_reader(left)
    sent, found = seen
    return found - sent


@pytest.mark.parametrize(
    ("before", "fast", "work_us", "most"),
    [
        *[(before, 0, 0, 33) for before in (1, 2, 10, 1000, 1033, 5000)],
        *[(30, 0, work_us, most) for work_us, most in SLOW.items()],
        # One poll may come late; the callbacks before the next are few.
        *[(1000 + slow, 1000, 100, 2) for slow in (36, 44, 52)],
    ],
)
def test_callbacks_cannot_starve_io(loop, before, fast, work_us, most):
    """Polls are left out for 50 us, the time one callback takes aside."""
    calls = 0

    def work():
        nonlocal calls
        calls += 1
        if calls > fast and work_us:
            end = time.monotonic() + work_us * 1e-6
            while time.monotonic() < end:
                pass

    assert spin_until_seen(loop, before, work) <= most


def test_callbacks_cannot_starve_timers(loop):
    seen, due = [], []

    def spin():
        if not due and loop.time() >= when:
            due.append(time.thread_time())
        if not seen:
            loop.call_soon(spin)

    def timer():
        seen.append(time.thread_time())
        loop.stop()

    when = loop.time() + 0.002
    loop.call_at(when, timer)
    loop.call_soon(spin)
    loop.run_forever()
    assert seen[0] - min(due, default=seen[0]) < 0.03


async def test_ready_descriptors_cannot_starve_the_rest(loop, in_thread):
    """Of one that is ready at each poll, and nothing else is ready to run."""
    ready, sender = socket.socketpair()
    other, peer = socket.socketpair()
    timer, wakeup, event = (loop.create_future() for _ in range(3))
    events = 0

    def on_ready():
        nonlocal events
        events += 1
        if events == 100:
            loop.call_later(0.001, timer.set_result, None)
            in_thread(loop.call_soon_threadsafe, wakeup.set_result, None)
            peer.send(b"x")

    with ready, sender, other, peer:
        loop.add_reader(ready, on_ready)
        loop.add_reader(other, lambda: event.done() or event.set_result(None))
        sender.send(b"x")
        try:
            await asyncio.wait_for(asyncio.gather(timer, wakeup, event), 10)
        finally:
            loop.remove_reader(ready)
            loop.remove_reader(other)
    assert events >= 100


async def most_growth(count, goes_on):
    """Return by how much a count grows from one iteration to the next."""
    counts = []
    while goes_on():
        counts.append(count())
        await asyncio.sleep(0)
    assert len(counts) > 10
    return max(after - before for before, after in itertools.pairwise(counts))


async def test_a_flood_into_a_small_buffer_cannot_starve_callbacks(loop):
    """A protocol that reads headers of 4 bytes makes a read for each."""
    near, far = socket.socketpair()
    near.setblocking(False)
    protocol = BufferedRecorder(4)
    with far:
        far.send(bytes(4000))
        transport, _ = await loop.create_connection(
            lambda: protocol, sock=near
        )
        growth = await most_growth(
            lambda: len(protocol.hints), lambda: len(protocol.hints) < 1000
        )
        transport.abort()
    assert growth <= 32


async def test_a_flooding_peer_does_not_starve_callbacks(loop):
    async with link("tcp-client") as c:
        flood = loop.create_task(c.peer.send(bytes(20 * MIB)))
        growth = await most_growth(
            lambda: len(c.protocol.data), lambda: not flood.done()
        )
        await flood
    assert growth <= 2 * MIB


async def test_a_listener_among_more_ready_fds_than_a_poll_takes(loop, host):
    """epoll then reports each fd once in several polls."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limits[1] < 8192:
        pytest.skip("a process may not open so many files here")
    with contextlib.ExitStack() as undo:
        undo.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        many = max(8192, limits[0]), limits[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, many)
        left, right = map(undo.enter_context, socket.socketpair())
        for _ in range(2500):
            copy = undo.enter_context(left.dup())
            loop.add_reader(copy, int)
            undo.callback(loop.remove_reader, copy)
        undo.callback(left.recv, 1)
        await host.serve()
        for _ in range(64):
            undo.enter_context(host.plain())
        right.send(b"x")
        await iterations(60)
        assert len(host.made) == 64


async def test_an_idle_loop_leaves_connections_to_others(loop, loop_kind):
    """To processes that share the socket; one in long iterations is late."""
    made, counts = Made(), []
    async with await loop.create_server(made, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        peers = [socket.create_connection(address)]
        await asyncio.sleep(0.05)
        peers += [socket.create_connection(address) for _ in range(40)]
        while len(made) < len(peers):
            counts.append(len(made))
            time.sleep(0.05)
            await asyncio.sleep(0)
        await made[-1].wait_for("made")
        await end(*made)
        for peer in peers:
            peer.close()
    if loop_kind == "fastloop":
        assert 2 in counts  # one event accepted one
    assert len(counts) <= 4  # and the next as many as milliseconds passed
