"""TLS: echoes by kind of protocol, bulk, handshakes."""

from __future__ import annotations

from harness.served import Load, served_case

from cases.tcp import echo_load

ORDER = 102
KIB = 1024
BULK = {"connections": 8, "oneway": 1}
CONNECTS = {"connections": 32, "size": 64, "fresh": 1}

# A case, its mode, and its loads; 1 KiB of a Protocol is in tcp.py.
ECHOES = (
    (
        "tls_protocol",
        "protocol",
        [echo_load("tls", "TCP echo, TLS", 64, 16 * KIB)],
    ),
    (
        "tls_buffered",
        "buffered",
        [
            echo_load("tls_buffered", "TLS echo, BufferedProtocol", 64, size)
            for size in (KIB, 16 * KIB)
        ],
    ),
    (
        "tls_streams",
        "streams",
        [
            echo_load("tls_streams", "TLS echo, streams", 64, size)
            for size in (KIB, 16 * KIB)
        ],
    ),
)
CASES = (
    *(
        served_case(
            name,
            "tls",
            "echo.py",
            [f"--mode={mode}", "--tls"],
            loads,
            tls=True,
        )
        for name, mode, loads in ECHOES
    ),
    served_case(
        "tls_bulk",
        "tls",
        "oneway.py",
        ["--mode=receive", "--tls"],
        [Load("tls_bulk", "TLS, Protocol receives from 8", BULK, bulk=True)],
        tls=True,
    ),
    served_case(
        "tls_handshake",
        "tls",
        "echo.py",
        ["--mode=protocol", "--tls"],
        [
            Load(
                "tls_handshake",
                "TLS, connect, one echo of 64 B, close",
                CONNECTS,
            )
        ],
        tls=True,
    ),
)
