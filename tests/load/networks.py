"""Transfers over networks that are not loopback, each byte compared.

    python tests/load/networks.py [--loop asyncio] [SCENARIO ...]

Two network namespaces of its own, with a veth pair between them: packets of
576 bytes, 20 Mbit/s with a short queue, IPv6 alone, an interface that is down
for a second in the middle, and a proxy that delays, cuts and joins what it
passes on.  In each, streams send and receive at once, by TCP and by TLS, then
half-close; a last connection is reset in the middle, and must end with an
error.  It needs root, ip and tc.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
CERTS = HERE.parents[1] / "certs"
SIZE = 4 << 20
DATA = random.Random(3).randbytes(1 << 20) * 4
V4, V6 = "10.93.0.1", "fd93::1"
RESET = struct.pack("ii", 1, 0)
#: For a scenario; each takes a few seconds.
LIMIT_S = 120


# --- the two ends ------------------------------------------------------------


async def echo(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send back what comes, and the end."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def serve(host: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    servers = [
        await asyncio.start_server(echo, host, 0, ssl=tls)
        for tls in (None, context)
    ]
    ports = [s.sockets[0].getsockname()[1] for s in servers]
    print(json.dumps(ports), flush=True)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()
    for _ in range(100):
        if len(asyncio.all_tasks()) == 1:
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"networks: left: {asyncio.all_tasks()}")


async def transfer(host: str, port: int, tls: bool) -> None:
    """Send all and receive all at once; compare."""
    context = ssl.create_default_context(cafile=str(CERTS / "ca.pem"))
    reader, writer = await asyncio.open_connection(
        host,
        port,
        ssl=context if tls else None,
        server_hostname="localhost" if tls else None,
    )

    async def send() -> None:
        at, sizes = 0, random.Random(5)
        while at < SIZE:
            size = sizes.choice((1, 100, 1460, 20_000, 300_000))
            writer.write(DATA[at : at + size])
            at += size
            await writer.drain()
        if not tls:
            writer.write_eof()

    sender = asyncio.create_task(send())
    first = await reader.readexactly(SIZE // 8)
    print("begun", flush=True)
    assert first + await reader.readexactly(SIZE - len(first)) == DATA
    await sender
    if not tls:
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def reset(host: str, port: int) -> None:
    """Be reset in the middle of what the server sends."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(DATA)
    await reader.readexactly(100_000)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def connect(host: str, ports: list[int]) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(transfer(host, ports[0], False))
            group.create_task(transfer(host, ports[1], True))
    await reset(host, ports[0])


# --- the proxy ---------------------------------------------------------------


def pump(source: socket.socket, sink: socket.socket, seed: int) -> None:
    """Pass on, in other pieces and at other times."""
    chance = random.Random(seed)
    pending = b""
    with contextlib.suppress(OSError):
        while data := source.recv(chance.choice((1, 1000, 65536))):
            pending += data
            joins = len(pending) < 65536 and chance.random() < 0.3
            if joins and select.select([source], [], [], 0.002)[0]:
                continue
            cut = chance.randrange(1, len(pending) + 1)
            sink.sendall(pending[:cut])
            sink.sendall(pending[cut:])
            pending = b""
        sink.sendall(pending)
        sink.shutdown(socket.SHUT_WR)


