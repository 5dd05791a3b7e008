"""HTTP: requests a second of servers that people run.

Most of the time of a request goes into the framework's Python, which no
loop makes faster; what is left is how the loop reads, writes and wakes.
Behind nginx the server's CPU time is the judge: nginx shares the load
generator's CPU, and the two of them are the limit of the rate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run
from harness.loops import SERVER_LOOPS

ORDER = 110
CONNECTIONS = 64
UVICORN = ("uvicorn", "httptools")

#: The words of a server's command line, and where the generator finds it if
#: that is not where the server itself listens.
Plan = tuple[list[str], dict[str, Any]]


def http_case(
    name: str,
    title: str,
    script: str,
    plan: Callable[[Run], Plan] = lambda run: ([], {}),
    *,
    group: str = "web",
    packages: tuple[str, ...] = UVICORN,
    daemons: tuple[str, ...] = (),
    by_cpu: bool = False,
    alone: bool = False,
) -> Case:
    """Return the case of a server, started as `plan` says.

    Where it is judged `by_cpu`, its rate stands beside.
    """

    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        words, where = plan(run)
        command = network.server_command(run, script, words)
        with network.serving(command) as server:
            found = network.load(
                "http_load", server, run, connections=CONNECTIONS, **where
            )
        return {name: found["rate"], f"{name}_cpu": found["cpu"]}

    rate = Row(name, f"{title}, rate", "1/s", better="more", aside=by_cpu)
    cpu = Row(f"{name}_cpu", f"{title}, server CPU", "us", judge="least")
    return Case(
        name,
        group,
        (cpu, rate) if by_cpu else (rate, cpu),
        measure,
        loops=SERVER_LOOPS,
        seconds=1.5,
        alone=alone,
        programs=("http_load",),
        packages=packages,
        daemons=daemons,
    )


def behind_tcp(run: Run) -> Plan:
    port, behind, _ = run.options["nginx"].split(",")
    return [f"--port={behind}"], {"port": port, "path": "/tcp"}


def behind_unix(run: Run) -> Plan:
    port, _, path = run.options["nginx"].split(",")
    return [f"--unix={path}"], {"port": port, "path": "/unix"}


def app(name: str) -> Callable[[Run], Plan]:
    return lambda run: ([f"--app={name}"], {})


def sqlalchemy_app(run: Run) -> Plan:
    port = run.options["postgres"]
    return ["--app=sqlalchemy", f"--postgres={port}"], {}


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
        "nginx_tcp",
        "uvicorn behind nginx",
        "uvicorn_plain.py",
        behind_tcp,
        daemons=("nginx",),
        by_cpu=True,
        alone=True,
    ),
    http_case(
        "nginx_unix",
        "uvicorn behind nginx, Unix socket",
        "uvicorn_plain.py",
        behind_unix,
        daemons=("nginx",),
        by_cpu=True,
        alone=True,
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
