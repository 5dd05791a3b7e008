"""Defects that event loops on libuv have had and that must not come back.

The design names them; a table says which test holds each, and the tests that
have no better place are here.
"""

from __future__ import annotations

import ast
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

TESTS = Path(__file__).resolve().parents[1]
HERE = "behaviour/test_never_again.py"

#: Defect -> the test that would fail with it, as file::function.
DEFECTS = {
    "a protocol_factory exception that stops the listener": (
        "behaviour/test_accept.py::test_a_raising_factory"
    ),
    "Server.close() that leaves serve_forever hanging": (
        "behaviour/test_server_api.py::test_close_ends_serve_forever"
    ),
    "one context shared by all of a server's connections": (
        "behaviour/test_transport_context.py"
        "::test_connections_of_one_server_share_nothing"
    ),
    "signals left installed after close": (
        "behaviour/test_signals.py::test_close_removes_the_handlers"
    ),
    "a low-water mark of 16 bytes": (
        "behaviour/test_flow_control.py::test_default_limits"
    ),
    "env=os.environ refused": f"{HERE}::test_os_environ_as_a_childs_env",
    "remove_reader returning None": (
        "behaviour/test_fd_watchers.py::test_remove_tells_whether_it_removed"
    ),
    "a dropped Unix server closed by the collector": (
        f"{HERE}::test_a_dropped_unix_server_goes_on"
    ),
    "transports that are not asyncio.Transport": (
        "lint/test_surface.py::test_transport"
    ),
    "handles that are not asyncio.Handle": (
        "lint/test_surface.py::test_handles"
    ),
    "IPv6 zones lost in getaddrinfo": f"{HERE}::test_ipv6_zones",
    "sockets closed twice when a connect is cancelled": (
        f"{HERE}::test_a_cancelled_connect_closes_once"
    ),
    "a user's descriptor left non-blocking by add_reader": (
        "behaviour/test_fd_watchers.py::test_blocking_flag_is_left_as_it_was"
    ),
    "a wake-up pipe made anew for each run_until_complete": (
        f"{HERE}::test_descriptors_stay_the_same_from_run_to_run"
    ),
    "two polls a turn (UV_METRICS_IDLE_TIME)": f"{HERE}::test_one_poll_a_turn",
    "SQPOLL threads made behind the user's back": (
        "isolated/test_sqpoll.py::test_no_polling_thread"
    ),
}

#: Traps of libuv -> tests.
TRAPS = {
    "a number is not a socket: closed under a watch, and reused": (
        "behaviour/test_fd_watchers.py"
        "::test_close_without_remove_then_reuse_of_the_number"
    ),
    "a number is not a socket: reused after a wait": (
        "behaviour/test_sockets.py"
        "::test_a_waiting_socket_then_a_transport_on_the_same_number"
    ),
    "a number is not a socket: a dup lives on, nothing spins": (
        "behaviour/test_fd_dups.py::test_removed_while_a_dup_lives"
    ),
    "a number is not a socket: reused while a dup lives": (
        "behaviour/test_fd_dups.py"
        "::test_number_closed_and_reused_while_a_dup_lives"
    ),
    "a number is not a socket: a child has it too": (
        "behaviour/test_fd_dups.py"
        "::test_child_process_keeps_the_descriptor_open"
    ),
    "get_buffer that ends the connection": (
        "behaviour/test_buffered_protocol.py"
        "::test_ending_the_connection_inside_get_buffer"
    ),
    "get_buffer that pauses": (
        "behaviour/test_buffered_protocol.py::test_pausing_inside_get_buffer"
    ),
    "get_buffer that raises": (
        "behaviour/test_buffered_protocol.py::test_get_buffer_raises"
    ),
    "uv_poll_init sets O_NONBLOCK": (
        "behaviour/test_fd_watchers.py::test_blocking_flag_is_left_as_it_was"
    ),
    "uv_poll_init sets O_NONBLOCK on a pipe": (
        "behaviour/test_fd_watchers.py::test_blocking_flag_of_a_pipe"
    ),
    "SQPOLL: the user's environment is put back": (
        "isolated/test_sqpoll.py::test_no_polling_thread"
    ),
    "SQPOLL: who asks for it gets it": (
        "isolated/test_sqpoll.py::test_a_user_who_asks_for_io_uring_gets_it"
    ),
    "a delayed EPOLL_CTL_DEL": (
        "behaviour/test_fd_watchers.py::test_remove_stops_before_it_returns"
    ),
}


@pytest.mark.parametrize("defect", [*DEFECTS, *TRAPS])
def test_each_has_its_test(defect):
    path, _, name = {**DEFECTS, **TRAPS}[defect].partition("::")
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    functions = {
        n.name: n
        for n in tree.body
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in functions, f"{defect}: no {name} in {path}"
    checks = (ast.Assert, ast.Raise, ast.With)
    assert any(isinstance(n, checks) for n in ast.walk(functions[name]))


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
    home = str(TESTS.parent)
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
