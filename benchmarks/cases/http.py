"""HTTP: requests a second of two servers that people run.

Most of the time of a request goes into the framework's Python, which no
loop makes faster; what is left is how the loop reads, writes and wakes.
"""

from __future__ import annotations

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run
from harness.loops import SERVER_LOOPS

ORDER = 110


def http_case(name: str, title: str, packages: tuple[str, ...]) -> Case:
    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        command = network.server_command(run.loop, f"{name}_plain.py", [])
        with network.serving(command) as server:
            found = network.load("http_load", server, run, connections=64)
        return {name: found["rate"], f"{name}_cpu": found["cpu"]}

    return Case(
        name,
        "http",
        (
            Row(name, f"{title}, plain text, rate", "1/s", better="more"),
            Row(
                f"{name}_cpu",
                f"{title}, plain text, server CPU",
                "us",
                judge="least",
            ),
        ),
        measure,
        loops=SERVER_LOOPS,
        seconds=1.5,
        programs=("http_load",),
        packages=packages,
    )


CASES = (
    http_case("uvicorn", "uvicorn (httptools)", ("uvicorn", "httptools")),
    http_case("aiohttp", "aiohttp server", ("aiohttp",)),
)
