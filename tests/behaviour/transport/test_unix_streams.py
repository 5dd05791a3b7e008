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
import struct

import pytest
from hosts import Made
from net_helpers import PY313, Recorder, end, spin


@pytest.fixture
def path(tmp_path):
    """A short path: sun_path takes 107 bytes only."""
    name = tmp_path / "s"
    if len(os.fsencode(name)) > 100:
        pytest.fail("the temporary directory's name is too long")
    return name


async def names_of_a_visit(loop, address):
    """Serve there; return the names that both ends of a connection tell."""
    made = Made()
    server = await loop.create_unix_server(made, address)
    transport, client = await loop.create_unix_connection(Recorder, address)
    transport.write(b"hello")
    await spin(lambda: made)
    assert await made[0].wait_data(5) == b"hello"
    names = [
        one.get_extra_info(name)
        for one in (transport, made[0].transport)
        for name in ("peername", "sockname")
    ]
    transport.close()
    assert await client.wait_lost() is None
    assert await made[0].wait_lost() is None
    server.close()
    await server.wait_closed()
    return names


@pytest.mark.parametrize("convert", [str, os.fsencode, pathlib.Path])
async def test_kinds_of_path(loop, path, convert):
    names = await names_of_a_visit(loop, convert(path))
    # What asyncio's sockets say: nameless peers are the empty string.
    assert names == [str(path), "", "", str(path)]


@pytest.mark.skipif(not hasattr(socket, "SO_PASSCRED"), reason="Linux only")
@pytest.mark.parametrize("convert", [str, os.fsencode])
async def test_abstract_name(loop, convert):
    name = f"\0fastloop-test-{os.getpid()}-{convert.__name__}"
    names = await names_of_a_visit(loop, convert(name))
    assert names == [name.encode(), "", "", name.encode()]


@pytest.mark.parametrize("kind", ["unix"])
async def test_peer_names_of_a_pair(transport_pair):
    c = await transport_pair()
    assert c.transport.get_extra_info("peername") == ""
    assert c.transport.get_extra_info("sockname") == ""


@pytest.mark.parametrize("address_kind", ["unix"])
async def test_a_bound_client_has_a_name(loop, tmp_path, host):
    mine = str(tmp_path / "c")
    await host.serve()
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(mine)
    sock.connect(host.address)
    transport, client = await loop.create_unix_connection(Recorder, sock=sock)
    await spin(lambda: host.made)
    await host.made[0].wait_for("made")
    assert host.made[0].transport.get_extra_info("peername") == mine
    assert transport.get_extra_info("sockname") == mine
    await end(client, host.made[0])


async def test_stale_path_is_replaced(loop, path):
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    before = os.stat(path).st_ino, os.stat(path).st_ctime_ns
    server = await loop.create_unix_server(Recorder, path)
    after = os.stat(path).st_ino, os.stat(path).st_ctime_ns
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    assert before != after
    server.close()


async def test_an_existing_file_is_not_replaced(loop, path):
    path.write_text("precious")
    with pytest.raises(OSError) as caught:
        await loop.create_unix_server(Recorder, path)
    assert caught.value.errno == errno.EADDRINUSE
    assert f"Address {str(path)!r} is already in use" in str(caught.value)
    assert path.read_text() == "precious"


def replace(path):
    path.unlink()
    path.write_text("another's")


@pytest.mark.parametrize(
    ("options", "meanwhile", "remains"),
    [
        ({}, None, not PY313),
        ({"cleanup_socket": False}, None, True),
        ({}, replace, True),
        ({}, pathlib.Path.unlink, False),
    ],
)
async def test_path_removed_on_close(loop, path, options, meanwhile, remains):
    """From 3.13 on, unless it is another's meanwhile."""
    if options and not PY313:
        pytest.skip("cleanup_socket came with 3.13")
    server = await loop.create_unix_server(Recorder, path, **options)
    if meanwhile:
        meanwhile(path)
    server.close()
    await server.wait_closed()
    assert path.exists() is remains
    if meanwhile is replace:
        assert path.read_text() == "another's"


async def test_path_of_a_given_socket_removed_on_close(loop, path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    server = await loop.create_unix_server(Recorder, sock=sock)
    server.close()
    await server.wait_closed()
    assert path.exists() is not PY313


@pytest.mark.parametrize(
    "prepare, error",
    [
        (lambda path: None, FileNotFoundError),
        (lambda path: path.write_text("x"), ConnectionRefusedError),
    ],
    ids=["missing", "file"],
)
async def test_exceptions_of_a_failed_connect(loop, path, prepare, error):
    prepare(path)
    with pytest.raises(error):
        await loop.create_unix_connection(Recorder, str(path))


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="Linux only")
@pytest.mark.parametrize("kind", ["unix"])
async def test_peer_credentials_through_the_socket(transport_pair):
    c = await transport_pair()
    sock = c.transport.get_extra_info("socket")
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, _ = struct.unpack("3i", data)
    assert (pid, uid) == (os.getpid(), os.getuid())


async def test_a_patched_create_unix_connection_gets_the_loop(
    path, monkeypatch
):
    original = asyncio.SelectorEventLoop.create_unix_connection
    seen = []

    async def create(self, *args, **kwargs):
        seen.append(self)
        return await original(self, *args, **kwargs)

    monkeypatch.setattr(
        asyncio.SelectorEventLoop, "create_unix_connection", create
    )
    server = await asyncio.start_unix_server(lambda r, w: w.close(), path)
    reader, writer = await asyncio.open_unix_connection(path)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    assert seen == [asyncio.get_running_loop()]
