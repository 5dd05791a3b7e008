"""Handlers of signals: add_signal_handler() and remove_signal_handler().

A signal interrupts the wait of the loop in the main thread, and Python's
handlers run; that needs nothing of a loop.  A handler of the loop is called
for the byte that Python's C handler writes to the *wakeup descriptor*: while a
loop has handlers, that is the write end of its pipe.  As in asyncio, of
several loops with handlers the last that added one has the descriptor, and a
program that sets one of its own takes it away.

Python may write to the pipe as long as it knows the descriptor.  Only the main
thread can change that, so a loop that another thread closes keeps its pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
import sys
import threading
import types
import warnings
from asyncio import events

from . import _private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, TypeVarTuple

    _Ts = TypeVarTuple("_Ts")

#: The least descriptor of a pipe.  Among lower ones it could get one that the
#: application has closed and closes again, or removes from the loop late.
_FIRST_FD = 512


#: The descriptor that a loop has set as the wakeup descriptor, or -1.
_wakeup_fd = -1


def _move_up(fd: int) -> int:
    """Move a descriptor up to _FIRST_FD, unless the limit is lower."""
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD)
    except OSError:
        return fd
    os.close(fd)
    return moved


def _set_wakeup_fd(fd: int) -> None:
    global _wakeup_fd
    # A callback that takes long may let the pipe fill with signals.  The bytes
    # of further ones are dropped, as the loop wakes all the same.
    signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    _wakeup_fd = fd


def _unset_wakeup_fd(fd: int) -> None:
    """Let Python write to fd no more, unless another loop's is set by now."""
    global _wakeup_fd
    if fd == _wakeup_fd:
        signal.set_wakeup_fd(-1)
        _wakeup_fd = -1


def _ignore_signal(signum: int, frame: FrameType | None) -> None:
    """Handle a signal: do nothing, as the wakeup descriptor tells the loop."""


def _set_signal(sig: int, handler: Any) -> None:
    """Call signal.signal(); RuntimeError for what cannot be caught."""
    try:
        signal.signal(sig, handler)
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            raise RuntimeError(f"sig {sig} cannot be caught") from None
        raise


