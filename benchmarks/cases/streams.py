"""Streams beside 64 of 1 KiB (which is in tcp.py), and bytes one way."""

from __future__ import annotations

from harness.case import Case
from harness.served import Load, served_case

from cases.tcp import echo_load

ORDER = 104
KIB = 1024
TITLE = "TCP echo, streams"


def by_message(name: str) -> Case:
    return served_case(
        name,
        "streams",
        "echo.py",
        [f"--mode={name}", f"--size={KIB}"],
        [
            Load(
                name,
                f"{TITLE}, {name}, 64 of 1 KiB",
                {"size": KIB, "lines": int(name == "readline")},
            )
        ],
    )


def one_way(
    name: str,
    title: str,
    mode: str,
    way: str = "oneway",
) -> Case:
    options = {"connections": 8, way: 1}
    return served_case(
        name,
        "streams",
        "oneway.py",
        [f"--mode={mode}"],
        [Load(name, title, options, bulk=True)],
    )


CASES = (
    served_case(
        "streams",
        "streams",
        "echo.py",
        ["--mode=streams"],
        [
            echo_load("streams", TITLE, 64, 64),
            echo_load("streams", TITLE, 64, 16 * KIB),
            echo_load("streams", TITLE, 8, 100 * KIB),
        ],
    ),
    by_message("readline"),
    by_message("readexactly"),
    one_way("streams_receive", "one way, streams receive", "streams"),
    one_way("protocol_receive", "one way, Protocol receives", "receive"),
    one_way("protocol_send", "one way, Protocol sends", "send", "receive"),
    one_way("sendfile", "sendfile", "sendfile", "receive"),
)
