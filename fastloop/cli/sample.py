"""Measures the loop's share of a program's CPU time, by sampling stacks.

asyncio's own loop is Python, so its work can be seen on the stack; that of a
loop in C cannot.  A run on asyncio is stopped each 4 ms of CPU time (SIGPROF),
and the CPU time of the main thread since the last stop is given to what runs:
the loop, if the innermost frame is in asyncio's loop, transports, TLS or
streams, or in what those call (selectors, socket, ssl).  A system call counts
for its caller.

CPython runs a signal's handler only at some instructions: where a function
begins, at a jump back, and behind a call of C.  So a frame that has just begun
did not spend the time: its caller did.  Where the frame is that of a handle,
the call of C was that of the handle's callback.  And behind each call of a
protocol's method a call of C is put into asyncio's transports, so that what
the method did last is not taken for theirs.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import selectors
import signal
import socket
import ssl
import time
from asyncio import selector_events, sslproto, unix_events
from opcode import opmap

from fastloop import _private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType, ModuleType
    from typing import Any

__all__ = ["METHOD", "Sampler"]

METHOD = (
    "The loop's share is that of asyncio's own loop, in runs of their own "
    "that are not among the others: each 4 ms of CPU time the main thread's "
    "stack is looked at, and the time is the loop's if asyncio's loop, "
    "transports, TLS or streams run, the system calls they make included. "
    "What happens before the first loop runs, such as imports, is left out."
)
_EACH_S = 0.004
_PARTS = (
    "base_events",
    "base_subprocess",
    "events",
    "protocols",
    "selector_events",
    "sslproto",
    "streams",
    "transports",
    "trsock",
    "unix_events",
)
_RESUME = opmap["RESUME"]
_HANDLE = asyncio.Handle._run.__code__
_PROTOCOLS = ("_protocol", "_app_protocol")


def _enter(method: Callable[..., Any], *args: Any) -> Any:
    """Call a protocol's method; what it did last is found in this frame."""
    result = method(*args)
    id(None)  # a call of C: a signal's handler runs behind it
    return result


class _Enters(ast.NodeTransformer):
    """Has transports call their protocols by `_enter`."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        called = node.func
        if (
            isinstance(called, ast.Attribute)
            and isinstance(called.value, ast.Attribute)
            and called.value.attr in _PROTOCOLS
        ):
            name = ast.Name(_enter.__name__, ast.Load())
            node.func = ast.copy_location(name, called)
            node.args = [called, *node.args]
        return node


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if inspect.iscode(one):
            yield from _codes(one)


def _enter_protocols(module: ModuleType) -> None:
    """Change the code of a module's methods; without its source, nothing."""
    if hasattr(module, _enter.__name__):
        return
    try:
        tree = _Enters().visit(ast.parse(inspect.getsource(module)))
    except OSError:
        return
    setattr(module, _enter.__name__, _enter)
    new = {
        code.co_qualname: code
        for code in _codes(compile(tree, str(module.__file__), "exec"))
    }
    for _, owner in inspect.getmembers(module, inspect.isclass):
        for method in filter(inspect.isfunction, vars(owner).values()):
            old = method.__code__
            if old.co_filename == module.__file__:
                method.__code__ = new[old.co_qualname]


class Sampler:
    """Adds up CPU time; start and stop may alternate."""

    def __init__(self) -> None:
        folder = os.path.dirname(asyncio.__file__)
        self._loop_files = {f"{folder}/{part}.py" for part in _PARTS}
        self._called_files = {
            module.__file__ for module in (selectors, socket, ssl)
        }
        self._last = self._began = 0.0
        self._running = self._seen = False
        self._loop = self._total = 0.0
        self._looks = 0

    def start(self) -> None:
        """Start sampling; call this in the main thread."""
        for module in (selector_events, sslproto, unix_events):
            _enter_protocols(module)
        self._running = True
        self._last = time.thread_time()
        self._began = time.process_time()
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _EACH_S, _EACH_S)

    def stop(self) -> None:
        """Stop sampling; the sums stay."""
        if self._running:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self._total += time.process_time() - self._began
            self._running = False

    def toggle(self, number: int, frame: FrameType | None) -> None:
        """Start or stop; a handler of signals."""
        (self.stop if self._running else self.start)()

    def report(self) -> dict[str, float]:
        """Stop; return seconds of the loop and of all, and how many looks.

        All are 0 if no loop was ever found running.
        """
        self.stop()
        if not self._seen:
            return {"loop": 0.0, "total": 0.0, "looks": 0}
        total, looks = self._total, self._looks
        return {"loop": self._loop, "total": total, "looks": looks}

    def _look(self, number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        if self._seen:
            self._looks += 1
            self._loop += (now - self._last) * self._is_the_loops(frame)
        elif _private.running_loop() is not None:
            self._seen = True
            self._began = time.process_time()
        self._last = now

    def _is_the_loops(self, frame: FrameType | None) -> bool:
        """Whether the loop ran until this frame came to a safe point."""
        if frame is None:
            return False
        if frame.f_code.co_code[frame.f_lasti] == _RESUME:
            frame = frame.f_back
        elif frame.f_code is _HANDLE:  # a task's end is the program's
            callback = getattr(frame.f_locals["self"], "_callback", None)
            return self._is_loop_code(getattr(callback, "__code__", None))
        while frame and frame.f_code.co_filename in self._called_files:
            frame = frame.f_back
        return frame is not None and self._is_loop_code(frame.f_code)

    def _is_loop_code(self, code: Any) -> bool:
        return getattr(code, "co_filename", None) in self._loop_files
