"""A loop in each of two threads, without a GIL: how much more they do.

The figure is twice the time of one over the time of two, so 2 is all that two
cores can give, and 1 is what a GIL would leave.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from harness.case import Case, Figure, LoopFactory, Run, figure, simple_case
from harness.first_client import Echo

ORDER = 55
CALLS = 5_000
TIMERS = 100
MESSAGES = 25
CONNECTIONS = 16
TASKS = 5_000

Loop = asyncio.AbstractEventLoop
Work = Callable[[Loop], object]


def callbacks(loop: Loop) -> None:
    """Run a chain of callbacks, each with timers set and cancelled."""
    left = CALLS

    # One function for both threads would be counted by both, all the time.
    def nothing() -> None:
        pass

    def link() -> None:
        nonlocal left
        left -= 1
        if left % 50 == 0:
            for timer in [loop.call_later(60, nothing) for _ in range(TIMERS)]:
                timer.cancel()
        loop.call_soon(link if left else loop.stop)

    loop.call_soon(link)
    loop.run_forever()


class Client(Echo):
    left = MESSAGES

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.done = done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(b"x" * 64)

    def data_received(self, data: bytes) -> None:
        self.left -= 1
        if self.left:
            self.transport.write(data)
        else:
            self.transport.close()
            self.done.set_result(None)


def echoes(loop: Loop) -> None:
    async def main() -> None:
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        waiting = [loop.create_future() for _ in range(CONNECTIONS)]
        for done in waiting:
            await loop.create_connection(partial(Client, done), *address)
        await asyncio.gather(*waiting)
        server.close()

    loop.run_until_complete(main())


def tasks(loop: Loop) -> None:
    async def main() -> None:
        for _ in range(TASKS):
            await asyncio.create_task(asyncio.sleep(0))

    loop.run_until_complete(main())


def case(key: str, what: str, work: Work) -> Case:
    """Return a case of its own: a loop that fails one may do the others."""
    title = f"two threads over one, {what}"

    @simple_case(key, title, "times", free_threaded=True)
    def factor(new_loop: LoopFactory, run: Run) -> Figure:
        threads = [ThreadPoolExecutor(1) for _ in range(2)]
        loops = [thread.submit(new_loop).result() for thread in threads]

        def once(loop: Loop) -> int:
            work(loop)
            return time.perf_counter_ns()

        def timed(number: int) -> int:
            """Return the nanoseconds in which so many did their work."""
            began_ns = time.perf_counter_ns()
            pairs = zip(threads[:number], loops, strict=False)
            each = [thread.submit(once, loop) for thread, loop in pairs]
            return max(one.result() for one in each) - began_ns

        timed(2)
        found = figure(2 * timed(1) / timed(2) for _ in run.repeat())
        for thread, loop in zip(threads, loops, strict=True):
            thread.submit(loop.close).result()
            thread.shutdown()
        return found

    return factor


CASES = (
    case("two_threads", "callbacks", callbacks),
    case("two_threads_echo", "TCP echo", echoes),
    case("two_threads_tasks", "tasks", tasks),
)
