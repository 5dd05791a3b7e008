"""Servers under load; README.md says which figures judge them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run, cpu_row
from harness.loops import SERVER_LOOPS, TLS_LOOPS

ORDER = 100
KIB = 1024
FEW, MANY = 8, 64
UVICORN = ("uvicorn", "httptools")
SQLALCHEMY = ("sqlalchemy", "greenlet", "asyncpg")


def served(
    key: str,
    group: str,
    title: str,
    mode: str,
    load: dict[str, Any],
    *,
    tls: bool = False,
    unix: bool = False,
    packages: tuple[str, ...] = (),
) -> Case:
    """Return the case of plain.py in a mode, or of web.py with such an app.

    HTTP, which needs packages, is judged by the rate of answers, all else by
    the server's CPU time for an answer, or for a MiB that goes one way.  Other
    rows explain it.  `load` are the generator's options.
    """
    is_http = bool(packages)
    daemons = ("postgres",) if "asyncpg" in packages else ()
    is_bytes = "oneway" in load or "receive" in load
    cpu = Row(
        f"{key}_cpu" if is_http else key,
        f"{title}, server CPU",
        "us/MiB" if is_bytes else "us",
        judge="least",
        aside=is_http,
    )
    rate = Row(
        key if is_http else f"{key}_rate",
        f"{title}, rate",
        "MiB/s" if is_bytes else "1/s",
        aside=not is_http,
    )
    behind = [cpu_row(key, title, "database", name) for name in daemons]

    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        given, script = {"tls": int(tls), **load}, "plain.py"
        words = [f"--mode={mode}"]
        if is_http:
            script, words = "web.py", [f"--app={mode}"]
        words += ["--tls"] * tls
        with tempfile.TemporaryDirectory() as folder:
            if unix:
                given["path"] = str(Path(folder) / "socket")
                words.append(f"--unix={given['path']}")
            with network.serving(run, script, *words) as server:
                if is_http:
                    given |= network.requests(server)
                # The generator counts bytes that go one way in KiB.
                unit = 1024 if is_bytes else 1
                found = network.load(server, run, unit, **given)
        return {cpu.key: found["cpu"], rate.key: found["rate"]}

    return Case(
        key,
        group,
        (rate, cpu, *behind) if is_http else (cpu, rate),
        measure,
        loops=TLS_LOOPS if tls else SERVER_LOOPS,
        seconds=1.5 if is_http else 1.0,
        loaded=True,
        packages=packages,
        daemons=daemons,
    )


def echo(
    key: str,
    group: str,
    title: str,
    mode: str,
    connections: int,
    size: int,
    tls: bool = False,
) -> Case:
    kib = size // KIB
    load = {"connections": connections, "size": size}
    load["lines"] = int(mode == "readline")
    key = f"{key}_{connections}x{f'{kib}k' if kib else f'{size}b'}"
    title += f", {connections:,} of {f'{kib} KiB' if kib else f'{size} B'}"
    return served(key, group, title, mode, load, tls=tls)


def one_way(
    key: str, group: str, title: str, mode: str, tls: bool = False
) -> Case:
    way = "receive" if mode.startswith("send") else "oneway"
    load = {"connections": FEW, way: 1}
    return served(key, group, title, mode, load, tls=tls)


def connect(key: str, group: str, title: str, tls: bool = False) -> Case:
    load = {"connections": 32, "size": 64, "fresh": 1}
    title += "connect, one echo of 64 B, close"
    return served(key, group, title, "protocol", load, tls=tls)


def http(key: str, group: str, title: str, app: str, *packages: str) -> Case:
    load = {"connections": MANY}
    return served(key, group, title, app, load, packages=packages)


def fastapi(app: str, title: str, *packages: str) -> Case:
    names = f"fastapi_{app}", "web", f"FastAPI, {title}", app
    return http(*names, *UVICORN, "fastapi", *packages)


PROTOCOL = ("echo_protocol", "tcp", "TCP echo, Protocol", "protocol")
BUFFERED = ("echo_buffered", "tcp", "TCP echo, BufferedProtocol", "buffered")
STREAMS = ("streams", "TCP echo, streams", "streams")
READLINE = ("readline", "streams", "TCP echo, streams, readline", "readline")
TLS = ("echo_tls", "TCP echo, TLS", "protocol")
TLS_STREAMS = ("echo_tls_streams", "tls", "TLS echo, streams", "streams")
SOCK = ("sock", "sockets", "sock_recv + sock_sendall", "sock")
UNIX = ("unix", "sockets", "Unix echo, Protocol, 64 of 1 KiB", "protocol")

CASES = (
    echo(*PROTOCOL, MANY, 64),
    echo(*PROTOCOL, MANY, KIB),
    echo(*PROTOCOL, MANY, 16 * KIB),
    echo(*PROTOCOL, FEW, 100 * KIB),
    echo(*PROTOCOL, 1_000, KIB),
    echo(*BUFFERED, MANY, KIB),
    echo("echo_streams", "tcp", *STREAMS[1:], MANY, KIB),
    echo("echo_tls", "tcp", *TLS[1:], MANY, KIB, tls=True),
    echo("echo_tls", "tls", *TLS[1:], MANY, 16 * KIB, tls=True),
    echo(*TLS_STREAMS, MANY, KIB, tls=True),
    echo(*TLS_STREAMS, MANY, 16 * KIB, tls=True),
    one_way(
        "tls_bulk", "tls", "TLS, Protocol receives from 8", "receive", tls=True
    ),
    connect("tls_handshake", "tls", "TLS, ", tls=True),
    echo("echo_streams", *STREAMS, MANY, 16 * KIB),
    echo("echo_streams", *STREAMS, FEW, 100 * KIB),
    echo(*READLINE, MANY, KIB),
    one_way("streams_receive", "streams", "one way, streams receive", "sink"),
    one_way("protocol_send", "streams", "one way, Protocol sends", "send"),
    one_way("sendfile", "streams", "sendfile", "sendfile"),
    echo(*SOCK, MANY, KIB),
    echo(*SOCK, FEW, 100 * KIB),
    connect("connect", "sockets", ""),
    served(
        "udp", "sockets", "UDP echo, 512 B", "udp", {"size": 512, "udp": 1}
    ),
    served(*UNIX, {}, unix=True),
    http(
        "uvicorn", "http", "uvicorn (httptools), plain text", "plain", *UVICORN
    ),
    http(
        "aiohttp", "http", "aiohttp server, plain text", "aiohttp", "aiohttp"
    ),
    fastapi("def", "an endpoint in a thread"),
    fastapi("sqlalchemy", "a row by SQLAlchemy and asyncpg", *SQLALCHEMY),
    fastapi("sqlalchemy_64", "a row by SQLAlchemy, pool_size=64", *SQLALCHEMY),
    http(
        "django",
        "web",
        "Django under uvicorn, an asynchronous view",
        "django",
        *UVICORN,
        "django",
    ),
)