def proxy(host: str, port: int) -> int:
    """Begin to pass connections on to a server; return the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        for seed in range(100):
            near, _ = listener.accept()
            far = socket.create_connection((host, port))
            for pair in ((near, far), (far, near)):
                threading.Thread(
                    target=pump, args=(*pair, seed), daemon=True
                ).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


# --- the networks ------------------------------------------------------------


def ip(*words: str, tool: str = "ip") -> None:
    subprocess.run([tool, *words], check=True, timeout=30)


class Network:
    """Two namespaces, and what is between them."""

    def __init__(self) -> None:
        self.names = [f"fastloop-{os.getpid()}-{end}" for end in "ab"]

    def __enter__(self) -> Network:
        for name in self.names:
            ip("netns", "add", name)
        a, b = self.names
        ip(*f"-n {a} link add up0 type veth peer name up0 netns {b}".split())
        for number, name in enumerate(self.names, 1):
            v4, v6 = f"10.93.0.{number}/24", f"fd93::{number}/64"
            ip(*f"-n {name} address add {v4} dev up0".split())
            ip(*f"-n {name} address add {v6} dev up0 nodad".split())
            for link in ("lo", "up0"):
                ip("-n", name, "link", "set", link, "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            ip("netns", "delete", name)

    def each(self, words: str, tool: str = "ip") -> None:
        for name in self.names:
            ip("-n", name, *words.split(), tool=tool)

    def run(self, end: int, *words: str) -> subprocess.Popen[str]:
        inside = ["ip", "netns", "exec", self.names[end]]
        return subprocess.Popen(
            [*inside, sys.executable, str(HERE), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[2])},
        )


def small_packets(network: Network) -> None:
    network.each("link set up0 mtu 576")


def slow(network: Network) -> None:
    tbf = "qdisc add dev up0 root tbf rate 20mbit burst 16kb latency 20ms"
    network.each(tbf, tool="tc")


def v6_alone(network: Network) -> None:
    network.each("-4 address flush dev up0")


def unchanged(network: Network) -> None:
    """A link without a word of its own."""


def down(network: Network) -> None:
    """Take the link away for a second, once, in the middle."""
    network.each("link set up0 down")
    time.sleep(1)
    network.each("link set up0 up")


Change = Callable[[Network], None]
#: What is changed before and in the middle; the server's address; whether
#: the client goes by the proxy.
SCENARIOS: dict[str, tuple[Change, Change, str, bool]] = {
    "plain": (unchanged, unchanged, V4, False),
    "small-packets": (small_packets, unchanged, V4, False),
    "slow": (slow, unchanged, V4, False),
    "v6": (v6_alone, unchanged, V6, False),
    "down": (slow, down, V4, False),
    "proxy": (unchanged, unchanged, V4, True),
}


def transfer_over(
    network: Network, name: str, loop: str
) -> Iterator[tuple[str, int]]:
    """Run a scenario; give each process's exit status."""
    before, meanwhile, host, by_proxy = SCENARIOS[name]
    before(network)
    server = network.run(0, "--loop", loop, "--serve", host)
    assert server.stdout is not None
    ports = server.stdout.readline()
    client = network.run(
        *(1, "--loop", loop, "--connect", host, "--ports", ports),
        *(["--proxy"] if by_proxy else []),
    )
    try:
        assert client.stdout is not None
        if client.stdout.readline():
            meanwhile(network)
        yield "client", client.wait(LIMIT_S)
        server.communicate(timeout=LIMIT_S)
        yield "server", server.returncode
    finally:
        client.kill()
        server.kill()


def child(args: argparse.Namespace) -> int:
    """Be one of the two ends."""
    reports: list[dict[str, Any]] = []
    ports = json.loads(args.ports)
    host = args.connect
    if args.proxy:
        ports, host = [proxy(host, port) for port in ports], "127.0.0.1"
    factory = None
    if args.loop == "fastloop":
        import fastloop

        factory = fastloop.new_event_loop

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.get_loop().set_exception_handler(
            lambda _, context: reports.append(context)
        )
        runner.run(serve(args.serve) if args.serve else connect(host, ports))
    for context in reports:
        print("networks: reported:", context, file=sys.stderr)
    return 1 if reports else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument(
        "--loop", choices=("asyncio", "fastloop"), default="fastloop"
    )
    parser.add_argument("--serve", default="")
    parser.add_argument("--connect", default="")
    parser.add_argument("--ports", default="[]")
    parser.add_argument("--proxy", action="store_true")
    args = parser.parse_args()
    if args.serve or args.connect:
        return child(args)
    failed = 0
    for name in args.scenarios:
        began = time.monotonic()
        with Network() as network:
            ends = dict(transfer_over(network, name, args.loop))
        bad = [end for end, status in ends.items() if status]
        failed += len(bad)
        print(
            f"networks: {name}: {time.monotonic() - began:.1f} s,"
            f" {'FAILED: ' + ', '.join(bad) if bad else 'passed'}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
