"""Unix stream sockets: names of any kind, and a patched method.

Other options, stale paths and errors are asyncio's own code.
"""

from __future__ import annotations

import os
import pathlib
import socket

import pytest
from hosts import Made
from net_helpers import Recorder, spin


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
