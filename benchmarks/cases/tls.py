"""TLS: echoes by kind of protocol, bulk, handshakes.

The plain C server drives OpenSSL on
epoll, with the modes that CPython sets.
"""

from __future__ import annotations

from harness.case import Case
from harness.served import Load, served_case

from cases.tcp import echo_load

ORDER = 102
KIB = 1024


def tls_case(name: str, mode: str, *loads: Load) -> Case:
    return served_case(
        name,
        "tls",
        "echo.py",
        [f"--mode={mode}", "--tls"],
        loads,
        program="tls_load",
        limits=("c-tls",),
        tls=True,
    )


CASES = (
    # 1 KiB is in tcp.py.
    tls_case(
        "tls_protocol",
        "protocol",
        echo_load("tls", "TCP echo, TLS", 64, 16 * KIB, "4.55x"),
    ),
    tls_case(
        "tls_buffered",
        "buffered",
        *(
            echo_load(
                "tls_buffered", "TLS echo, BufferedProtocol", 64, size, reach
            )
            for size, reach in ((KIB, "4.05x"), (16 * KIB, "4.55x"))
        ),
    ),
    tls_case(
        "tls_streams",
        "streams",
        *(
            echo_load("tls_streams", "TLS echo, streams", 64, size, reach)
            for size, reach in ((KIB, "3.0x"), (16 * KIB, "1.8x"))
        ),
    ),
    served_case(
        "tls_bulk",
        "tls",
        "oneway.py",
        ["--mode=receive", "--tls"],
        [
            Load(
                "tls_bulk",
                "TLS, Protocol receives from 8",
                {"connections": 8, "size": 256 * KIB, "oneway": 1},
                "2.2x",
                bulk=True,
            )
        ],
        program="tls_load",
        limits=("c-tls",),
        mode="sink",
        tls=True,
    ),
    tls_case(
        "tls_handshake",
        "protocol",
        Load(
            "tls_handshake",
            "TLS, full handshake and close",
            {"connections": 32, "fresh": 1},
            "1.08x",
        ),
    ),
)
