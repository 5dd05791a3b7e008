"""The load client of fastloop: a process that loads an HTTP server.

    PORT PATH CONNECTIONS SECONDS RATE SPINS

Without a rate (0) each connection asks again as soon as it has the answer,
which shows how many requests a second the server can do.  With one, requests
are due by the clock, whatever the server does, and a latency runs from when
the request was due, not from when a connection was free to send it; so a
server that stalls is charged for all that came in meanwhile ("coordinated
omission").  SPINS is 1 if it may spin until a request is due, on a processor
that is not the server's.  It prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import time

from .worker import HOST

__all__ = ["SHARES", "main"]

SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
#: Seconds to wait for the answers to what was asked.
_GRACE = 2.0
#: The clock of epoll is too coarse below this.
_SPIN = 0.002
#: Fewer have no latency that one request in a thousand exceeds.
_FEWEST_P999 = 1000

_CLOSES = re.compile(rb"\r\nconnection:[^\r]*close")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)")


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Read uvicorn's answer; return its status and whether more can follow."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    if status in (204, 304):
        pass  # whatever its headers say, it has no body
    elif length := _LENGTH.search(head):
        await reader.readexactly(int(length[1]))
    else:  # chunked
        size = 1
        while size:
            size = int(await reader.readuntil(b"\r\n"), 16)
            await reader.readexactly(size + 2)
    return status, not _CLOSES.search(head)


class _Load:
    """All connections, and their latencies and errors."""

    def __init__(self, port: int, path: str, rate: float, spins: bool) -> None:
        self._port = port
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
            "Accept: */*\r\n\r\n"
        ).encode()
        self._rate = rate
        self._spin = _SPIN if spins else 0.0
        self._due: asyncio.Queue[float] = asyncio.Queue()
        self._asked: dict[int, float] = {}
        self._latencies: list[float] = []
        self._errors = self._late = 0
        self._ends = False

    async def run(self, connections: int, seconds: float) -> dict[str, float]:
        loop = asyncio.get_running_loop()
        pairs = [await self._connect() for _ in range(connections)]
        began = loop.time()
        tasks = [
            loop.create_task(self._ask_again(index, *pair))
            for index, pair in enumerate(pairs)
        ]
        if self._rate:
            await self._tick(began, seconds)
        else:
            await asyncio.sleep(seconds)
        took, count = loop.time() - began, len(self._latencies)
        if self._rate:
            await self._wait_for_answers()
            count = len(self._latencies)
        self._ends = True
        # The server is to be idle when the next phase begins.
        await asyncio.wait(tasks, timeout=0 if self._rate else _GRACE)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        found = {"requests": count, "seconds": took, "errors": self._errors}
        return found | {"late": self._late} | self._percentiles()

    async def _connect(
        self,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(HOST, self._port)

    async def _tick(self, began: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        for index in range(max(1, int(seconds * self._rate))):
            due = began + index / self._rate
            while (wait := due - loop.time()) > 0:
                await asyncio.sleep(max(0.0, wait - self._spin))
            self._due.put_nowait(due)
            if index % 32 == 0:
                await asyncio.sleep(0)

    async def _wait_for_answers(self) -> None:
        """Count requests without an answer with their time so far."""
        try:
            async with asyncio.timeout(_GRACE):
                await self._due.join()
        except TimeoutError:
            now = asyncio.get_running_loop().time()
            late = [*self._asked.values()]
            while not self._due.empty():
                late.append(self._due.get_nowait())
            self._latencies += [now - due for due in late]
            self._late = len(late)

    async def _ask_again(
        self,
        index: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Ask over one connection, and open another if that ends."""
        try:
            while not self._ends:
                if not await self._ask(index, reader, writer):
                    writer.close()
                    reader, writer = await self._connect()
        except OSError:
            self._errors += 1  # there is no connection any more
        finally:
            writer.close()

    async def _ask(
        self,
        index: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Ask once, if due; return whether the connection can go on."""
        loop = asyncio.get_running_loop()
        due = await self._due.get() if self._rate else loop.time()
        self._asked[index] = due
        try:
            writer.write(self._request)
            status, stays = await _answer(reader)
            self._latencies.append(loop.time() - due)
            self._errors += not 200 <= status < 400
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            self._errors += 1
            stays = False
        del self._asked[index]
        if self._rate:
            self._due.task_done()
        return stays

    def _percentiles(self) -> dict[str, float]:
        ordered = sorted(self._latencies)
        count = len(ordered)
        return {
            name: ordered[math.ceil(share * count) - 1] * 1e3
            for name, share in SHARES.items()
            if count >= (_FEWEST_P999 if name == "p999" else 1)
        }


def main() -> None:
    """Load the server and print what was found; see the module."""
    import fastloop

    port, path, connections, seconds, rate, spins = sys.argv[1:]
    load = _Load(int(port), path, float(rate), spins == "1")
    began = time.perf_counter(), time.process_time()
    try:
        found = fastloop.run(load.run(int(connections), float(seconds)))
    except OSError as exc:
        sys.exit(f"the server takes no connection: {exc}")
    found["busy"] = (time.process_time() - began[1]) / (
        time.perf_counter() - began[0]
    )
    print(json.dumps(found))
