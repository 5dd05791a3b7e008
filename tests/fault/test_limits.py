"""No more descriptors, no more threads: what the loop raises and survives."""

import asyncio
import contextlib
import signal
import socket

import pytest
from few_descriptors import few_descriptors


def test_a_connection_without_a_descriptor_raises_emfile(loop):
    async def main():
        with few_descriptors(), pytest.raises(OSError) as caught:
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        assert caught.value.errno == 24

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        loop.run_until_complete(main())


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
