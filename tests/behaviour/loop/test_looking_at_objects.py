"""Every attribute of an object can be read, whatever state it is in.

Debuggers, inspect.getmembers() and mock's specs read all that dir() names.
"""

import asyncio
import gc
import inspect

import pytest
from net_helpers import Recorder

MAKERS = {
    "soon": lambda loop, *call: loop.call_soon(*call),
    "later": lambda loop, *call: loop.call_later(0, *call),
    "at": lambda loop, *call: loop.call_at(loop.time(), *call),
    "threadsafe": lambda loop, *call: loop.call_soon_threadsafe(*call),
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def look_at(thing):
    """Read every attribute and show it; return their names."""
    members = inspect.getmembers(thing)
    for _, value in members:
        repr(value)
    gc.collect()
    return {name for name, _ in members}


@every_maker
@pytest.mark.parametrize("debug", [False, True])
def test_all_of_a_handle_can_be_read(loop, iterate, make, debug):
    loop.set_debug(debug)
    ran, cancelled, looked = [], [], []
    waiting = make(loop, lambda *args: looked.append(look_at(waiting)), 1, 2)
    stopped = make(loop, cancelled.append, 1)
    forgotten = make(loop, ran.append, 1)
    names = look_at(waiting)
    stopped.cancel()
    assert {"_callback", "_args", "_loop"} <= look_at(stopped)
    iterate(2)
    assert looked == [names]
    assert look_at(waiting) == look_at(forgotten) == names
    forgotten.cancel()
    look_at(forgotten)
    assert (ran, cancelled) == ([1], [])


def test_all_of_a_loop_can_be_read(loop_factory):
    loop = loop_factory()
    look_at(loop)
    loop.call_soon(look_at, loop)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    look_at(loop)


async def test_all_of_a_stream_and_its_server_can_be_read():
    protocol = Recorder(
        made=lambda p: look_at(p.transport),
        lost=lambda p, exc: look_at(p.transport),
    )
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    look_at(server)
    client, _ = await loop.create_connection(
        asyncio.Protocol, *server.sockets[0].getsockname()
    )
    client.write(b"x" * 10_000_000)
    look_at(client)
    client.abort()
    look_at(client)
    await protocol.wait_lost()
    look_at(protocol.transport)
    server.close()
    await server.wait_closed()
    look_at(server)
    await asyncio.sleep(0)
    look_at(client)


async def test_all_of_a_datagram_transport_can_be_read():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    look_at(transport)
    transport.close()
    look_at(transport)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    look_at(transport)
