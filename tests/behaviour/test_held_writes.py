"""When the small writes of task steps leave: with the turn, and no later.

A connection that tasks answer on has its small writes held to the end of the
turn, so that one wake-up of the peer serves them all. asyncio sends at once;
what the peer gets, and in which turn it can, is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

#: Steps that write before the first write of one is held.
LEARNT = 2
ROUNDS = 6
#: Linux's CLOCK_MONOTONIC_COARSE, for which Python has no name.
COARSE = 6


@contextlib.asynccontextmanager
async def connection() -> AsyncIterator[
    tuple[asyncio.Transport, Callable[[], bytes]]
]:
    """A transport, and a look at what its peer can read now."""
    near, far = socket.socketpair()
    far.setblocking(False)

    def look() -> bytes:
        with contextlib.suppress(BlockingIOError):
            return far.recv(1 << 20)
        return b""

    loop = asyncio.get_running_loop()
    with far:
        transport, _ = await loop.create_connection(
            asyncio.Protocol, sock=near
        )
        try:
            yield transport, look
        finally:
            transport.abort()
            await asyncio.sleep(0)


async def side_by_side(*works: Callable[[], object]) -> None:
    """One task for each work, which does it once in each of ROUNDS turns."""

    async def steps(work: Callable[[], object]) -> None:
        for _ in range(ROUNDS):
            work()
            await asyncio.sleep(0)

    await asyncio.gather(*map(steps, works))


def written(
    run, data: bytes, *between: Callable[[], object]
) -> tuple[list[bytes], bytes]:
    """What the peer saw in each turn that wrote data, and after the last."""
    seen: list[bytes] = []

    async def main() -> bytes:
        async with connection() as (transport, look):
            await side_by_side(
                lambda: transport.write(data),
                *between,
                lambda: seen.append(look()),
            )
            return look()

    return seen, run(main())


def undisturbed(play: Callable[[], object]) -> object:
    """What it gives when no tick of the clock falls into it.

    A tick sends what is held; one comes every few milliseconds.
    """
    for _ in range(1000):
        tick = time.clock_gettime(COARSE)
        result = play()
        if time.clock_gettime(COARSE) == tick:
            return result
    pytest.fail("a tick each time")


def test_small_writes_of_steps_leave_with_the_turn(run, loop_kind):
    seen, left = undisturbed(lambda: written(run, b"x"))
    if loop_kind == "asyncio":
        assert (seen, left) == ([b"x"] * ROUNDS, b"")
    else:
        late = [b"x"] * LEARNT + [b""] + [b"x"] * (ROUNDS - LEARNT - 1)
        assert (seen, left) == (late, b"x")


def test_large_writes_of_steps_leave_with_the_step(run):
    data = bytes(5000)
    assert written(run, data) == ([data] * ROUNDS, b"")


def test_slow_callbacks_hold_nothing_up(run):
    """Longer than any tick of the clock: what was held leaves before."""
    seen, left = written(run, b"x", lambda: time.sleep(0.012))
    assert (seen, left) == ([b"x"] * ROUNDS, b"")


def test_what_is_written_late_in_a_turn_waits_for_others_too(run, loop_kind):
    """A tick before the first write of a turn is none of its concern."""
    seen: list[bytes] = []

    async def main() -> None:
        async with connection() as (transport, look):
            await side_by_side(
                lambda: time.sleep(0.012),
                lambda: transport.write(b"x"),
                lambda: seen.append(look()),
            )
            seen.append(look())

    run(main())
    assert b"".join(seen) == b"x" * ROUNDS
    if loop_kind == "asyncio":
        assert seen == [*([b"x"] * ROUNDS), b""]
    else:
        assert b"" in seen[:-1]


def test_many_callbacks_hold_nothing_up(run):
    seen, left = written(run, b"x", *[lambda: None] * 300)
    assert (seen, left) == ([b"x"] * ROUNDS, b"")


def test_several_writes_of_a_step_arrive_in_order(run):
    got = bytearray()

    async def main():
        async with connection() as (transport, look):

            def write() -> None:
                transport.write(b"head ")
                transport.writelines([b"body ", bytearray(b"more ")])
                transport.write(b"z" * 5000)
                transport.write(b"\n")

            await side_by_side(write, lambda: got.extend(look()))
            got.extend(look())

    run(main())
    assert bytes(got) == (b"head body more " + b"z" * 5000 + b"\n") * ROUNDS


@pytest.mark.parametrize("size", [1, 4000, 5000, 70_000])
@pytest.mark.parametrize("how", ["write", "writelines", "memoryview"])
def test_a_later_callback_does_not_overtake_held_writes(run, size, how):
    """The second write of a callback is held, another callback writes."""
    got = bytearray()

    def second(transport: asyncio.Transport) -> None:
        if how == "writelines":
            transport.writelines([b"z" * size])
        elif how == "write":
            transport.write(b"z" * size)
        else:
            transport.write(memoryview(b"z" * size))

    async def main():
        async with connection() as (transport, look):

            def first() -> None:
                transport.write(b"one ")
                transport.write(b"two ")

            loop = asyncio.get_running_loop()
            loop.call_soon(first)
            loop.call_soon(second, transport)
            while len(got) < 8 + size:
                await asyncio.sleep(0)
                got.extend(look())

    run(main())
    assert bytes(got) == b"one two " + b"z" * size


def test_held_writes_leave_before_the_transport_closes(run):
    async def main():
        near, far = socket.socketpair()
        loop = asyncio.get_running_loop()
        with far:
            transport, _ = await loop.create_connection(
                asyncio.Protocol, sock=near
            )
            await side_by_side(lambda: transport.write(b"x"))
            transport.write(b"the end")
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            far.settimeout(5)
            got = b""
            while part := far.recv(1000):
                got += part
            assert got == b"x" * ROUNDS + b"the end"

    run(main())


@contextlib.contextmanager
def sleeping(loop):
    """A transport whose loop sleeps in another thread, and its peer."""
    near, far = socket.socketpair()
    opened: list[asyncio.Transport] = []
    ready = threading.Event()
    over = asyncio.Event()

    async def serve():
        transport, _ = await loop.create_connection(
            asyncio.Protocol, sock=near
        )
        opened.append(transport)
        ready.set()
        await over.wait()
        transport.abort()
        await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    far.settimeout(20)
    with far:
        try:
            yield opened[0], far
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join()


def test_writes_from_outside_wait_for_no_callback(loop):
    """asyncio's documents forbid them, but its transports send them."""
    with sleeping(loop) as (transport, far):
        for _ in range(50):
            transport.write(b"head ")
            transport.writelines([b"body ", b"more "])
            transport.write(b"end")
            got = b""
            while len(got) < 18:
                got += far.recv(100)
            assert got == b"head body more end"