class SignalCalls(_private.LoopPart):
    """The part of ``Loop`` that calls handlers of signals."""

    _signal_handlers: dict[int, events.Handle]
    #: The pipe for the numbers of signals: its two descriptors, and the pid.
    #: A forked child has its parent's pipe, whose bytes are not its.
    _signal_pipe: types.SimpleNamespace | None

    def add_signal_handler(
        self, sig: int, callback: Callable[[*_Ts], Any], *args: *_Ts
    ) -> None:
        """Call ``callback(*args)`` in the loop when a signal arrives.

        Replaces an earlier handler of the signal.  Raises TypeError for a
        coroutine function and for a ``sig`` that is not an int, ValueError for
        a number out of range, RuntimeError for a signal that cannot be caught,
        outside the main thread, and if the loop is closed.  Implements
        asyncio's ``loop.add_signal_handler()``.
        """
        is_function = _private.is_coroutine_function(callback)
        if is_function or asyncio.iscoroutine(callback):
            raise TypeError(
                "coroutines cannot be used with add_signal_handler()"
            )
        self._check_signal(sig)
        self._check_closed()
        self._claim_wakeup_fd()
        self._signal_handlers[sig] = events.Handle(callback, args, self, None)
        try:
            _set_signal(sig, _ignore_signal)
            # System calls that the signal interrupts are restarted.
            signal.siginterrupt(sig, False)
        except (OSError, RuntimeError):
            del self._signal_handlers[sig]
            self._release_wakeup_fd()
            raise

    def remove_signal_handler(self, sig: int) -> bool:
        """Remove a signal's handler and restore the default action.

        Returns True if there was a handler.  Raises TypeError, ValueError and
        RuntimeError as ``add_signal_handler`` does for a bad signal.
        Implements asyncio's ``loop.remove_signal_handler()``.
        """
        self._check_signal(sig)
        if sig not in self._signal_handlers:
            return False
        if sig == signal.SIGINT:
            _set_signal(sig, signal.default_int_handler)
        else:
            _set_signal(sig, signal.SIG_DFL)
        # After that, which fails in other threads than the main one.
        del self._signal_handlers[sig]
        self._release_wakeup_fd()
        return True

    def _claim_wakeup_fd(self) -> None:
        """Have Python write to this loop's pipe; RuntimeError if it does not.

        Set anew for each handler, as in asyncio: another loop or the program
        may have set another descriptor meanwhile.
        """
        self._close_parents_pipe()
        pipe = self._signal_pipe or self._open_signal_pipe()
        try:
            _set_wakeup_fd(pipe.write_fd)
        except (ValueError, OSError) as exc:
            if not self._signal_handlers:
                self._close_signal_pipe()
            raise RuntimeError(str(exc)) from None

    def _release_wakeup_fd(self) -> None:
        """Release the wakeup descriptor, if no handler is left."""
        if self._signal_pipe is not None and not self._signal_handlers:
            _unset_wakeup_fd(self._signal_pipe.write_fd)
            if self.is_closed():
                self._close_signal_pipe()

    def _open_signal_pipe(self) -> types.SimpleNamespace:
        """Open the pipe, and have it read."""
        read_fd, write_fd = map(_move_up, os.pipe())
        pipe = types.SimpleNamespace(
            read_fd=read_fd, write_fd=write_fd, pid=os.getpid()
        )
        self._signal_pipe = pipe
        try:
            os.set_blocking(pipe.read_fd, False)
            os.set_blocking(pipe.write_fd, False)
            self._add_reader(pipe.read_fd, self._read_signals)
        except BaseException:
            self._close_signal_pipe()
            raise
        return pipe

    def _close_signal_pipe(self) -> None:
        pipe = self._signal_pipe
        if pipe is None:
            return
        self._signal_pipe = None
        if not self.is_closed():
            self._remove_reader(pipe.read_fd)
        for fd in (pipe.read_fd, pipe.write_fd):
            # The application may have closed it, as one of its own.
            with contextlib.suppress(OSError):
                os.close(fd)

    def _close_parents_pipe(self) -> None:
        """Close a pipe that was inherited; a forked child does not read it."""
        pipe = self._signal_pipe
        if pipe is not None and pipe.pid != os.getpid():
            self._close_signal_pipe()

    def _reinit_after_fork(self) -> None:
        """Have a pipe of its own, before a forked child's first iteration.

        The core calls this.
        """
        self._close_parents_pipe()
        in_main = threading.get_ident() == threading.main_thread().ident
        if self._signal_handlers and in_main:
            self._claim_wakeup_fd()

    def _read_signals(self) -> None:
        """The pipe is readable: call the handlers of the signals in it."""
        while (pipe := self._signal_pipe) and pipe.pid == os.getpid():
            try:
                signums = os.read(pipe.read_fd, 4096)
            except BlockingIOError:
                return
            if not signums:  # the application has closed the other end
                self._remove_reader(pipe.read_fd)
                return
            for signum in signums:
                self._handle_signal(signum)

    def _end_signals(self) -> None:
        """Remove all handlers of a loop that is closed; ValueError elsewhere.

        Elsewhere than in the main thread the pipe stays open, too.
        """
        if self._signal_handlers and sys.is_finalizing():
            warnings.warn(
                f"Closing the loop {self!r} on interpreter shutdown stage, "
                "skipping signal handlers removal",
                ResourceWarning,
                stacklevel=3,
                source=self,
            )
            self._signal_handlers.clear()
            return
        for sig in list(self._signal_handlers or ()):
            self.remove_signal_handler(sig)
        self._release_wakeup_fd()


def _drop_inherited_wakeup_fd() -> None:
    """In a forked child: its signals are not its parent's."""
    if _wakeup_fd >= 0:
        _unset_wakeup_fd(_wakeup_fd)


os.register_at_fork(after_in_child=_drop_inherited_wakeup_fd)
