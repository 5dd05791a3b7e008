"""A client of a soak: many connections, each a random program of its own.

Each byte that comes back is compared with what was sent at its place.  The
last line it prints is JSON: counts, and what was wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import ssl
import struct
import sys
from pathlib import Path

import fastloop

CERTS = Path(__file__).parent.parent / "certs"
RESET = struct.pack("ii", 1, 0)

#: 1 MiB and a bit whose period no power of two divides: a shifted or a
#: repeated piece differs from what belongs at its place.
PATTERN = random.Random(7).randbytes(65_521) * 18
PERIOD = 65_521
#: Seconds between the rounds of a connection, in the mean.
PAUSE_S = 10


class Wrong(Exception):
    """What no run may show."""


def piece(begin: int, size: int) -> bytes:
    """The bytes that belong at a place of a connection's stream."""
    at = begin % PERIOD
    return PATTERN[at : at + size]


class Client:
    def __init__(self, ports: dict[str, int], folder: str) -> None:
        self.ports = ports
        self.folder = folder
        self.wrong: list[str] = []
        self.counts = dict.fromkeys(("connections", "rounds", "bytes"), 0)
        self.end = asyncio.Event()
        self.context = ssl.create_default_context(cafile=str(CERTS / "ca.pem"))

    async def connect(
        self, kind: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if kind == "unix":
            return await asyncio.open_unix_connection(f"{self.folder}/soak")
        tls = (
            {"ssl": self.context, "server_hostname": "localhost"}
            if kind == "tls"
            else {}
        )
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.ports[kind], **tls
        )
        if kind == "upgrade":
            writer.write(b"upgrade\n")
            if await reader.readline() != b"go\n":
                writer.close()
                raise ConnectionResetError("never accepted")
            await writer.start_tls(self.context, server_hostname="localhost")
        return reader, writer

    async def receive(
        self, reader: asyncio.StreamReader, begin: int, size: int, slow: bool
    ) -> None:
        got = 0
        while got < size:
            most = 1 << random.randrange(8, 17) if slow else size - got
            data = await reader.read(min(most, size - got))
            if data != piece(begin + got, len(data)):
                raise Wrong(f"other bytes at {begin + got}")
            if not data:
                if begin + got == 0:
                    raise ConnectionResetError("never accepted")
                raise Wrong(f"end of stream at {begin + got}")
            got += len(data)
            if slow:
                await asyncio.sleep(random.random() / 50)

    async def converse(
        self,
        rng: random.Random,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        kind: str,
    ) -> None:
        """Rounds of an echo, then an end of some kind."""
        place = 0
        for _ in range(rng.randrange(1, 12)):
            size = min(int(2 ** rng.uniform(0, 19)), 1 << 18)
            slow = rng.random() < 0.1
            writer.write(piece(place, size))
            await self.receive(reader, place, size, slow)
            await writer.drain()
            place += size
            self.counts["rounds"] += 1
            self.counts["bytes"] += size
            if self.end.is_set():
                break
            await asyncio.sleep(rng.expovariate(1 / PAUSE_S))
        if rng.random() < 0.1:
            sock = writer.get_extra_info("socket")
            linger = (socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.write(piece(place, 5000))
            sock.setsockopt(*linger)
            writer.transport.abort()
        elif writer.can_write_eof() and rng.random() < 0.5:
            writer.write(piece(place, 70_000))
            writer.write_eof()
            await self.receive(reader, place, 70_000, False)
            if await reader.read() != b"":
                raise Wrong("bytes after the end")
            self.counts["bytes"] += 70_000

    async def live(self, seed: int, kinds: tuple[str, ...]) -> None:
        rng = random.Random(seed)
        await asyncio.sleep(rng.random() * PAUSE_S)
        while not self.end.is_set():
            kind = rng.choice(kinds)
            writer = None
            made = False
            try:
                reader, writer = await self.connect(kind)
                made = True
                self.counts["connections"] += 1
                await self.converse(rng, reader, writer, kind)
            except Wrong as exc:
                self.wrong.append(f"{kind}: {exc}")
            except OSError as exc:
                # A listener that goes drops what it had not accepted.
                if made and not isinstance(exc, ConnectionResetError):
                    self.wrong.append(f"{kind}: {exc!r}")
                await asyncio.sleep(rng.random())
            finally:
                if writer is not None:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()  # by the reset, if at all


async def main(
    ports: dict[str, int], folder: str, count: int, seed: int
) -> None:
    client = Client(ports, folder)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(
        lambda _, context: client.wrong.append(f"report: {context}")
    )
    loop.add_reader(0, client.end.set)
    kinds = (*ports, "unix")
    tasks = [
        asyncio.create_task(client.live(seed * count + n, kinds))
        for n in range(count)
    ]
    await client.end.wait()
    loop.remove_reader(0)
    await asyncio.gather(*tasks)
    print(json.dumps({**client.counts, "wrong": client.wrong}), flush=True)


if __name__ == "__main__":
    os.nice(1)
    ports, folder, count, seed = sys.argv[1:]
    fastloop.run(main(json.loads(ports), folder, int(count), int(seed)))
