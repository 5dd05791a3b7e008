"""Load one loop with hostile peers, and watch a friendly one.

    python tests/load/hostile.py [--seconds 20] [CASE...]

Each case runs against soak_server.py: a friendly client echoes alone first,
then beside the peers.  The server's memory stays within docs/how-it-works.md's
bounds, its descriptors return to the start, it uses no CPU for peers that do
nothing, and the friendly client's p99 is at most 2 ms later than alone, on a
machine that does nothing else.  Peers whose bytes the server has to handle may
delay it longer: an iteration reads up to 256 KiB of each.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import random
import socket
import ssl
import struct
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soak import Child

import fastloop

HERE = Path(__file__).parent
RESET = struct.pack("ii", 1, 0)
#: What is allocated once, whatever the peers do.
BASE_KIB = 8 * 1024
#: Share of a CPU that peers which only wait may cost.
IDLE_SHARE = 0.1
#: Peers that begin at the same time, and seconds until the next ones.
AT_ONCE, LATER_S = 50, 0.02

Ports = dict[str, int]


def client_hello() -> bytes:
    """The first flight of a TLS client."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(
        ssl.MemoryBIO(), outgoing, server_hostname="localhost"
    )
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HELLO = client_hello()


async def connect(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return sock


# -- peers: each goes on until it is cancelled -------------------------------


async def slow(ports: Ports, n: int) -> None:
    """Write a byte a few seconds and read it late."""
    loop = asyncio.get_running_loop()
    kind = ("protocol", "streams", "sock", "buffered")[n % 4]
    with await connect(ports[kind]) as sock:
        while True:
            await loop.sock_sendall(sock, b"x")
            await asyncio.sleep(2 + 4 * random.random())
            await loop.sock_recv(sock, 1)


async def unread(ports: Ports, n: int) -> None:
    """Write without end and never read."""
    kind = ("protocol", "streams", "sock", "buffered")[n % 4]
    with await connect(ports[kind]) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_sendall(sock, bytes(1 << 30))


async def resets(ports: Ports, n: int) -> None:
    """Reset at once, after data or garbage, half closed, in a handshake."""
    loop = asyncio.get_running_loop()
    kind = ("protocol", "streams", "sock", "tls", "upgrade")[n % 5]
    while True:
        with contextlib.suppress(OSError):
            sock = await connect(ports[kind])
            if n % 4 == 1:
                await loop.sock_sendall(sock, random.randbytes(5000))
            elif n % 4 == 2:
                await loop.sock_sendall(sock, b"upgrade\n")
                sock.shutdown(socket.SHUT_WR)
            elif n % 4 == 3:
                await loop.sock_sendall(sock, HELLO[: n % len(HELLO)])
            await asyncio.sleep(0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.close()
        await asyncio.sleep(random.random() / 2)


async def handshakes(ports: Ports, n: int) -> None:
    """Begin a handshake and fall silent."""
    with await connect(ports["tls"]) as sock:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, HELLO[: 1 + n % len(HELLO)])
        await asyncio.Event().wait()


@dataclass
class Case:
    """Peers, and what docs/how-it-works.md says that each may cost."""

    peer: Callable[[Ports, int], Awaitable[None]]
    peers: int
    each_kib: int
    #: Peers that wait cost the server no CPU.
    idle: bool = False
    #: How much later the friendly client's p99 may be.
    later_ms: float = 2.0

    async def run(self, ports: Ports) -> None:
        tasks = []
        for n in range(self.peers):
            tasks.append(asyncio.ensure_future(self.peer(ports, n)))
            if n % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(LATER_S)
        await asyncio.gather(*tasks)


CASES = {
    # 1 KiB of objects, and a task and a socket object for streams and sock_*.
    "slow": Case(slow, 5000, 12),
    # The mark, the event that crossed it, and a reader's limit of 128 KiB.
    "unread": Case(unread, 500, 64 + 256 + 128, idle=True, later_ms=50),
    "resets": Case(resets, 200, 64),
    # OpenSSL's state and a context of the handshake.
    "handshakes": Case(handshakes, 1000, 100, idle=True),
}


async def friendly(port: int, seconds: float) -> float:
    """Echo 64 bytes again and again; return the 99th percentile in ms."""
    loop = asyncio.get_running_loop()
    times = []
    with await connect(port) as sock:
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            await loop.sock_sendall(sock, bytes(64))
            await loop.sock_recv(sock, 64)
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.002)
    times.sort()
    return times[len(times) * 99 // 100] * 1e3


def start_peers(case: Case, ports: Ports) -> int:
    """Start the peers in a process of their own; return its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.nice(5)
        gc.disable()
        fastloop.run(case.run(ports))
    finally:
        os._exit(1)


def run_case(case: Case, seconds: float, folder: str) -> list[str]:
    """Run a case; print what was measured, return what is wrong."""
    server = Child(str(HERE / "soak_server.py"), folder)
    server.first.wait(60)
    ports = server.last
    peers = 0

    def state() -> dict[str, Any]:
        server.say("settle ")
        time.sleep(2.5)
        server.check()
        return server.last

    def echo() -> float:
        return fastloop.run(friendly(ports["protocol"], seconds / 2))

    try:
        alone, before = echo(), state()
        peers = start_peers(case, ports)
        time.sleep(seconds / 2)
        beside, first = echo(), state()
        time.sleep(seconds / 4)
        during = state()
        os.kill(peers, 9)
        os.waitpid(peers, 0)
        peers = 0
        for _ in range(60):
            after = state()
            if after["open"] == 0 and after["fds"] <= before["fds"]:
                break
        server.say("end ")
        failed = server.finish(60) != 0
    finally:
        if peers:
            os.kill(peers, 9)
        server.process.kill()
    grown = during["rss_kib"] - before["rss_kib"]
    most = case.peers * case.each_kib + BASE_KIB
    share = (during["cpu_s"] - first["cpu_s"]) / (seconds / 4 + 2.5)
    left = after["fds"] - before["fds"]
    wrong = {
        f"memory grew by {grown} KiB, of {most}": grown > most,
        f"{left} descriptors more at the end": left > 0,
        f"peers cost {share:.0%} of a CPU": case.idle and share > IDLE_SHARE,
        f"the friendly client waits {beside:.1f} ms, alone {alone:.1f} ms": (
            beside > alone + case.later_ms
        ),
    }
    print(*wrong, sep="; ", flush=True)
    reports = [text for text in after["reports"] if "SSL" not in text]
    reports += ["the server failed"] * failed
    return [text for text, is_so in wrong.items() if is_so] + reports


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("case", nargs="*", choices=[*CASES, []])
    args = parser.parse_args()
    failed = False
    for name in args.case or CASES:
        with tempfile.TemporaryDirectory(prefix="fastloop-") as folder:
            print(f"hostile: {name}: ", end="")
            for text in run_case(CASES[name], args.seconds, folder):
                print(f"hostile: {name}: wrong: {text}", flush=True)
                failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