def test_a_thread_that_a_callback_waits_for_writes_at_once(run):
    """Also what the callback itself wrote before, and in its order."""
    seen: list[bytes] = []

    async def main() -> None:
        async with connection() as (transport, look):

            def write(*chunks: bytes) -> None:
                for chunk in chunks:
                    transport.write(chunk)

            def work() -> None:
                write(b"1", b"2")
                thread = threading.Thread(target=write, args=(b"3", b"4"))
                thread.start()
                thread.join()
                seen.append(look())

            await side_by_side(work)

    run(main())
    assert seen == [b"1234"] * ROUNDS


def test_what_the_kernel_refuses_from_outside_is_sent(loop):
    with sleeping(loop) as (transport, far):
        left = 4_000_000
        transport.write(bytes(left))
        while left:
            left -= len(far.recv(left))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_held_writes_leave_when_the_run_is_left(loop, error):
    """An exception that ends the turn early does not keep them."""
    looks = []

    async def answer():
        async with connection() as (transport, look):
            await side_by_side(lambda: transport.write(b"x"))
            look()
            transport.write(b"last")
            looks.append(look)
            await ended

    async def interrupt():
        while not looks:
            await asyncio.sleep(0)
        raise error

    ended = loop.create_future()
    answering = loop.create_task(answer())
    with pytest.raises(error):
        loop.run_until_complete(interrupt())
    assert looks[0]() == b"last"
    ended.set_result(None)
    loop.run_until_complete(answering)
