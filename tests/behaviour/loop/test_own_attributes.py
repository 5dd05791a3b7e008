"""What a loop stores, for asyncio and for fastloop, makes it no __dict__.

With one CPython no longer specializes calls of the loop's methods, and calls
from C look each method up there first.
"""

import asyncio
import functools
import gc
import os
import signal
import socket
import sys
import tempfile

import pytest
from net_helpers import client_context, server_context

import fastloop
from fastloop.contrib import opentelemetry


def has_dict(loop):
    """Say whether it has one already: vars() makes it."""
    found = gc.get_referents(loop)
    return any(each is vars(loop) for each in found)


async def tcp(loop):
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    async with server:
        sock = socket.create_connection(server.sockets[0].getsockname())
        sock.setblocking(False)
        made, _ = await loop.create_connection(asyncio.Protocol, sock=sock)
        made.close()


async def unix(loop):
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        async with await loop.create_unix_server(asyncio.Protocol, path):
            made, _ = await loop.create_unix_connection(asyncio.Protocol, path)
            made.close()


async def tls(loop):
    server = await loop.create_server(
        asyncio.Protocol, "127.0.0.1", 0, ssl=server_context()
    )
    async with server:
        _, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(),
            ssl=client_context(),
            server_hostname="localhost",
        )
        writer.close()
        await writer.wait_closed()


async def datagrams(loop):
    made, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    made.close()


async def signals(loop):
    arrived = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, arrived.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await arrived.wait()
    loop.remove_signal_handler(signal.SIGUSR1)


async def subprocess(loop):
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await child.wait()


async def generators(loop):
    async def numbers():
        yield 1
        yield 2

    left = numbers()
    await anext(left)
    async for _ in numbers():
        await loop.run_in_executor(None, int)


async def reports(loop):
    opentelemetry.instrument(loop)  # turns metrics on, starts the watchdog
    loop.slow_callback_duration = 0
    loop.slow_callback_hook = str
    loop.set_task_factory(lambda _, coro, **__: asyncio.Task(coro, loop=loop))
    await loop.create_task(asyncio.sleep(0))
    assert loop._recent_slow
    loop.set_exception_handler(lambda *_: None)
    loop.call_exception_handler({"message": "", "exception": OSError()})


def on_a_runner(main):
    with asyncio.Runner(loop_factory=fastloop.new_event_loop) as runner:
        return runner.run(main)


debugged = functools.partial(fastloop.run, debug=True)
USES = (tcp, unix, tls, datagrams, signals, subprocess, generators, reports)


@pytest.mark.parametrize("run", [fastloop.run, debugged, on_a_runner])
@pytest.mark.parametrize("use", USES)
def test_a_loop_has_no_dict_after_its_use(run, use):
    """asyncio's has one."""

    async def main():
        loop = asyncio.get_running_loop()
        await use(loop)
        return loop

    assert not has_dict(run(main()))
