"""add_signal_handler and what signals do to a loop, in this process.

Signals that end a process, and Ctrl-C itself, are tested in isolated/.
"""

import asyncio
import contextlib
import ctypes
import gc
import os
import signal
import socket
import sys
import threading
import time

import pytest

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


@contextlib.contextmanager
def kill_later(delay, signum=signal.SIGUSR1, loop=None):
    """Send a signal to this process from another thread.

    The delay begins once the loop runs, if one is given.
    """
    runs = threading.Lock()
    if loop is not None:
        runs.acquire()
        loop.call_soon(runs.release)

    def kill():
        with runs:
            time.sleep(delay)
        os.kill(os.getpid(), signum)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_signal_while_another_loop_has_the_wakeup_fd(loop):
    """Its handler runs before the loop waits; no byte is sent for it."""
    with python_handler(signal.SIGUSR1, lambda *args: loop.stop()):
        loop.call_soon(signal.set_wakeup_fd, -1)
        loop.call_soon(silent_kill, os.getpid(), int(signal.SIGUSR1))
        loop.run_forever()


def test_signal_after_another_loop_has_run(loop, loop_factory):
    """Within a callback of the first, which hears signals again later."""

    def run_another():
        asyncio._set_running_loop(None)
        other = loop_factory()
        other.run_until_complete(asyncio.sleep(0))
        other.close()
        asyncio._set_running_loop(loop)

    with python_handler(signal.SIGUSR1, lambda *args: loop.stop()):
        loop.call_soon(run_another)
        loop.call_soon(silent_kill, os.getpid(), int(signal.SIGUSR1))
        loop.run_forever()


def test_close_removes_the_handlers(loop_factory):
    loop = loop_factory()
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGUSR2, print)
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


@pytest.fixture
def signals_in_order():
    """Undo what only the main thread may undo."""
    yield
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def with_handlers(loop):
    """Give a loop signal handlers and a default executor; return this."""
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.add_signal_handler(signal.SIGUSR2, print)
    loop.run_until_complete(loop.run_in_executor(None, int))
    return loop._default_executor


@pytest.fixture
def closed_elsewhere(loop_factory, in_thread, signals_in_order):
    """Return a loop with handlers, which another thread has closed."""
    loop = loop_factory()
    with_handlers(loop)

    def close():
        with pytest.raises(ValueError, match="main thread"):
            loop.close()

    in_thread(close).join()
    assert loop._signal_handlers
    assert loop.is_closed()
    assert loop._default_executor is None
    return loop


def test_the_handlers_of_a_closed_loop_can_be_removed(closed_elsewhere):
    loop = closed_elsewhere
    for number in list(loop._signal_handlers):
        assert loop.remove_signal_handler(number)
        assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.keeps_fds  # the pipe, to which Python may write
@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_with_handlers_that_another_thread_collects_is_closed(
    loop_factory, in_thread, signals_in_order, monkeypatch
):
    raised = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda args: raised.append(args.exc_type)
    )
    loops = [loop_factory()]
    pool = with_handlers(loops[0])
    in_thread(lambda: (loops.clear(), gc.collect())).join()
    assert raised == [ValueError]
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)


@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, SystemExit, ZeroDivisionError]
)
def test_exceptions_of_a_python_handler_end_the_sleep(loop, kind):
    def handler(*args):
        raise kind("handler")

    far = loop.call_later(1000, print)
    with (
        python_handler(signal.SIGUSR1, handler),
        kill_later(0.02, loop=loop),
        pytest.raises(kind, match="handler"),
    ):
        loop.run_forever()
    far.cancel()
    assert not loop.is_running()
    assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5


@contextlib.contextmanager
def users_wakeup_fd():
    """Set a wakeup fd; yield the socket that gets its bytes, and the fd."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    with left, right, python_handler(signal.SIGUSR1, lambda *a: None):
        previous = signal.set_wakeup_fd(right.fileno())
        try:
            yield left, right.fileno()
        finally:
            signal.set_wakeup_fd(previous)


def test_a_users_wakeup_fd_outside_of_runs(loop):
    """The user's descriptor is back, and written to, between runs."""
    with users_wakeup_fd() as (left, fd):
        loop.run_until_complete(asyncio.sleep(0.001))
        signal.raise_signal(signal.SIGUSR1)
        assert left.recv(10) == bytes([signal.SIGUSR1])
        now = signal.set_wakeup_fd(-1)
        assert now == fd


def kill_and_stop(loop, signum):
    """Send a signal in the last iteration of a run."""
    loop.call_soon(silent_kill, os.getpid(), int(signum))
    loop.call_soon(loop.stop)
    loop.run_forever()


def test_a_users_wakeup_fd_gets_a_signal_of_a_runs_last_iteration(loop):
    with users_wakeup_fd() as (left, _):
        kill_and_stop(loop, signal.SIGUSR1)
        assert left.recv(10) == bytes([signal.SIGUSR1])


def test_a_handler_of_another_loop_gets_a_signal_of_a_runs_last_iteration(
    loop, loop_factory
):
    seen = []
    loop.add_signal_handler(signal.SIGUSR1, seen.append, "signal")
    other = loop_factory()
    kill_and_stop(other, signal.SIGUSR1)
    other.close()
    loop.run_until_complete(asyncio.sleep(0.01))
    assert seen == ["signal"]


def test_closing_another_loop_leaves_the_handlers(loop_factory, loop_kind):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's close() takes the wake-up descriptor away")
    old, young = loop_factory(), loop_factory()
    old.add_signal_handler(signal.SIGUSR2, print)
    young.add_signal_handler(signal.SIGUSR1, young.stop)
    old.close()
    with kill_later(0.01):
        young.run_forever()
    young.close()


def test_signals_of_a_stopped_loop_do_not_reach_the_next(loop_factory):
    seen = []
    here, there = socket.socketpair()

    def send():
        signal.raise_signal(signal.SIGUSR1)
        first.add_reader(here, seen.append, "readable")
        first.call_soon(sys.exit)

    first = loop_factory()
    first.add_signal_handler(signal.SIGUSR1, seen.append, "first")
    first.call_soon(send)
    with here, there:
        with pytest.raises(SystemExit):
            first.run_forever()
        first.close()

    second = loop_factory()
    try:
        second.add_signal_handler(signal.SIGUSR1, seen.append, "second")
        for _ in range(3):
            second.run_until_complete(asyncio.sleep(0))
        assert seen == []
        second.call_later(5, second.stop)
        second.add_signal_handler(signal.SIGUSR1, second.stop)
        second.call_soon(signal.raise_signal, signal.SIGUSR1)
        start = second.time()
        second.run_forever()
        assert second.time() - start < 4
    finally:
        second.close()
