"""What opens connections and servers refuses what it cannot do."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hosts import answering
from net_helpers import Recorder, waiting

BOTH = "and sock can not be specified at the same time"
#: What opens a connection or a server, and enough to do it.
ENOUGH = {
    "create_connection": {"host": "a", "port": 1},
    "create_server": {"host": "a", "port": 1},
    "create_unix_connection": {"path": "p"},
    "create_unix_server": {"path": "p"},
}
every_way = pytest.mark.parametrize("make", ENOUGH)
over_tcp = pytest.mark.parametrize(
    "make", ["create_connection", "create_server"]
)


@every_way
async def test_options_that_do_not_go_together(loop, make):
    create, enough = getattr(loop, make), ENOUGH[make]
    with pytest.raises(ValueError, match=BOTH):
        await create(Recorder, **enough, sock=object())
    for limit in ("ssl_handshake_timeout", "ssl_shutdown_timeout"):
        with pytest.raises(ValueError, match=f"{limit} is only meaningful"):
            await create(Recorder, **enough, **{limit: 1})


@pytest.mark.parametrize(
    ("make", "options", "text"),
    [
        ("create_connection", {}, "host and port was not specified and no so"),
        ("create_server", {}, "Neither host/port nor sock were specified"),
        ("create_server", {"port": 1, "sock": object()}, BOTH),
        ("create_unix_connection", {}, "no path and sock were specified"),
        ("create_unix_server", {}, "path was not specified, and no sock"),
        (
            "create_connection",
            {"server_hostname": "a", "host": "b"},
            "only meaningful with ssl",
        ),
        (
            "create_unix_connection",
            {"path": "p", "server_hostname": "h"},
            "only meaningful with ssl",
        ),
        (
            "create_connection",
            {"ssl": True, "sock": object()},
            "must set server_hostname when using ssl",
        ),
        (
            "create_unix_connection",
            {"path": "p", "ssl": True},
            "have to pass server_hostname when using ssl",
        ),
    ],
)
async def test_options_that_are_not_enough(loop, make, options, text):
    with pytest.raises(ValueError, match=text):
        await getattr(loop, make)(Recorder, **options)


@pytest.mark.parametrize("make", ["create_server", "create_unix_server"])
async def test_ssl_of_a_wrong_type(loop, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match="ssl argument must be an SSLContext"):
        await getattr(loop, make)(Recorder, **ENOUGH[make], ssl=True)


async def test_an_unknown_option(loop):
    with pytest.raises(TypeError):
        await loop.create_connection(Recorder, "127.0.0.1", 9, other=None)


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


@pytest.mark.parametrize(
    "option", ["ssl_handshake_timeout", "ssl_shutdown_timeout"]
)
async def test_accepted_socket_with_options_of_tls(loop, option):
    with socket.socket() as sock:
        with pytest.raises(ValueError, match="only meaningful"):
            await loop.connect_accepted_socket(Recorder, sock, **{option: 1})


@over_tcp
async def test_a_name_without_address(loop, make):
    answering(loop)
    with pytest.raises(OSError, match="returned empty list"):
        await getattr(loop, make)(Recorder, "nowhere", 80)


@over_tcp
async def test_an_unknown_name(loop, make):
    async def getaddrinfo(*args, **options):
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    loop.getaddrinfo = getaddrinfo
    with pytest.raises(socket.gaierror):
        await getattr(loop, make)(Recorder, "no.such.name", 80)


@over_tcp
async def test_cancelled_while_resolving(loop, make):
    async def getaddrinfo(*args, **options):
        await asyncio.Event().wait()

    loop.getaddrinfo = getaddrinfo
    task = await waiting(getattr(loop, make)(Recorder, "name", 1))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await getattr(loop, make)(Recorder, "name", 1)


@pytest.mark.parametrize(
    "make", ["create_unix_connection", "create_unix_server"]
)
async def test_a_name_that_is_too_long_is_refused(loop, tmp_path, make):
    with pytest.raises(OSError, match="too long"):
        await getattr(loop, make)(Recorder, str(tmp_path / ("x" * 120)))
