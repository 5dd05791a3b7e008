"""add_signal_handler and what signals do to a loop, in this process.

Signals that end a process, and Ctrl-C itself, are tested in isolated/.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time

import pytest
from few_descriptors import few_descriptors

#: Unlike os.kill() it runs no handler itself.
silent_kill = ctypes.PyDLL(None).kill


@contextlib.contextmanager
def python_handler(signum, handler):
    """Install a handler of the signal module; put the old one back."""
    previous = signal.signal(signum, handler)
    try:
        yield
    finally:
        signal.signal(signum, previous)


def test_signal_while_another_loop_has_the_wakeup_fd(loop):
    """Its handler runs before the loop waits; no byte is sent for it."""
    with python_handler(signal.SIGUSR1, lambda *args: loop.stop()):
        loop.call_soon(signal.set_wakeup_fd, -1)
        loop.call_soon(silent_kill, os.getpid(), int(signal.SIGUSR1))
        loop.run_forever()


@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, SystemExit, ZeroDivisionError]
)
def test_exceptions_of_a_python_handler_end_the_sleep(loop, kind, in_thread):
    handled = []

    def handler(signum, frame):
        # In a callback its exception would be the callback's.
        if not handled and frame.f_code.co_name in ("select", "run_forever"):
            handled.append(True)
            raise kind("handler")

    def kill():
        # Again: a signal just before a poll is handled when the poll ends.
        while not handled:
            time.sleep(0.02)
            # One to the process may reach another thread, which may be late.
            signal.pthread_kill(main, signal.SIGUSR1)

    main = threading.main_thread().ident
    far = loop.call_later(1000, print)
    threads = []
    loop.call_soon(lambda: threads.append(in_thread(kill)))
    with python_handler(signal.SIGUSR1, handler):
        with pytest.raises(kind, match="handler"):
            loop.run_forever()
        threads[0].join()
    far.cancel()
    assert not loop.is_running()
    assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5


def test_a_users_wakeup_fd_gets_signals_of_and_after_a_runs_end(loop, pair):
    """The user's descriptor is back between runs."""
    left, right = pair
    with python_handler(signal.SIGUSR1, lambda *a: None):
        signal.set_wakeup_fd(right.fileno())
        loop.call_soon(silent_kill, os.getpid(), int(signal.SIGUSR1))
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert left.recv(10) == bytes([signal.SIGUSR1])
        signal.raise_signal(signal.SIGUSR1)
        assert left.recv(10) == bytes([signal.SIGUSR1])
        assert signal.set_wakeup_fd(-1) == right.fileno()


def test_a_handler_of_another_loop_gets_a_signal_of_a_runs_last_iteration(
    loop, loop_factory
):
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    other = loop_factory()
    other.call_soon(silent_kill, os.getpid(), int(signal.SIGUSR1))
    other.call_soon(other.stop)
    other.run_forever()
    other.close()
    loop.run_forever()


#: More signals than the loop's socket for them takes.
FLOOD = 70_000


def test_a_handler_works_during_and_after_a_flood(loop, monkeypatch):
    ignored, seen = [], []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)

    def flood():
        for _ in range(FLOOD):
            signal.raise_signal(signal.SIGUSR1)

    def send_next():
        loop.add_signal_handler(signal.SIGUSR2, loop.stop)
        signal.raise_signal(signal.SIGUSR2)

    def handle():
        if not seen:
            loop.call_soon(send_next)
        seen.append(1)

    loop.add_signal_handler(signal.SIGUSR1, handle)
    loop.call_soon(flood)
    loop.run_forever()
    for signum in (signal.SIGUSR1, signal.SIGUSR2):
        loop.remove_signal_handler(signum)
    assert 0 < len(seen) < FLOOD
    assert ignored  # Python reports each signal that the socket does not take


def test_a_signal_handler_works_after_one_without_descriptors(loop_factory):
    loop = loop_factory()
    with few_descriptors(), contextlib.suppress(OSError, RuntimeError):
        loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    loop.run_forever()
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_signals_of_a_stopped_loop_do_not_reach_the_next(
    loop, loop_factory, pair
):
    seen = []

    def send():
        signal.raise_signal(signal.SIGUSR1)
        first.add_reader(pair[0], seen.append, "readable")
        first.call_soon(sys.exit)

    first = loop_factory()
    first.add_signal_handler(signal.SIGUSR1, seen.append, "first")
    first.call_soon(send)
    with pytest.raises(SystemExit):
        first.run_forever()
    first.close()
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "second")
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    assert seen == []
