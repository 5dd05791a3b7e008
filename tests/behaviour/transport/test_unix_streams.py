"""Unix stream sockets: create_unix_connection and create_unix_server.

Paths as str, bytes and PathLike, abstract names, stale and busy paths, peer
names, and the socket file that 3.13 removes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import pathlib
import socket
import stat

import pytest
from net_helpers import PY313, Recorder, link, tcp_socketpair, turns


@pytest.fixture
def path(tmp_path):
    """A short path: sun_path takes 107 bytes only."""
    name = tmp_path / "s"
    if len(os.fsencode(name)) > 100:
        pytest.fail("the temporary directory's name is too long")
    return name


async def visit(loop, server, protocols, path):
    """Connect to a server, exchange bytes, end both sides."""
    transport, client = await loop.create_unix_connection(Recorder, path)
    transport.write(b"hello")
    while not protocols:
        await asyncio.sleep(0)
    (far,) = protocols
    assert await far.wait_data(5) == b"hello"
    names = (
        transport.get_extra_info("peername"),
        transport.get_extra_info("sockname"),
        far.transport.get_extra_info("peername"),
        far.transport.get_extra_info("sockname"),
    )
    transport.close()
    assert await client.wait_lost() is None
    assert await far.wait_lost() is None
    protocols.clear()
    return names


@pytest.mark.parametrize("convert", [str, os.fsencode, pathlib.Path])
def test_kinds_of_path(run, loop, path, convert):
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    async def main():
        server = await loop.create_unix_server(factory, convert(path))
        assert server.sockets[0].getsockname() == str(path)
        names = await visit(loop, server, protocols, convert(path))
        # What asyncio's sockets say: nameless peers are the empty string.
        assert names == (str(path), "", "", str(path))
        server.close()
        await server.wait_closed()

    run(main())


@pytest.mark.skipif(not hasattr(socket, "SO_PASSCRED"), reason="Linux only")
@pytest.mark.parametrize("convert", [str, bytes])
def test_abstract_name(run, loop, convert):
    name = f"\0fastloop-test-{os.getpid()}-{convert.__name__}"
    address = name if convert is str else name.encode()
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    async def main():
        server = await loop.create_unix_server(factory, address)
        names = await visit(loop, server, protocols, address)
        assert names == (name.encode(), "", "", name.encode())
        server.close()
        await server.wait_closed()

    run(main())


def test_peer_names_of_a_pair(run):
    async def main():
        async with link("unix") as c:
            assert c.transport.get_extra_info("peername") == ""
            assert c.transport.get_extra_info("sockname") == ""

    run(main())


def test_a_bound_client_has_a_name(run, loop, tmp_path, path):
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    async def main():
        server = await loop.create_unix_server(factory, path)
        mine = str(tmp_path / "c")
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(mine)
        sock.connect(str(path))
        transport, client = await loop.create_unix_connection(
            Recorder, sock=sock
        )
        while not protocols:
            await asyncio.sleep(0)
        await protocols[0].wait_for("made")
        far = protocols[0].transport
        assert far.get_extra_info("peername") == mine
        assert transport.get_extra_info("sockname") == mine
        transport.close()
        await client.wait_lost()
        await protocols[0].wait_lost()
        server.close()

    run(main())


def test_stale_path_is_replaced(run, loop, path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    async def main():
        before = os.stat(path).st_ino, os.stat(path).st_ctime_ns
        server = await loop.create_unix_server(Recorder, path)
        after = os.stat(path).st_ino, os.stat(path).st_ctime_ns
        assert stat.S_ISSOCK(os.stat(path).st_mode)
        assert before != after
        server.close()

    run(main())


def test_a_file_in_the_way_is_kept(run, loop, path):
    path.write_text("precious")

    async def main():
        with pytest.raises(OSError) as caught:
            await loop.create_unix_server(Recorder, path)
        assert caught.value.errno == errno.EADDRINUSE
        assert f"Address {str(path)!r} is already in use" in str(caught.value)

    run(main())
    assert path.read_text() == "precious"


def test_path_removed_on_close_or_not(run, loop, path):
    async def main():
        server = await loop.create_unix_server(Recorder, path)
        server.close()
        await server.wait_closed()
        assert path.exists() is not PY313

    run(main())


@pytest.mark.skipif(not PY313, reason="cleanup_socket came with 3.13")
def test_cleanup_socket_false(run, loop, path):
    async def main():
        server = await loop.create_unix_server(
            Recorder, path, cleanup_socket=False
        )
        server.close()
        await server.wait_closed()
        assert path.exists()

    run(main())


@pytest.mark.skipif(not PY313, reason="cleanup_socket came with 3.13")
def test_cleanup_leaves_a_newer_file_alone(run, loop, path):
    async def main():
        server = await loop.create_unix_server(Recorder, path)
        path.unlink()
        path.write_text("another's")
        server.close()
        await server.wait_closed()
        assert path.read_text() == "another's"

    run(main())


@pytest.mark.skipif(not PY313, reason="cleanup_socket came with 3.13")
def test_cleanup_of_a_path_already_gone(run, loop, path):
    async def main():
        server = await loop.create_unix_server(Recorder, path)
        path.unlink()
        server.close()
        await server.wait_closed()

    run(main())


@pytest.mark.skipif(not PY313, reason="cleanup_socket came with 3.13")
def test_cleanup_of_a_given_socket(run, loop, path):
    async def main():
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        server = await loop.create_unix_server(Recorder, sock=sock)
        server.close()
        await server.wait_closed()
        assert not path.exists()

    run(main())


def test_server_on_a_given_socket(run, loop, path):
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    async def main():
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        server = await loop.create_unix_server(factory, sock=sock)
        await visit(loop, server, protocols, path)
        server.close()
        await server.wait_closed()
        assert sock.fileno() == -1

    run(main())


@pytest.mark.parametrize(
    "make, options, text",
    [
        ("create_unix_server", {}, "path was not specified, and no sock"),
        ("create_unix_connection", {}, "no path and sock were specified"),
        (
            "create_unix_server",
            {"path": "p", "sock": object()},
            "path and sock can not be specified at the same time",
        ),
        (
            "create_unix_connection",
            {"path": "p", "sock": object()},
            "path and sock can not be specified at the same time",
        ),
        (
            "create_unix_connection",
            {"path": "p", "server_hostname": "h"},
            "server_hostname is only meaningful with ssl",
        ),
        (
            "create_unix_connection",
            {"path": "p", "ssl": True},
            "you have to pass server_hostname when using ssl",
        ),
        (
            "create_unix_connection",
            {"path": "p", "ssl_handshake_timeout": 1},
            "only meaningful with ssl",
        ),
        (
            "create_unix_server",
            {"path": "p", "ssl_handshake_timeout": 1},
            "only meaningful with ssl",
        ),
        (
            "create_unix_server",
            {"path": "p", "ssl_shutdown_timeout": 1},
            "only meaningful with ssl",
        ),
    ],
)
def test_options_that_do_not_go_together(run, loop, make, options, text):
    async def main():
        with pytest.raises(ValueError, match=text):
            await getattr(loop, make)(Recorder, **options)

    run(main())


def test_ssl_of_a_wrong_type(run, loop, path):
    async def main():
        with pytest.raises(TypeError):
            await loop.create_unix_server(Recorder, path, ssl=True)

    run(main())


@pytest.mark.parametrize("make", ["connection", "server"])
def test_socket_of_another_family(run, loop, make):
    async def main():
        near, far = tcp_socketpair()
        with near, far, pytest.raises(ValueError, match="A UNIX Domain Str"):
            if make == "server":
                await loop.create_unix_server(Recorder, sock=near)
            else:
                await loop.create_unix_connection(Recorder, sock=near)

    run(main())


@pytest.mark.parametrize(
    "prepare, error",
    [
        (lambda path: None, FileNotFoundError),
        (lambda path: path.write_text("x"), ConnectionRefusedError),
    ],
    ids=["missing", "file"],
)
def test_connect_errors(run, loop, path, prepare, error):
    prepare(path)

    async def main():
        with pytest.raises(error):
            await loop.create_unix_connection(Recorder, str(path))

    run(main())


def test_name_too_long(run, loop, tmp_path):
    name = str(tmp_path / ("x" * 120))

    async def main():
        with pytest.raises(OSError, match="too long"):
            await loop.create_unix_connection(Recorder, name)
        with pytest.raises(OSError, match="too long"):
            await loop.create_unix_server(Recorder, name)

    run(main())


def test_start_serving_false(run, loop, path):
    async def main():
        server = await loop.create_unix_server(
            Recorder, path, start_serving=False
        )
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await loop.create_unix_connection(Recorder, path)
        await server.start_serving()
        transport, protocol = await loop.create_unix_connection(Recorder, path)
        transport.abort()
        await protocol.wait_lost()
        server.close()
        await turns(5)

    run(main())


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="Linux only")
def test_peer_credentials_through_the_socket(run):
    import struct

    async def main():
        async with link("unix") as c:
            sock = c.transport.get_extra_info("socket")
            data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            pid, uid, _ = struct.unpack("3i", data)
            assert (pid, uid) == (os.getpid(), os.getuid())

    run(main())


def test_backlog_reaches_listen(run, loop, path):
    seen = []

    class Listening(socket.socket):
        def listen(self, backlog):
            seen.append(backlog)
            super().listen(backlog)

    async def main():
        sock = Listening(socket.AF_UNIX)
        sock.bind(str(path))
        server = await loop.create_unix_server(Recorder, sock=sock, backlog=7)
        assert seen == [7]
        server.close()

    run(main())
