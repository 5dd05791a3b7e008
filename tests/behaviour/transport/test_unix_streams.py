"""Unix stream sockets: create_unix_connection and create_unix_server.

Paths as str, bytes and PathLike, abstract names, stale and busy paths, peer
names, and the socket file that 3.13 removes.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import pathlib
import socket
import stat
import weakref

import pytest
from net_helpers import PY313, Recorder, tcp_socketpair, turns


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
async def test_kinds_of_path(loop, path, convert):
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    server = await loop.create_unix_server(factory, convert(path))
    assert server.sockets[0].getsockname() == str(path)
    names = await visit(loop, server, protocols, convert(path))
    # What asyncio's sockets say: nameless peers are the empty string.
    assert names == (str(path), "", "", str(path))
    server.close()
    await server.wait_closed()


@pytest.mark.skipif(not hasattr(socket, "SO_PASSCRED"), reason="Linux only")
@pytest.mark.parametrize("convert", [str, bytes])
async def test_abstract_name(loop, convert):
    name = f"\0fastloop-test-{os.getpid()}-{convert.__name__}"
    address = name if convert is str else name.encode()
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    server = await loop.create_unix_server(factory, address)
    names = await visit(loop, server, protocols, address)
    assert names == (name.encode(), "", "", name.encode())
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("kind", ["unix"])
async def test_peer_names_of_a_pair(transport_pair):
    c = await transport_pair()
    assert c.transport.get_extra_info("peername") == ""
    assert c.transport.get_extra_info("sockname") == ""


async def test_a_bound_client_has_a_name(loop, tmp_path, path):
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    server = await loop.create_unix_server(factory, path)
    mine = str(tmp_path / "c")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(mine)
    sock.connect(str(path))
    transport, client = await loop.create_unix_connection(Recorder, sock=sock)
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


async def test_stale_path_is_replaced(loop, path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    before = os.stat(path).st_ino, os.stat(path).st_ctime_ns
    server = await loop.create_unix_server(Recorder, path)
    after = os.stat(path).st_ino, os.stat(path).st_ctime_ns
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    assert before != after
    server.close()


async def test_a_file_in_the_way_is_kept(loop, path):
    path.write_text("precious")
    with pytest.raises(OSError) as caught:
        await loop.create_unix_server(Recorder, path)
    assert caught.value.errno == errno.EADDRINUSE
    assert f"Address {str(path)!r} is already in use" in str(caught.value)
    assert path.read_text() == "precious"


async def test_path_removed_on_close_or_not(loop, path):
    server = await loop.create_unix_server(Recorder, path)
    server.close()
    await server.wait_closed()
    assert path.exists() is not PY313


@pytest.mark.skipif(not PY313, reason="cleanup_socket came with 3.13")
async def test_cleanup_socket_false(loop, path):
    server = await loop.create_unix_server(
        Recorder, path, cleanup_socket=False
    )
    server.close()
    await server.wait_closed()
    assert path.exists()


@pytest.mark.skipif(not PY313, reason="cleanup_socket came with 3.13")
async def test_cleanup_leaves_a_newer_file_alone(loop, path):
    server = await loop.create_unix_server(Recorder, path)
    path.unlink()
    path.write_text("another's")
    server.close()
    await server.wait_closed()
    assert path.read_text() == "another's"


@pytest.mark.skipif(not PY313, reason="cleanup_socket came with 3.13")
async def test_cleanup_of_a_path_already_gone(loop, path):
    server = await loop.create_unix_server(Recorder, path)
    path.unlink()
    server.close()
    await server.wait_closed()


@pytest.mark.skipif(not PY313, reason="cleanup_socket came with 3.13")
async def test_cleanup_of_a_given_socket(loop, path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    server = await loop.create_unix_server(Recorder, sock=sock)
    server.close()
    await server.wait_closed()
    assert not path.exists()


async def test_server_on_a_given_socket(loop, path):
    protocols = []

    def factory():
        protocols.append(Recorder())
        return protocols[-1]

    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    server = await loop.create_unix_server(factory, sock=sock)
    await visit(loop, server, protocols, path)
    server.close()
    await server.wait_closed()
    assert sock.fileno() == -1


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
async def test_options_that_do_not_go_together(loop, make, options, text):
    with pytest.raises(ValueError, match=text):
        await getattr(loop, make)(Recorder, **options)


async def test_ssl_of_a_wrong_type(loop, path):
    with pytest.raises(TypeError):
        await loop.create_unix_server(Recorder, path, ssl=True)


@pytest.mark.parametrize("make", ["connection", "server"])
async def test_socket_of_another_family(loop, make):
    near, far = tcp_socketpair()
    with near, far, pytest.raises(ValueError, match="A UNIX Domain Str"):
        if make == "server":
            await loop.create_unix_server(Recorder, sock=near)
        else:
            await loop.create_unix_connection(Recorder, sock=near)


@pytest.mark.parametrize(
    "prepare, error",
    [
        (lambda path: None, FileNotFoundError),
        (lambda path: path.write_text("x"), ConnectionRefusedError),
    ],
    ids=["missing", "file"],
)
async def test_what_a_failed_connect_raises(loop, path, prepare, error):
    prepare(path)
    with pytest.raises(error):
        await loop.create_unix_connection(Recorder, str(path))


async def test_a_name_that_is_too_long_is_refused(loop, tmp_path):
    name = str(tmp_path / ("x" * 120))
    with pytest.raises(OSError, match="too long"):
        await loop.create_unix_connection(Recorder, name)
    with pytest.raises(OSError, match="too long"):
        await loop.create_unix_server(Recorder, name)


async def test_start_serving_false(loop, path):
    server = await loop.create_unix_server(Recorder, path, start_serving=False)
    assert not server.is_serving()
    with pytest.raises(ConnectionRefusedError):
        await loop.create_unix_connection(Recorder, path)
    await server.start_serving()
    transport, protocol = await loop.create_unix_connection(Recorder, path)
    transport.abort()
    await protocol.wait_lost()
    server.close()
    await turns(5)


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="Linux only")
@pytest.mark.parametrize("kind", ["unix"])
async def test_peer_credentials_through_the_socket(transport_pair):
    import struct

    c = await transport_pair()
    sock = c.transport.get_extra_info("socket")
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("3i", data)
    assert (pid, uid) == (os.getpid(), os.getuid())


async def test_backlog_reaches_listen(loop, path):
    seen = []

    class Listening(socket.socket):
        def listen(self, backlog):
            seen.append(backlog)
            super().listen(backlog)

    sock = Listening(socket.AF_UNIX)
    sock.bind(str(path))
    server = await loop.create_unix_server(Recorder, sock=sock, backlog=7)
    assert seen == [7]
    server.close()


async def test_a_dropped_unix_server_goes_on(loop, path):
    def answer(protocol, data):
        protocol.transport.write(data)
        protocol.transport.close()

    protocol = Recorder(data=answer)
    server = weakref.ref(await loop.create_unix_server(lambda: protocol, path))
    for _ in range(3):
        gc.collect()
        await asyncio.sleep(0)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"served")
    assert await reader.read() == b"served"
    writer.close()
    await protocol.wait_lost()
    server().close()
