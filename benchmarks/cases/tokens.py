"""Streams of tokens: what a token costs the server, and how late it comes.

README.md has the method.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run, figure
from harness.loops import SERVER_LOOPS

ORDER = 112
REQUEST = network.REQUEST.replace("/", "/stream", 1)
#: No part of a step: so the checks come at all times of one.
CHECK_S = 0.047
PATIENCE_S = 10.0
MOST_AT_EASE = 256
APPS = {
    "each": "a call for each",
    "step": "a call for all",
    "asgi": "a call for all, plain ASGI",
}
FIGURES = {
    "cpu": ("server CPU", "us"),
    "p50": ("lateness p50", "ms"),
    "p99": ("lateness p99", "ms"),
    "health": ("health check p99", "ms"),
    "rate": ("tokens sent", "1/s"),
}


@contextmanager
def checked(server: dict[str, Any]) -> Iterator[list[float]]:
    """Check the server's health meanwhile; give the milliseconds it took."""
    size = network.requests(server)["answer"]
    address = ("127.0.0.1", server["port"])
    found: list[float] = []
    ended = threading.Event()

    def check() -> None:
        with (
            socket.create_connection(address, PATIENCE_S) as client,
            client.makefile("rb") as answer,
        ):
            while not ended.wait(CHECK_S):
                start = time.perf_counter()
                client.sendall(network.REQUEST.encode())
                if len(answer.read(size)) < size:
                    raise RuntimeError("the server left a health check")
                found.append((time.perf_counter() - start) * 1e3)

    with ThreadPoolExecutor(1) as pool:
        checking = pool.submit(check)
        try:
            yield found
        finally:
            ended.set()
        checking.result()


def tokens(app: str, streams: int) -> Case:
    case = f"tokens_{app}_{streams}"
    title = f"{streams:,} streams of tokens, {APPS[app]}"
    # Tokens that have waited come together, and cost less.
    judged = ("p99", "rate" if streams > MOST_AT_EASE else "cpu")
    rows = tuple(
        Row(
            f"{case}_{name}",
            f"{title}, {what}",
            unit,
            "least" if name == "cpu" else "median",
            aside=name not in judged,
        )
        for name, (what, unit) in FIGURES.items()
    )

    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        load = {"connections": streams, "request": REQUEST, "events": 1}
        words = [f"--app=tokens_{app}", f"--streams={streams}"]
        with (
            network.serving(run, "web.py", *words) as server,
            checked(server) as health_ms,
            network.generator(server, run, load | {"warmup": 0}) as window,
        ):
            window()  # warms up
            health_ms.clear()
            found = window()
        health_ms.sort()
        figures = (
            found["cpu"] / found["answered"] * 1e6,
            found["p50"] / 1e3,
            found["p99"] / 1e3,
            health_ms[len(health_ms) * 99 // 100],
            found["answered"] / found["seconds"],
        )
        each = zip(rows, figures, strict=True)
        return {row.key: figure([value]) for row, value in each}

    return Case(
        case,
        "tokens",
        rows,
        measure,
        loops=SERVER_LOOPS,
        seconds=3.0,
        loaded=True,
        packages=("uvicorn", "httptools", "fastapi"),
    )


CASES = tuple(
    tokens(app, streams)
    for streams in (64, 256, 1_000)
    for app in APPS
    if app != "asgi" or streams == 256
)
