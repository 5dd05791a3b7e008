"""TCP echo: what a message costs the server, with the rate beside it.

With one connection every loop and plain C are equal, for that measures how
a CPU is woken.  With 64 the generator is as busy as the server, so rates
say little: the least CPU time the server spent on a message is the judge.

The "seasoned" rows, streams and TLS are of a server that has already seen
connections come and go.  It matters: a loop that allocates 128 KiB or more
for each read has glibc map and unmap memory for each message, until the
first end-of-file frees such a block whole and glibc learns to keep it.
"""

from __future__ import annotations

from harness import network
from harness.case import Case, Figure, LoopFactory, Row, Run
from harness.loops import C_SERVERS, PYTHON_LOOPS

ORDER = 100
MODES = {
    "protocol": "Protocol",
    "seasoned": "Protocol, seasoned",
    "buffered": "BufferedProtocol",
    "streams": "streams",
    "tls": "TLS",
}
SERVER_OPTIONS = {
    "seasoned": ["--mode=protocol"],
    "tls": ["--mode=protocol", "--tls"],
}
SEASONED = ("seasoned", "streams", "tls")
# How long the connections live that a seasoned server has seen.
SEASON = 0.05


def size_name(size: int) -> str:
    return f"{size // 1024} KiB" if size >= 1024 else f"{size} B"


def players(mode: str) -> tuple[str, ...]:
    if mode == "tls":
        # rloop refuses ssl=.
        return tuple(loop for loop in PYTHON_LOOPS if loop != "rloop")
    if mode in ("protocol", "seasoned"):
        return (*PYTHON_LOOPS, *C_SERVERS)
    return PYTHON_LOOPS


def echo_case(mode: str, connections: int, size: int) -> Case:
    short = size_name(size).replace(" ", "").replace("iB", "").lower()
    name = f"echo_{mode}_{connections}x{short}"
    title = f"TCP echo, {MODES[mode]}, {connections:,} of {size_name(size)}"
    options = SERVER_OPTIONS.get(mode, [f"--mode={mode}"])
    program = "tls_load" if mode == "tls" else "echo_load"

    def measure(_: LoopFactory, run: Run) -> dict[str, Figure]:
        command = network.server_command(run.loop, "echo.py", options)
        with network.serving(command) as server:
            if mode in SEASONED:
                network.load(program, server, Run(run.loop, SEASON))
            found = network.load(
                program, server, run, connections=connections, size=size
            )
        return {name: found["cpu"], f"{name}_rate": found["rate"]}

    return Case(
        name,
        "tcp",
        (
            Row(name, f"{title}, server CPU", "us", judge="least"),
            Row(f"{name}_rate", f"{title}, rate", "1/s", better="more"),
        ),
        measure,
        loops=players(mode),
        seconds=1.0,
        programs=(program,),
    )


CASES = (
    echo_case("protocol", 64, 64),
    echo_case("protocol", 64, 1024),
    echo_case("protocol", 64, 16 * 1024),
    echo_case("protocol", 8, 100 * 1024),
    echo_case("protocol", 1_000, 1024),
    echo_case("seasoned", 64, 1024),
    echo_case("seasoned", 8, 100 * 1024),
    echo_case("buffered", 64, 64),
    echo_case("buffered", 64, 1024),
    echo_case("buffered", 64, 16 * 1024),
    echo_case("streams", 64, 1024),
    echo_case("tls", 64, 1024),
    echo_case("tls", 8, 100 * 1024),
)
