"""The load client of fastloop: a process that loads an HTTP server.

    PORT PATH CONNECTIONS SECONDS RATE

A rate of 0: each connection sends a request when it has the last answer.
Another rate: it has its share of the times at which requests are due.
Latencies run from these (``docs/command-line.md``, "bench").  It prints JSON.
"""

import asyncio
import json
import math
import re
import sys
import time
from itertools import count

from .worker import HOST

SHARES = {"p50": 0.5, "p99": 0.99}
#: Seconds to wait for the last answers.
_GRACE = 2.0

_CLOSES = re.compile(rb"\r\nconnection:[^\r]*close")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)")


async def _answer(reader: asyncio.StreamReader) -> bool:
    """Read uvicorn's answer; return whether more can follow.

    Raises ValueError for an answer that says of an error.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    if not 200 <= status < 400:
        raise ValueError(f"the answer has status {status}")
    if status in (204, 304):
        pass  # whatever its headers say, it has no body
    elif length := _LENGTH.search(head):
        await reader.readexactly(int(length[1]))
    else:  # chunked
        size = 1
        while size:
            size = int(await reader.readuntil(b"\r\n"), 16)
            await reader.readexactly(size + 2)
    return not _CLOSES.search(head)


async def load(
    port: int, path: str, connections: int, seconds: float, rate: float
) -> dict[str, float]:
    """Load a server; return requests, seconds, and percentiles in ms.

    Raises OSError, EOFError or ValueError if a request fails, TimeoutError if
    one has no answer two seconds after the end.
    """
    now = asyncio.get_running_loop().time
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nAccept: */*\r\n\r\n"
    ).encode()
    latencies: list[float] = []
    pairs = [
        await asyncio.open_connection(HOST, port) for _ in range(connections)
    ]
    began = now()

    async def ask_again(
        index: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            for turn in count():
                at = due = now() - began
                if rate:
                    due = (index + turn * connections) / rate
                if due >= seconds:
                    break
                if due > at:
                    await asyncio.sleep(due - at)
                    due = now() - began
                writer.write(request)
                stays = await _answer(reader)
                latencies.append(now() - began - due)
                if not stays:
                    writer.close()
                    reader, writer = await asyncio.open_connection(HOST, port)
        finally:
            writer.close()

    async with asyncio.timeout(seconds + _GRACE):
        await asyncio.gather(
            *(ask_again(index, *pair) for index, pair in enumerate(pairs))
        )
    found = {"requests": len(latencies), "seconds": now() - began}
    return found | percentiles(latencies)


def percentiles(latencies: list[float]) -> dict[str, float]:
    """Return the latencies that are shown, in ms; {} without any."""
    ordered = sorted(latencies)
    return {
        name: ordered[math.ceil(share * len(ordered)) - 1] * 1e3
        for name, share in SHARES.items()
        if ordered
    }


def main() -> None:
    """Load the server and print what was found; see the module."""
    import fastloop

    port, path, connections, seconds, rate = sys.argv[1:]
    asked = int(port), path, int(connections), float(seconds), float(rate)
    began = time.perf_counter(), time.process_time()
    try:
        found = fastloop.run(load(*asked))
    except TimeoutError:
        sys.exit("a request was not answered in time")
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as exc:
        sys.exit(f"a request failed: {exc}")
    found["busy"] = (time.process_time() - began[1]) / (
        time.perf_counter() - began[0]
    )
    print(json.dumps(found))
