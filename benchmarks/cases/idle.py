"""What an idle connection costs a server, in memory."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import Any

from harness import network
from harness.case import Case, Figure, LoopFactory, Run, figure, simple_case
from harness.loops import SERVER_LOOPS, TLS_LOOPS

ORDER = 108
CONNECTIONS = 1_500
TLS_CONNECTIONS = 300
MESSAGE = b"x" * 64


def resident_bytes(pid: int) -> int:
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(told.partition("\nRss:")[2].split()[0]) * 1024


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
        with sock.makefile("rb") as answer:
            if answer.read(len(MESSAGE)) != MESSAGE:
                raise RuntimeError("the server closed a connection")
        opened.append(sock)
    return opened


def idle_case(name: str, title: str, mode: str, tls: bool = False) -> Case:
    count, unit = (TLS_CONNECTIONS, "KiB") if tls else (CONNECTIONS, "B")
    loops = TLS_LOOPS if tls else SERVER_LOOPS

    @simple_case(name, title, unit, "memory", loops=loops, seconds=1.0)
    def idle(_: LoopFactory, run: Run) -> Figure:
        # Clients leave it below; a loop that was closed would leave memory.
        words = [f"--mode={mode}", "--unvisited", *["--tls"] * tls]
        many = count if run.seconds >= 0.1 else count // 10
        context = ssl._create_unverified_context() if tls else None
        with network.serving(run, "plain.py", *words) as server:
            # Before the others: what a server keeps for good is not counted.
            for sock in connected(server, 50, context):
                sock.close()
            # The server has seen them go once it has answered one more.
            socks = connected(server, 1, context)
            before = resident_bytes(server["pid"])
            socks += connected(server, many, context)
            grown = (resident_bytes(server["pid"]) - before) / many
            for sock in socks:
                sock.close()
        return figure([grown / 1024 if tls else grown])

    return idle


CASES = (
    idle_case("idle_protocol", "an idle connection, Protocol", "protocol"),
    idle_case("idle_streams", "an idle connection, streams", "streams"),
    idle_case("idle_tls", "an idle connection, TLS", "protocol", tls=True),
)
