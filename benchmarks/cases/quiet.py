"""What a request costs a server that has little to do, in CPU time."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from harness import network
from harness.case import Case, Figure, LoopFactory, Run, figure, simple_case
from harness.loops import SERVER_LOOPS

ORDER = 103
REQUESTS = 100
PAUSE_S = 0.01
MESSAGE = b"x" * 64
BODY = b"Hello, world!"


def cpu_ns(pid: int) -> int:
    """Return the CPU time of a process, all its threads."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(stat.read_text().split()[0]) for stat in stats)


def quiet_case(
    key: str, server: str, words: tuple[str, str], asked: bytes, end: bytes
) -> Case:
    """Return the case of a server, whose answer has an end."""
    packages = ("uvicorn", "httptools") if words[0] == "web.py" else ()
    title = f"{server}, a request each 10 ms, server CPU"
    rest = {"loops": SERVER_LOOPS, "packages": packages, "seconds": 1.0}

    @simple_case(f"quiet_{key}", title, "us", "quiet", **rest)
    def quiet(_: LoopFactory, run: Run) -> Figure:
        def request() -> None:
            sock.sendall(asked)
            answer = b""
            while not answer.endswith(end):
                part = sock.recv(1024)
                if not part:
                    raise RuntimeError("the server closed the connection")
                answer += part
            time.sleep(PAUSE_S)

        def window_us() -> float:
            request()  # the server may have been stopped before it
            before_ns = cpu_ns(pid)
            for _ in range(REQUESTS):
                request()
            return (cpu_ns(pid) - before_ns) / REQUESTS / 1_000

        with network.serving(run, *words, pinned=False) as server:
            pid, address = server["pid"], ("127.0.0.1", server["port"])
            with socket.create_connection(address) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return figure(window_us() for _ in run.repeat())

    return quiet


def echo(mode: str, title: str) -> Case:
    words = "plain.py", f"--mode={mode}"
    return quiet_case(mode, f"TCP echo, {title}", words, MESSAGE, MESSAGE)


HTTP = network.REQUEST.encode(), BODY

CASES = (
    echo("protocol", "Protocol"),
    echo("streams", "streams"),
    quiet_case("uvicorn", "uvicorn", ("web.py", "--app=plain"), *HTTP),
)
