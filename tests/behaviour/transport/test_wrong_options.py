"""What opens connections and servers refuses what it cannot do."""

from __future__ import annotations

import socket

import pytest
from hosts import answering
from net_helpers import Recorder

BOTH = "and sock can not be specified at the same time"
TCP = {"host": "a", "port": 1}
UNIX = {"path": "p"}
SOCK = {"sock": object()}
NEEDS_SSL = "only meaningful with ssl"
REFUSED = [
    ("create_connection", {}, "host and port was not specified and no so"),
    ("create_connection", TCP | SOCK, BOTH),
    ("create_connection", TCP | {"server_hostname": "b"}, NEEDS_SSL),
    (
        "create_connection",
        SOCK | {"ssl": True},
        "must set server_hostname when using ssl",
    ),
    ("create_server", {}, "Neither host/port nor sock were specified"),
    ("create_server", TCP | SOCK, BOTH),
    ("create_server", {"port": 1} | SOCK, BOTH),
    ("create_unix_connection", {}, "no path and sock were specified"),
    ("create_unix_connection", UNIX | SOCK, BOTH),
    ("create_unix_connection", UNIX | {"server_hostname": "h"}, NEEDS_SSL),
    (
        "create_unix_connection",
        UNIX | {"ssl": True},
        "have to pass server_hostname when using ssl",
    ),
    ("create_unix_server", {}, "path was not specified, and no sock"),
    ("create_unix_server", UNIX | SOCK, BOTH),
    *[
        (make, enough | {limit: 1}, f"{limit} is only meaningful")
        for make, enough in [
            ("create_connection", TCP),
            ("create_server", TCP),
            ("create_unix_connection", UNIX),
            ("create_unix_server", UNIX),
        ]
        for limit in ("ssl_handshake_timeout", "ssl_shutdown_timeout")
    ],
]


@pytest.mark.parametrize(("make", "options", "text"), REFUSED)
async def test_refused_options(loop, make, options, text):
    with pytest.raises(ValueError, match=text):
        await getattr(loop, make)(Recorder, **options)


@pytest.mark.parametrize(
    ("make", "family", "kind"),
    [
        ("create_connection", socket.AF_INET, socket.SOCK_DGRAM),
        ("create_connection", socket.AF_UNIX, socket.SOCK_DGRAM),
        ("create_server", socket.AF_INET, socket.SOCK_DGRAM),
        ("connect_accepted_socket", socket.AF_INET, socket.SOCK_DGRAM),
        ("create_unix_connection", socket.AF_INET, socket.SOCK_STREAM),
        ("create_unix_server", socket.AF_INET, socket.SOCK_STREAM),
    ],
)
async def test_sockets_of_another_kind(loop, make, family, kind):
    unix = "A UNIX Domain " if "unix" in make else ""
    with socket.socket(family, kind) as sock:
        with pytest.raises(ValueError, match=unix + "Stream Socket was exp"):
            await getattr(loop, make)(Recorder, sock=sock)


@pytest.mark.parametrize("make", ["create_connection", "create_server"])
async def test_a_name_without_address(loop, make):
    answering(loop)
    with pytest.raises(OSError, match="returned empty list"):
        await getattr(loop, make)(Recorder, "nowhere", 80)
