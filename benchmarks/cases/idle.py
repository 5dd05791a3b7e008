"""What an idle connection costs a server, in memory.

Every connection says something once and is answered, as real ones do before
they fall idle.  The figure is what the server's resident memory grew by, over
the connections; other connections came and went before, so that what a server
keeps for good is not counted.
"""

from __future__ import annotations

import resource
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run, figure
from harness.loops import SERVER_LOOPS, TLS_LOOPS

ORDER = 108
CONNECTIONS = 1_500
TLS_CONNECTIONS = 300
MESSAGE = b"x" * 64


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel does not tell the resident memory")


def connected(
    server: dict[str, Any], count: int, context: ssl.SSLContext | None
) -> list[socket.socket]:
    """Return connections that were answered once."""
    opened = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", server["port"]))
        if context is not None:
            sock = context.wrap_socket(sock)
        sock.sendall(MESSAGE)
        got = 0
        while got < len(MESSAGE):
            part = sock.recv(len(MESSAGE))
            if not part:
                raise RuntimeError("the server closed a connection")
            got += len(part)
        opened.append(sock)
    return opened


def close_all(socks: list[socket.socket]) -> None:
    for sock in socks:
        sock.close()


def grown_bytes(command: list[str], count: int, tls: bool) -> float:
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with network.serving(command) as server:
        # The server has seen the first go once it has answered one more.
        close_all(connected(server, 50, context))
        one = connected(server, 1, context)
        before = resident_bytes(server["pid"])
        socks = connected(server, count, context)
        grown = resident_bytes(server["pid"]) - before
        close_all(socks + one)
    return grown / count


def idle_case(
    name: str,
    title: str,
    options: Sequence[str],
    reach: str,
    limit: str,
    tls: bool = False,
) -> Case:
    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        command = network.server_command(run.loop, "echo.py", options)
        count = TLS_CONNECTIONS if tls else CONNECTIONS
        if run.seconds < 0.1:
            count //= 10
        grown = grown_bytes(command, count, tls)
        return {name: figure([grown / 1024 if tls else grown])}

    unit = "KiB" if tls else "B"
    return Case(
        name,
        "memory",
        (Row(name, title, unit, reach=reach),),
        measure,
        loops=(*(TLS_LOOPS if tls else SERVER_LOOPS), limit),
        seconds=1.0,
    )


CASES = (
    idle_case(
        "idle_protocol",
        "an idle connection, Protocol",
        ["--mode=protocol"],
        "880",
        "c-epoll",
    ),
    idle_case(
        "idle_streams",
        "an idle connection, streams",
        ["--mode=streams"],
        "4400",
        "c-epoll",
    ),
    idle_case(
        "idle_tls",
        "an idle connection, TLS",
        ["--mode=protocol", "--tls"],
        "31",
        "c-tls",
        tls=True,
    ),
)
