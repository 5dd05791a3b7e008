"""Handlers of signals: asyncio's, but the pipe is made when one is added.

A signal interrupts the wait of the loop in the main thread, and Python's
handlers run; that needs nothing of a loop.  A handler of the loop is called
for the byte that Python's C handler writes to the *wakeup descriptor*: the
loop that added a handler last has it, until the last handler of a loop is
removed, or a program sets one of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import types

from . import _private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVarTuple

    _Ts = TypeVarTuple("_Ts")

#: The sockets that Python may write to, and those that read.  Only the main
#: thread can change that: a loop that ends in another one leaves its own open.
_known: dict[Any, Any] = {}


class SignalCalls(_private.LoopPart):
    """The part of ``Loop`` that calls handlers of signals."""

    _signal_handlers: dict[int, Any]
    #: The socket pair for the numbers of signals, and the pid.  A forked child
    #: has its parent's pair, whose bytes are not its.
    _signal_pipe: types.SimpleNamespace | None

    @property
    def _csock(self) -> Any:
        return self._signal_pipe and self._signal_pipe.write

    def add_signal_handler(
        self, sig: int, callback: Callable[[*_Ts], Any], *args: *_Ts
    ) -> None:
        """Call ``callback(*args)`` in the loop when a signal arrives.

        Replaces an earlier handler of the signal.  Raises TypeError for a
        coroutine function and for a ``sig`` that is not an int, ValueError for
        a number out of range, RuntimeError for a signal that cannot be caught,
        outside the main thread, and if the loop is closed.  It is asyncio's
        ``loop.add_signal_handler()``.
        """
        self._check_closed()
        self._have_signal_pipe()
        super().add_signal_handler(sig, callback, *args)

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove a signal's handler and restore the default action.

        Returns True if there was a handler.  Raises TypeError, ValueError and
        RuntimeError as ``add_signal_handler`` does for a bad signal, and
        ValueError outside the main thread, where asyncio fails later.
        Otherwise it is asyncio's ``loop.remove_signal_handler()``.
        """
        self._check_signal(sig)
        in_main = threading.current_thread() is threading.main_thread()
        if sig in self._signal_handlers and not in_main:
            raise ValueError("signal only works in main thread")
        return super().remove_signal_handler(sig)

    def _have_signal_pipe(self) -> None:
        pipe = self._signal_pipe
        if pipe is not None and pipe.pid == os.getpid():
            return
        self._close_signal_pipe()
        read, write = socket.socketpair()
        read.setblocking(False)
        write.setblocking(False)
        self._add_reader(read.fileno(), self._read_signals)
        pipe = types.SimpleNamespace(read=read, write=write, pid=os.getpid())
        self._signal_pipe = pipe
        _known[write] = read

    def _close_signal_pipe(self) -> None:
        pipe, self._signal_pipe = self._signal_pipe, None
        if pipe is not None:
            self._remove_reader(pipe.read.fileno())
            _known.pop(pipe.write)
            for sock in (pipe.read, pipe.write):
                # The application may have closed it, as one of its own.
                with contextlib.suppress(OSError):
                    sock.close()

    def _reinit_after_fork(self) -> None:
        """Have a pipe of its own, before a forked child's first iteration.

        The core calls this.
        """
        pipe = self._signal_pipe
        if pipe is None or pipe.pid == os.getpid():
            return
        self._close_signal_pipe()
        in_main = threading.current_thread() is threading.main_thread()
        if self._signal_handlers and in_main:
            self._have_signal_pipe()
            signal.set_wakeup_fd(self._csock.fileno())

    def _read_signals(self) -> None:
        """The pipe is readable: call the handlers of the signals in it."""
        pipe = self._signal_pipe
        if pipe is not None and pipe.pid == os.getpid():
            try:
                signums = pipe.read.recv(4096)
            except BlockingIOError:
                return
            for signum in signums:
                self._handle_signal(signum)

    def _end_signals(self) -> None:
        """Remove all handlers of a loop that is closed; ValueError elsewhere
        than in the main thread, where the pipe stays open, too.
        """
        if sys.is_finalizing():
            return
        for sig in list(self._signal_handlers or ()):
            self.remove_signal_handler(sig)
        self._close_signal_pipe()


if sys.version_info < (3, 12):
    # In a forked child: its signals are not its parent's.  Later asyncio's.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
