"""Every attribute of an object can be read, whatever state it is in.

Debuggers, inspect.getmembers() and mock's specs read all that dir() names.
"""

import asyncio
import gc
import inspect

import pytest
from loop_helpers import every_scheduler
from net_helpers import OPENINGS, Recorder, open_on_pair


def look_at(thing):
    """Read every attribute and show it; return their names."""
    members = inspect.getmembers(thing)
    for _, value in members:
        repr(value)
    gc.collect()
    return {name for name, _ in members}


@every_scheduler
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


@pytest.mark.parametrize("kind", OPENINGS)
async def test_all_of_a_transport_can_be_read(loop, kind):
    protocol = Recorder(
        made=lambda p: look_at(p.transport),
        lost=lambda p, exc: look_at(p.transport),
    )
    opening, _, far = open_on_pair(loop, kind, lambda: protocol)
    with far:
        transport, _ = await opening
        if kind in ("stream", "write pipe"):
            transport.write(b"x" * 10_000_000)
        look_at(transport)
        getattr(transport, "abort" if kind != "read pipe" else "close")()
        look_at(transport)
        await protocol.wait_lost()
        await asyncio.sleep(0)
        look_at(transport)
