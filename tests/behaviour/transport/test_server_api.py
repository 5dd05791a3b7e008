"""Servers that are dropped, or closed where few do it, at any address."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest
from hosts import CLOSED, Host
from net_helpers import PY313, end, iterations, spin
from patience import PATIENCE


async def test_an_unreferenced_server_goes_on(loop, host):
    """Its listeners belong to the loop, not to the object."""
    server = weakref.ref(await host.serve())
    for _ in range(3):
        gc.collect()
        await iterations(1)
    near, far = await host.visit()
    near.transport.write(b"served")
    assert await far.wait_data(6) == b"served"
    await end(near, far)
    server().close()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("served", [False, True])
def test_a_closed_loop_leaves_no_dropped_server(loop_factory, served):
    """Its address is free for the next loop, without a garbage collection."""

    async def main(host):
        await host.serve()
        if served:
            near, far = await host.visit()
            await end(near, far)
            host.made.clear()

    gc.collect()
    gc.disable()
    try:
        host = Host(None)
        for _ in range(2):
            host.loop = loop_factory()
            host.loop.run_until_complete(main(host))
            host.loop.close()
    finally:
        gc.enable()
        gc.collect()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_wait_closed_of_a_server_of_a_closed_loop(
    loop_factory, loop_kind, monkeypatch
):
    """Nobody can tell them that its last connection is gone."""
    if loop_kind == "asyncio" and PY313:
        pytest.skip("asyncio's transport fails in its __del__, unraisably")
    failed = []
    monkeypatch.setattr("sys.unraisablehook", failed.append)
    loop = loop_factory()
    host = Host(loop)
    server = loop.run_until_complete(host.serve())
    client = host.plain()
    loop.run_until_complete(spin(lambda: host.made))
    waiting = server.wait_closed()
    waiting.send(None).add_done_callback(print)
    server.close()
    loop.close()
    host.made.clear()
    gc.collect()
    client.close()
    waiting.close()
    assert failed == []


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.reports
async def test_server_closed_in_a_factory(host, loop_kind):
    """The connection being made is served or dropped, and all is closed."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio's Server fails in _attach or _detach, unraisably")

    def factory():
        host.close()
        return host.made()

    await host.serve(factory)
    with host.plain() as near:
        near.settimeout(PATIENCE)
        await spin(lambda: host.made)
        await iterations(5)
        if host.made[0].count("made"):
            await end(host.made[0])
        gc.collect()
        # A reset where asyncio drops the connection with its data.
        with contextlib.suppress(ConnectionResetError):
            assert near.recv(1) == b""
    with pytest.raises(CLOSED):
        host.plain()
