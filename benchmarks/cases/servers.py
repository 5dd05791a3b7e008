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
    *packages: str,
    **load: Any,
) -> Case:
    """Return the case of plain.py in a mode, or of web.py with such an app.

    HTTP, which needs packages, is judged by the rate of answers, all else by
    the server's CPU time for an answer, or for a MiB that goes one way.  Other
    rows explain it.  `load` are the generator's options; a path is a name.
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
    script, word = ("web.py", "app") if is_http else ("plain.py", "mode")
    words = [f"--{word}={mode}", *["--tls"] * ("tls" in load)]

    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        given = load.copy()
        with tempfile.TemporaryDirectory() as folder:
            unix = []
            if "path" in load:
                given["path"] = str(Path(folder, load["path"]))
                unix = [f"--unix={given['path']}"]
            with network.serving(run, script, *words, *unix) as server:
                if is_http:
                    given |= network.requests(server, "tls" in load)
                # The generator counts bytes that go one way in KiB.
                unit = 1024 if is_bytes else 1
                found = network.load(server, run, unit, **given)
        return {cpu.key: found["cpu"], rate.key: found["rate"]}

    return Case(
        key,
        group,
        (rate, cpu, *behind) if is_http else (cpu, rate),
        measure,
        loops=TLS_LOOPS if "tls" in load else SERVER_LOOPS,
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
    **load: int,
) -> Case:
    kib = size // KIB
    key = f"{key}_{connections}x{f'{kib}k' if kib else f'{size}b'}"
    title += f", {connections:,} of {f'{kib} KiB' if kib else f'{size} B'}"
    load |= {"connections": connections, "size": size}
    return served(key, group, title, mode, **load)


def fastapi(app: str, title: str, *packages: str) -> Case:
    names = f"fastapi_{app}", "web", f"FastAPI, {title}", app
    return served(*names, *UVICORN, "fastapi", *packages)


RECEIVE = {"connections": FEW, "receive": 1}
SEND = {"connections": FEW, "oneway": 1}
FRESH = {"connections": 32, "size": 64, "fresh": 1}
PROTOCOL = ("echo_protocol", "tcp", "TCP echo, Protocol", "protocol")
BUFFERED = ("echo_buffered", "tcp", "TCP echo, BufferedProtocol", "buffered")
STREAMS = ("streams", "TCP echo, streams", "streams")
READLINE = ("readline", "streams", "TCP echo, streams, readline", "readline")
TLS = ("echo_tls", "TCP echo, TLS", "protocol")
TLS_STREAMS = ("echo_tls_streams", "tls", "TLS echo, streams", "streams")
SOCK = ("sock", "sockets", "sock_recv + sock_sendall", "sock")
TLS_BULK = ("tls_bulk", "tls", "TLS, Protocol receives from 8", "receive")
CONNECT = "connect, one echo of 64 B, close"
DJANGO = ("django", "web", "Django under uvicorn, an asynchronous view")
UNIX = ("unix", "sockets", "Unix echo, Protocol, 64 of 1 KiB", "protocol")

CASES = (
    echo(*PROTOCOL, MANY, 64),
    echo(*PROTOCOL, MANY, KIB),
    echo(*PROTOCOL, MANY, 16 * KIB),
    echo(*PROTOCOL, FEW, 100 * KIB),
    echo(*PROTOCOL, 1_000, KIB),
    echo(*BUFFERED, MANY, KIB),
    echo("echo_streams", "tcp", *STREAMS[1:], MANY, KIB),
    echo("echo_tls", "tcp", *TLS[1:], MANY, KIB, tls=1),
    echo("echo_tls", "tls", *TLS[1:], MANY, 16 * KIB, tls=1),
    echo(*TLS_STREAMS, MANY, KIB, tls=1),
    echo(*TLS_STREAMS, MANY, 16 * KIB, tls=1),
    served(*TLS_BULK, **SEND, tls=1),
    served(
        "tls_handshake", "tls", f"TLS, {CONNECT}", "protocol", **FRESH, tls=1
    ),
    echo("echo_streams", *STREAMS, MANY, 16 * KIB),
    echo("echo_streams", *STREAMS, FEW, 100 * KIB),
    echo(*READLINE, MANY, KIB, lines=1),
    served(
        "streams_receive",
        "streams",
        "one way, streams receive",
        "sink",
        **SEND,
    ),
    served(
        "protocol_send",
        "streams",
        "one way, Protocol sends",
        "send",
        **RECEIVE,
    ),
    served(
        "protocol_receive",
        "streams",
        "one way, Protocol receives",
        "receive",
        **SEND,
    ),
    served("sendfile", "streams", "sendfile", "sendfile", **RECEIVE),
    served(
        "sendfile_64k",
        "streams",
        "sendfile, 64 KiB files",
        "sendfile64k",
        **RECEIVE,
    ),
    echo(*SOCK, MANY, KIB),
    echo(*SOCK, FEW, 100 * KIB),
    served("connect", "sockets", CONNECT, "protocol", **FRESH),
    served("udp", "sockets", "UDP echo, 512 B", "udp", size=512, udp=1),
    served(*UNIX, path="socket"),
    served(
        "uvicorn", "http", "uvicorn (httptools), plain text", "plain", *UVICORN
    ),
    served(
        "aiohttp", "http", "aiohttp server, plain text", "aiohttp", "aiohttp"
    ),
    served(
        "uvicorn_tls", "http", "uvicorn over HTTPS", "plain", *UVICORN, tls=1
    ),
    served(
        "aiohttp_tls",
        "http",
        "aiohttp server over HTTPS",
        "aiohttp",
        "aiohttp",
        tls=1,
    ),
    fastapi("def", "an endpoint in a thread"),
    fastapi("sqlalchemy", "a row by SQLAlchemy and asyncpg", *SQLALCHEMY),
    fastapi("sqlalchemy_64", "a row by SQLAlchemy, pool_size=64", *SQLALCHEMY),
    served(*DJANGO, "django", *UVICORN, "django"),
)
