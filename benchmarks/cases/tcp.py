"""TCP echo: what a message costs the server, with the rate beside it.

With one connection every loop is equal, for that measures how
a CPU is woken.  With 64 the generator is as busy as the server, so rates
say little: the least CPU time the server spent on a message is the judge.
"""

from __future__ import annotations

from harness.case import Case
from harness.served import Load, load_key, served_case, size_name

ORDER = 100
KIB = 1024
MODES = {
    "protocol": "Protocol",
    "buffered": "BufferedProtocol",
    "streams": "streams",
    "tls": "TLS",
}


def echo_load(mode: str, title: str, connections: int, size: int) -> Load:
    """Return the load of `connections` that send `size` bytes."""
    return Load(
        f"echo_{mode}_{load_key(connections, size)}",
        f"{title}, {connections:,} of {size_name(size)}",
        {"connections": connections, "size": size},
    )


def echo_case(mode: str, connections: int, size: int) -> Case:
    load = echo_load(mode, f"TCP echo, {MODES[mode]}", connections, size)
    tls = mode == "tls"
    return served_case(
        load.key,
        "tcp",
        "echo.py",
        ["--mode=protocol", "--tls"] if tls else [f"--mode={mode}"],
        [load],
        tls=tls,
    )


CASES = (
    echo_case("protocol", 64, 64),
    echo_case("protocol", 64, KIB),
    echo_case("protocol", 64, 16 * KIB),
    echo_case("protocol", 8, 100 * KIB),
    echo_case("protocol", 1_000, KIB),
    echo_case("buffered", 64, 64),
    echo_case("buffered", 64, KIB),
    echo_case("buffered", 64, 16 * KIB),
    echo_case("streams", 64, KIB),
    echo_case("tls", 64, KIB),
    echo_case("tls", 8, 100 * KIB),
)
