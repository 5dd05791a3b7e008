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

from harness.case import Case
from harness.served import Load, load_key, served_case, size_name

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
LIMITS = {
    "protocol": ("c-epoll", "c-late", "c-uv"),
    "seasoned": ("c-epoll", "c-late", "c-uv"),
    "streams": ("c-epoll", "c-late"),
    "tls": ("c-tls",),
}


def echo_load(
    mode: str, title: str, connections: int, size: int, reach: str = ""
) -> Load:
    """Return the load of `connections` that send `size` bytes."""
    return Load(
        f"echo_{mode}_{load_key(connections, size)}",
        f"{title}, {connections:,} of {size_name(size)}",
        {"connections": connections, "size": size},
        reach,
    )


def echo_case(mode: str, connections: int, size: int, reach: str = "") -> Case:
    load = echo_load(
        mode, f"TCP echo, {MODES[mode]}", connections, size, reach
    )
    return served_case(
        load.key,
        "tcp",
        "echo.py",
        SERVER_OPTIONS.get(mode, [f"--mode={mode}"]),
        [load],
        program="tls_load" if mode == "tls" else "echo_load",
        limits=LIMITS.get(mode, ()),
        seasoned=mode in SEASONED,
        tls=mode == "tls",
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
    echo_case("streams", 64, 1024, "1.25x"),
    echo_case("tls", 64, 1024, "1.1x"),
    echo_case("tls", 8, 100 * 1024),
)
