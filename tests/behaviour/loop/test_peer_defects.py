"""Defects that event loops on libuv have had and that must not come back.

Most of them have their test where the behaviour belongs; here are those that
have no better place.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from net_helpers import listening_socket, turns

TOP = Path(__file__).resolve().parents[3]


def test_os_environ_as_a_childs_env(run, loop, monkeypatch):
    """It is a mapping, not a dict."""
    monkeypatch.setenv("FASTLOOP_TOLD", "inherited")

    async def main():
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-c"),
            "import os; print(os.environ['FASTLOOP_TOLD'])",
            env=os.environ,
            stdout=subprocess.PIPE,
        )
        out, _ = await child.communicate()
        assert out == b"inherited\n"
        assert child.returncode == 0

    run(main())


def test_a_dropped_unix_server_goes_on(run, loop, tmp_path):
    path = str(tmp_path / "socket")

    async def main():
        done = loop.create_future()

        class Once(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                self.transport.write(data)
                self.transport.close()

            def connection_lost(self, exc):
                done.set_result(exc)

        server = weakref.ref(await loop.create_unix_server(Once, path))
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"served")
        assert await reader.read() == b"served"
        writer.close()
        await done
        server().close()

    run(main())


@pytest.mark.skipif(
    not socket.has_ipv6 or not hasattr(socket, "if_nameindex"),
    reason="needs IPv6 and names of interfaces",
)
def test_ipv6_zones(run, loop):
    index, name = socket.if_nameindex()[0]

    async def main():
        for zone in (name, str(index)):
            (found,) = await loop.getaddrinfo(
                f"fe80::1%{zone}", 80, type=socket.SOCK_STREAM
            )
            address = found[4]
            assert address[3] == index
            assert ipaddress.ip_address(address[0]).is_link_local
            assert address[1] == 80

    run(main())


@pytest.mark.parametrize("turn", range(8))
def test_a_cancelled_connect_closes_once(run, loop, turn):
    """A second close would hit whatever got the number in between."""

    async def main():
        with listening_socket() as listener:
            task = loop.create_task(
                loop.create_connection(
                    asyncio.Protocol, *listener.getsockname()
                )
            )
            await turns(turn)
            task.cancel()
            # These take the numbers that a close gives back, turn by turn.
            kept = []
            for _ in range(6):
                kept.extend(os.pipe())
                await asyncio.sleep(0)
            with contextlib.suppress(asyncio.CancelledError):
                transport, _ = await task
                transport.abort()
            await turns(3)
            gc.collect()
            await turns(3)
            inodes = [os.fstat(number).st_ino for number in kept]
            assert len(set(inodes)) == len(kept) // 2
            for number in kept:
                os.close(number)

    run(main())


def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {n: what for n, what in found.items() if "/proc/" not in what}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("with_handler", [False, True])
def test_descriptors_stay_the_same_from_run_to_run(loop, with_handler):
    """The names of pipes have their inodes: a new one shows."""

    async def look():
        await asyncio.sleep(0.0001)
        return descriptors()

    if with_handler:
        loop.add_signal_handler(signal.SIGUSR1, lambda: None)
    first = loop.run_until_complete(look())
    for _ in range(5):
        assert loop.run_until_complete(look()) == first
    if with_handler:
        loop.remove_signal_handler(signal.SIGUSR1)


SLEEPS = 200
SLEEPER = f"""
import asyncio, fastloop

async def main():
    for _ in range({SLEEPS}):
        await asyncio.sleep(0.001)

fastloop.run(main())
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_one_poll_a_turn(tmp_path):
    """With libuv's idle-time metrics on, each wait is a poll and a wait."""
    log = tmp_path / "calls"
    home = str(TOP)
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    # A sanitizer looks for leaks by ptrace, and finds the process traced.
    asan = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    done = subprocess.run(
        [
            *("strace", "-f", "-o", str(log), "-e"),
            "trace=epoll_wait,epoll_pwait,epoll_pwait2",
            *(sys.executable, "-c", SLEEPER),
        ],
        env={**os.environ, "PYTHONPATH": path, "ASAN_OPTIONS": asan},
        capture_output=True,
        text=True,
    )
    if "ptrace" in done.stderr or "PTRACE" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    polls = log.read_text().count("epoll_")
    # The wait for the timer, and a look after it, before the task's step.
    assert SLEEPS <= polls < SLEEPS * 2.5, polls
