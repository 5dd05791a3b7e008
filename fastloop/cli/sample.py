"""Measures the loop's share of a program's CPU time, by sampling stacks.

asyncio's own loop is Python, so its work shows on the stack; the work of a
loop in C does not.  SIGPROF interrupts a run on asyncio every 4 ms of CPU
time.  The CPU time of the main thread since the last signal then counts for
the code that runs.  It counts for the loop if the innermost frame is in
asyncio's loop, transports, TLS or streams, or in a module that these call
(selectors, socket, ssl).  A system call counts for its caller.

CPython runs a signal handler only at some instructions: at the beginning of a
function, at a jump backwards, and after a call of a C function.  Hence:

- A frame that has just begun did not spend the time: its caller did.
- In the frame of Handle._run, that C function is Context.run, which calls the
  handle's callback.  So the time counts for the callback.
- A protocol's method may return to asyncio's transport long after the last
  signal.  `_enter` calls a C function before that return, so that the end of
  the method counts for the protocol and not for the transport.
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
    "The loop's share is that of asyncio's own loop, measured in separate "
    "runs: every 4 ms of CPU time the main thread's stack is sampled, and the "
    "time is the loop's if asyncio's loop, transports, TLS or streams run, "
    "including their system calls. What happens before the first loop runs, "
    "such as imports, is left out."
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
    """Call a protocol's method; the end of its time counts for this frame."""
    result = method(*args)
    id(None)  # a call of C, after which CPython runs a signal handler
    return result


class _Enters(ast.NodeTransformer):
    """Makes transports call their protocols through `_enter`."""

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
    """Change the code of a module's methods, if its source can be read."""
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

    def toggle(self, signum: int, frame: FrameType | None) -> None:
        """Start or stop; a handler of signals."""
        (self.stop if self._running else self.start)()

    def report(self) -> dict[str, float]:
        """Stop; return the seconds of the loop, of all code, and the samples.

        All three are 0 if no sample found a running loop.
        """
        self.stop()
        if not self._seen:
            return {"loop": 0.0, "total": 0.0, "looks": 0}
        total, looks = self._total, self._looks
        return {"loop": self._loop, "total": total, "looks": looks}

    def _look(self, signum: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        if self._seen:
            self._looks += 1
            self._loop += (now - self._last) * self._is_the_loops(frame)
        elif _private.running_loop() is not None:
            self._seen = True
            self._began = time.process_time()
        self._last = now

    def _is_the_loops(self, frame: FrameType | None) -> bool:
        """Whether the time before this signal was the loop's."""
        if frame is None:
            return False
        if frame.f_code.co_code[frame.f_lasti] == _RESUME:
            frame = frame.f_back
        elif frame.f_code is _HANDLE:  # a task's step is the program's
            callback = getattr(frame.f_locals["self"], "_callback", None)
            return self._is_loop_code(getattr(callback, "__code__", None))
        while frame and frame.f_code.co_filename in self._called_files:
            frame = frame.f_back
        return frame is not None and self._is_loop_code(frame.f_code)

    def _is_loop_code(self, code: Any) -> bool:
        return getattr(code, "co_filename", None) in self._loop_files
