"""HTTP: requests a second of servers that people run.

Most of the time of a request goes into the framework's Python, which no
loop makes faster; what is left is how the loop reads, writes and wakes.
"""

from __future__ import annotations

from collections.abc import Callable

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run
from harness.loops import SERVER_LOOPS

ORDER = 110
CONNECTIONS = 64
UVICORN = ("uvicorn", "httptools")


def http_case(
    name: str,
    title: str,
    script: str,
    words: Callable[[Run], list[str]] = lambda run: [],
    *,
    group: str = "web",
    packages: tuple[str, ...] = UVICORN,
    daemons: tuple[str, ...] = (),
) -> Case:
    """Return the case of a server, whose command line has these words."""

    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        command = network.server_command(run, script, words(run))
        with network.serving(command) as server:
            found = network.load(server, run, http=1, connections=CONNECTIONS)
        return {name: found["rate"], f"{name}_cpu": found["cpu"]}

    rate = Row(name, f"{title}, rate", "1/s", better="more")
    cpu = Row(f"{name}_cpu", f"{title}, server CPU", "us", judge="least")
    return Case(
        name,
        group,
        (rate, cpu),
        measure,
        loops=SERVER_LOOPS,
        seconds=1.5,
        loaded=True,
        packages=packages,
        daemons=daemons,
    )


def app(name: str) -> Callable[[Run], list[str]]:
    return lambda run: [f"--app={name}"]


def sqlalchemy_app(run: Run) -> list[str]:
    port = run.options["postgres"]
    return ["--app=sqlalchemy", f"--postgres={port}"]


CASES = (
    http_case(
        "uvicorn",
        "uvicorn (httptools), plain text",
        "uvicorn_plain.py",
        group="http",
    ),
    http_case(
        "aiohttp",
        "aiohttp server, plain text",
        "aiohttp_plain.py",
        group="http",
        packages=("aiohttp",),
    ),
    http_case(
        "fastapi_def",
        "FastAPI, an endpoint in a thread",
        "uvicorn_apps.py",
        app("def"),
        packages=(*UVICORN, "fastapi"),
    ),
    http_case(
        "fastapi_sqlalchemy",
        "FastAPI, a row by SQLAlchemy and asyncpg",
        "uvicorn_apps.py",
        sqlalchemy_app,
        packages=(*UVICORN, "fastapi", "sqlalchemy", "greenlet", "asyncpg"),
        daemons=("postgres",),
    ),
    http_case(
        "django",
        "Django under uvicorn, an asynchronous view",
        "uvicorn_apps.py",
        app("django"),
        packages=(*UVICORN, "django"),
    ),
)
