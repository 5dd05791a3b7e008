"""How late bytes and threads are while a program keeps its loop busy.

What a loop does only between callbacks, or in its next poll, waits for them.
README.md has the method.
"""

from __future__ import annotations

import asyncio
import ctypes
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from harness import network, tls_context
from harness.case import Case, Figure, LoopFactory, Row, Run, figure
from harness.loops import OWN_LOOPS, SERVER_LOOPS, TLS_LOOPS

ORDER = 119
CLIENT = Path(__file__).resolve().parents[1] / "clients" / "late.py"
#: Before it writes the loop is busy: a quiet one sends at once.
BUSY_S = 0.1
ANSWERS, GOES_ON_S = 2, 0.05
TOKENS, TOKEN_S = 10, 0.02
JOBS = 10
#: What a busy coroutine computes before it yields, beside jobs and TLS.
STEP_S, LONG_STEP_S = 200e-6, 2e-3
UPGRADES = 3

#: Waits some times; returns each wait in milliseconds.
Wait = Callable[[], Awaitable[list[float]]]
App = Callable[[], AsyncIterator[Wait]]
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def sampled(run: Run, app: App) -> tuple[Figure, float]:
    """Return the medians of the app's waits, and the greatest wait."""
    samples, greatest = [], 0.0
    async with asynccontextmanager(app)() as wait:
        await wait()
        for _ in run.repeat():
            waits_ms = await wait()
            samples.append(statistics.median(waits_ms))
            greatest = max(greatest, *waits_ms)
    return figure(samples), greatest


def late_case(
    key: str, title: str, loops: tuple[str, ...] = SERVER_LOOPS
) -> Callable[[App], Case]:
    """Make the case of an async generator that yields what waits."""
    most = f"{key}_most"
    rows = (
        Row(key, title, "ms"),
        Row(most, f"{title}, most", "ms", judge="most", aside=True),
    )

    def case(app: App) -> Case:
        def measure(new_loop: LoopFactory, run: Run) -> dict[str, Figure]:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                found, greatest = runner.run(sampled(run, app))
            return {key: found, most: {"figure": greatest}}

        return Case(key, "late", rows, measure, loops=loops, seconds=1.0)

    return case


def compute(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def compute_in_c(seconds: float) -> None:
    """Stay in C for so long, and keep the GIL."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


@asynccontextmanager
async def busy(seconds: float) -> AsyncIterator[None]:
    """Have a task beside that computes for so long and yields, and again."""

    async def steps() -> None:
        while True:
            compute(seconds)
            await asyncio.sleep(0)

    task = asyncio.create_task(steps())
    await asyncio.sleep(0)
    yield
    task.cancel()


# -- bytes --------------------------------------------------------------------


@asynccontextmanager
async def visited(*words: str) -> AsyncIterator[Callable[[], Awaitable[Peer]]]:
    """Serve a client process; give what waits for its next connection."""
    peers: asyncio.Queue[Peer] = asyncio.Queue()
    server = await asyncio.start_server(
        lambda *peer: peers.put_nowait(peer), "127.0.0.1", 0
    )
    port = server.sockets[0].getsockname()[1]
    with network.running([sys.executable, str(CLIENT), str(port), *words]):
        yield peers.get
    server.close()


def stamp() -> bytes:
    """Return the time as a line, which the client answers."""
    return b"%d\n" % time.monotonic_ns()


async def told_ms(reader: asyncio.StreamReader) -> float:
    line = await reader.readline()
    if not line:
        raise RuntimeError("the client has left")
    return int(line) / 1e6


def answer(key: str, what: str, go_on: Callable[[float], None]) -> Case:
    @late_case(f"late_{key}", f"answer on a busy loop, then 50 ms of {what}")
    async def answers() -> AsyncIterator[Wait]:
        async with visited() as next_peer:
            reader, writer = await next_peer()

            async def wait() -> list[float]:
                found = []
                for _ in range(ANSWERS):
                    async with busy(STEP_S):
                        await asyncio.sleep(BUSY_S)
                    writer.write(stamp())
                    go_on(GOES_ON_S)
                    found.append(await told_ms(reader))
                return found

            yield wait
            writer.close()

    return answers


@late_case("late_token", "token on a busy loop, then 20 ms of Python")
async def tokens() -> AsyncIterator[Wait]:
    async with visited() as next_peer:
        reader, writer = await next_peer()

        async def wait() -> list[float]:
            async with busy(STEP_S):
                await asyncio.sleep(BUSY_S)
            for _ in range(TOKENS):
                writer.write(stamp())
                await writer.drain()
                compute(TOKEN_S)
            return [await told_ms(reader) for _ in range(TOKENS)]

        yield wait
        writer.close()


@late_case(
    "late_starttls",
    "first reply after STARTTLS on a busy loop",
    loops=TLS_LOOPS,
)
async def upgrades() -> AsyncIterator[Wait]:
    context = tls_context()
    async with visited("--starttls") as next_peer:

        async def once() -> float:
            reader, writer = await next_peer()
            writer.write(b"220 ready\n")
            await reader.readline()
            writer.write(b"220 go ahead\n")
            await writer.start_tls(context)
            await reader.readline()
            writer.write(b"250 ok\n")
            took_ms = await told_ms(reader)
            writer.close()
            return took_ms

        async def wait() -> list[float]:
            async with busy(LONG_STEP_S):
                return [await once() for _ in range(UPGRADES)]

        yield wait


# -- threads ------------------------------------------------------------------


def job(key: str, title: str, start: Callable[[], Awaitable[object]]) -> Case:
    @late_case(key, title, loops=OWN_LOOPS)
    async def jobs() -> AsyncIterator[Wait]:
        async def wait() -> list[float]:
            found = []
            async with busy(STEP_S):
                for _ in range(JOBS):
                    start_ns = time.monotonic_ns()
                    await start()
                    found.append((time.monotonic_ns() - start_ns) / 1e6)
            return found

        yield wait

    return jobs


def nap() -> None:
    """Need the GIL again after each of three short waits."""
    for _ in range(3):
        time.sleep(20e-6)


CASES = (
    answer("python", "Python", compute),
    answer("sleep", "time.sleep", time.sleep),
    answer("c", "C with the GIL", compute_in_c),
    tokens,
    job(
        "executor_busy",
        "run_in_executor beside a busy loop",
        lambda: asyncio.get_running_loop().run_in_executor(None, nap),
    ),
    job(
        "file_busy",
        "to_thread reads a file beside a busy loop",
        lambda: asyncio.to_thread(CLIENT.read_bytes),
    ),
    upgrades,
)
