"""No more descriptors, no more threads: what the loop raises and survives."""

import asyncio
import contextlib
import gc
import signal
import socket

import pytest
from few_descriptors import few_descriptors


@pytest.mark.parametrize("spare", range(8))
def test_without_descriptors_a_loop_is_made_whole_or_not_at_all(
    loop_factory, loop_kind, spare
):
    if loop_kind == "asyncio":
        pytest.skip("asyncio leaves half a loop to its finaliser")
    first = loop_factory()  # takes what may have been kept
    made = None
    with few_descriptors(spare):
        try:
            made = loop_factory()
        except OSError as exc:
            assert exc.errno == 24
    gc.collect()
    if made is not None:
        assert made.run_until_complete(asyncio.sleep(0.001, 1)) == 1
        made.close()
    assert first.run_until_complete(asyncio.sleep(0.0003, 1)) == 1
    first.close()


@pytest.mark.parametrize("spare", range(3))
def test_a_loop_runs_after_a_run_without_descriptors(loop_factory, spare):
    loop = loop_factory()
    with few_descriptors(spare), contextlib.suppress(OSError):
        loop.run_until_complete(asyncio.sleep(0.0003, 1))
    gc.collect()
    assert loop.run_until_complete(asyncio.sleep(0.0003, 1)) == 1
    loop.close()


def test_a_connection_without_a_descriptor_raises_emfile(loop):
    async def main():
        with few_descriptors(), pytest.raises(OSError) as caught:
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        assert caught.value.errno == 24

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        loop.run_until_complete(main())


async def test_a_server_without_descriptors_has_no_sockets(loop):
    with few_descriptors():
        try:
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        except OSError:
            return
    # Up to 3.12 asyncio makes a server of the sockets it could get.
    assert server.sockets == ()
    server.close()


async def test_a_subprocess_starts_after_one_without_descriptors(loop):
    with few_descriptors(), pytest.raises(OSError):
        await asyncio.create_subprocess_exec("/bin/true", stdout=-1)
    process = await asyncio.create_subprocess_exec("/bin/true")
    assert await process.wait() == 0


def test_a_signal_handler_works_after_one_without_descriptors(loop_factory):
    loop = loop_factory()
    with few_descriptors(), contextlib.suppress(OSError, RuntimeError):
        loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    loop.run_forever()
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
