"""Every public method of every object, with arguments that call back.

The loop, its handles, servers, transports, readers and sockets are in one
pool.  An input calls their methods, sets and deletes their attributes, with
arguments out of the pool, out of edge cases, and out of objects whose special
methods do the next steps of the input.  There is no model: any exception is
right but SystemError, and so is any order.  What must hold is that the
process lives, that no sanitizer reports, and that each object is freed when
the loop is closed and the pool is emptied.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import inspect
import logging
import signal
import socket
import sys
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from harness import DEPTH, Run, Tape, check, note
from tls_memory_link import contexts, one_iteration

import fastloop.loop

PARTS = "loop", "_loop.connections", "_loop.sockets"
INSTRUMENTED = [f"fastloop.{part}" for part in PARTS]
MOST_BYTES = 600
#: Some methods cache what they made up.
CHECKS_MEMORY = False
#: Methods that wait for other threads, start processes or block.
LEFT_OUT = {
    "close_clients",
    "print_stack",
    "run_forever",
    "run_in_executor",
    "run_until_complete",
    "serve_forever",
    "shutdown_default_executor",
    "start_serving",
    "subprocess_exec",
    "subprocess_shell",
}
_NUMBERS = (
    *(-1, 0, 1, True, 2**16, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 2**64),
    *(-(2**63), 1 << 70, -0.0, 1e-9, 0.5, -1.0, 1e300),
    *(float("inf"), float("nan")),
)
#: Values, not objects of the loop: bytearray.ljust(2**31) only takes memory,
#: as does list.extend() of what says that it is so long.
_PLAIN = (int, float, str, bytes, bytearray, tuple, list, dict)
_TEXTS = ("", "x", "localhost", "127.0.0.1", "::1", "socket", "\ud800", "a\0b")
_SPECIAL = (
    *("__index__", "__float__", "__int__", "__len__", "__iter__", "__next__"),
    *("__bool__", "__hash__", "__eq__", "__str__", "__repr__", "__fspath__"),
    *("__call__", "__await__", "__add__", "__radd__", "__sub__", "__rsub__"),
    *("__lt__", "__getitem__", "__contains__", "__del__", "__bytes__"),
)


class Odd:
    """An argument whose special methods do the next steps of the input."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def fileno(self) -> Any:
        """Be a file, whose descriptor may change."""
        self.case.nested("fileno")
        return self.case.tape.pick((*self.case.fds(), -1, None, 1 << 40))


def _special(name: str) -> Callable[..., Any]:
    def method(self: Odd, *args: Any) -> Any:
        case = self.case
        case.nested(name)
        if name == "__next__" and not case.tape:  # an input is finite
            raise StopIteration
        if name == "__hash__":  # CPython leaks a result that is no integer
            return int(case.tape.byte())
        return case.tape.pick(
            (
                *(case.value, case.number, lambda: self, lambda: None),
                *(lambda: iter(()), lambda: 0, lambda: "x", case.fail),
            )
        )()

    return method


for _name in _SPECIAL:
    setattr(Odd, _name, _special(_name))


class Interrupt(KeyboardInterrupt):
    """Ctrl-C in a callback: it ends the run, and is no finding."""


#: What a call may raise; beside SystemError, which is a finding.
ALLOWED = (Exception, asyncio.CancelledError, Interrupt)


class OddProtocol(asyncio.Protocol):
    """Does the next steps of the input in each of its callbacks."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def connection_made(self, transport: Any) -> None:
        """Keep the transport, but not from the pool's end on."""
        self.case.add(transport)
        self.case.nested("made")

    def eof_received(self) -> Any:
        """Say what becomes of the connection."""
        self.case.nested("eof")
        return self.case.tape.pick((None, True))


def _next_steps(name: str) -> Callable[..., None]:
    return lambda self, *args: self.case.nested(name)


for _name in (
    *("connection_lost", "data_received", "datagram_received"),
    *("error_received", "pause_writing", "resume_writing", "buffer_updated"),
):
    setattr(OddProtocol, _name, _next_steps(_name))


class OddBuffered(OddProtocol, asyncio.BufferedProtocol):  # type: ignore[misc]
    """The same, with a buffer of its own."""

    def get_buffer(self, sizehint: int) -> Any:
        """Return a buffer, or what is none."""
        self.case.nested("get_buffer")
        return self.case.tape.pick(
            (bytearray(64), bytearray(1), bytearray(), memoryview(b"xx"), None)
        )


class Case:
    """A loop and a pool of what it made."""

    def __init__(self, tape: Tape) -> None:
        self.tape, self.depth, self.steps = tape, 0, 0
        self.loop: Any = fastloop.new_event_loop()
        self.loop.set_exception_handler(self.reported)
        self.broken: list[Any] = []
        self.executor = ThreadPoolExecutor(1)
        self.loop.set_default_executor(self.executor)
        self.pool: list[Any] = [self.loop]
        self.peers: list[socket.socket] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.freed: list[weakref.ref[Any]] = []

    def add(self, thing: Any) -> None:
        """Put something into the pool, at most 40 of them."""
        if thing is None or isinstance(thing, _PLAIN):
            return
        # A new list: another thread may read the old one.
        self.pool = [self.loop, *self.pool[1:][-39:], thing]
        if _is_ours(type(thing)):
            try:
                self.freed.append(weakref.ref(thing))
            except TypeError:
                pass

    def reported(self, loop: Any, context: dict[str, Any]) -> None:
        """Keep a SystemError out of a callback."""
        if isinstance(context.get("exception"), SystemError):
            self.broken.append(context)

    def fds(self) -> list[int]:
        """Return the descriptors that an input may name."""
        return [peer.fileno() for peer in self.peers] or [-1]

    # -- arguments ------------------------------------------------------------

    def number(self) -> Any:
        """Return a number at an edge, or a descriptor."""
        return self.tape.pick((*_NUMBERS, *self.fds()))

    def text(self) -> Any:
        """Return a text."""
        return self.tape.pick(_TEXTS)

    def data(self) -> Any:
        """Return bytes, as one of the types that hold them."""
        data = b"x" * self.tape.size()
        kind = self.tape.pick((bytes, bytearray, memoryview, self.cut, list))
        return kind(data)

    @staticmethod
    def cut(data: bytes) -> memoryview:
        """Return a view whose bytes are not beside each other."""
        return memoryview(data)[::2]

    def size(self) -> int:
        """Return a size."""
        return self.tape.size()

    def thing(self) -> Any:
        """Return something out of the pool."""
        return self.tape.pick(self.pool)

    def peer(self) -> Any:
        """Return a socket that no transport has."""
        return self.tape.pick((*self.peers, None))

    def odd(self) -> Any:
        """Return what calls back."""
        return Odd(self)

    def callback(self) -> Any:
        """Return what the loop may call."""
        return lambda *args: self.nested("callback")

    def several(self) -> Any:
        """Return a collection of values."""
        kind = self.tape.pick((list, tuple, iter))
        return kind([self.value() for _ in range(self.tape.byte() % 4)])

    def fail(self) -> Any:
        """Raise one of what may be raised."""
        raise self.tape.pick(
            (
                *(ValueError, OSError, MemoryError, BlockingIOError),
                *(StopIteration, Interrupt),
            )
        )

    def value(self) -> Any:
        """Return an argument."""
        kinds = (self.number, self.text, self.data, self.thing, self.peer)
        more = (self.odd, self.callback, self.several, lambda: None)
        factory = (lambda: lambda: OddProtocol(self),)
        return self.tape.pick((*kinds, *more, *factory))()

    # -- steps ----------------------------------------------------------------

    def nested(self, where: str) -> None:
        """Do some steps within a call."""
        note("called", where)
        if self.tape and self.depth < DEPTH:
            self.depth += 1
            try:
                for _ in range(self.tape.byte() % 3):
                    self.step()
                if self.tape.byte() % 16 == 0:
                    self.fail()
            finally:
                self.depth -= 1

    def step(self) -> None:
        """Do what the input says next; any exception is right."""
        self.steps += 1
        op = self.tape.byte() % 31
        try:
            if op < 14:
                self.call()
            elif op < 17:
                self.open()
            elif op < 20:
                self.peer_step()
            elif op < 26 and self.depth == 0 and not self.loop.is_closed():
                self.run()
            elif op < 28:
                self.attribute()
            elif op == 28:
                gc.collect()
            elif op == 29 and len(self.pool) > 1:
                gone = 1 + self.tape.byte() % (len(self.pool) - 1)
                self.pool = self.pool[:gone] + self.pool[gone + 1 :]
            elif op == 30 and self.tape.byte() % 8 == 0:
                self.loop.close()
        except SystemError:
            raise
        except ALLOWED as exc:
            note("raised", type(exc))

    def call(self) -> None:
        """Call a method of something."""
        thing = self.thing()
        names = _methods(type(thing))
        if not names:
            return
        name = self.tape.pick(names)
        method = getattr(thing, name)
        args, words = self.arguments(method)
        note("call", type(thing), name, *map(type, args), *words)
        self.keep(method(*args, **words))

    def arguments(self, method: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return arguments for a method: mostly what it takes."""
        tape = self.tape
        if tape.byte() % 8 == 0:
            return [self.value() for _ in range(tape.byte() % 5)], {}
        args: list[Any] = []
        words: dict[str, Any] = {}
        for name, kind, needed in _parameters(method):
            if not needed and tape.byte() % 4:
                continue
            fits = tape.byte() % 8 and _FITTING.get(name)
            value = fits(self) if fits else self.value()
            if kind == inspect.Parameter.KEYWORD_ONLY or (
                not needed and kind != inspect.Parameter.POSITIONAL_ONLY
            ):
                words[name] = value
            else:
                args.append(value)
        return args, words

    def keep(self, result: Any) -> None:
        """Keep a result; begin it if it is a coroutine."""
        if asyncio.iscoroutine(result):
            if self.loop.is_closed() or self.tape.byte() % 8 == 0:
                result.close()
                return
            result = self.begin(result)
        self.add(result)

    def begin(self, coro: Any) -> asyncio.Task[Any]:
        """Run a coroutine as a task, whatever makes the loop's tasks."""
        task = asyncio.Task(coro, loop=self.loop)
        self.tasks.append(task)
        return task

    def attribute(self) -> None:
        """Read, set or delete an attribute of something."""
        thing = self.thing()
        name = self.tape.pick(dir(type(thing)))
        how = self.tape.byte() % 4
        if name in ("__class__", "__dict__") or thing is self.loop:
            return
        # repr() of a task in another thread crashed free-threaded 3.13.
        if not _is_ours(type(thing)):
            return
        note("attribute", how, type(thing), name)
        if how == 0:
            setattr(thing, name, self.value())
        elif how == 1:
            delattr(thing, name)
        else:
            repr(thing)
            getattr(thing, name)

    def peer_step(self) -> None:
        """An end without a loop sends, receives or closes."""
        if not self.peers:
            return
        peer = self.tape.pick(self.peers)
        how = self.tape.byte() % 8
        note("peer", how)
        if how < 4:
            peer.send(b"\n" * self.tape.size(), socket.MSG_DONTWAIT)
        elif how < 6:
            # The flag: with threads, another one may close the peer and open
            # a pair of the same fd, which blocks until it is set up.
            peer.recv(1 << 17, socket.MSG_DONTWAIT)
        elif how == 6:
            peer.shutdown(socket.SHUT_WR)
        else:
            self.peers = [one for one in self.peers if one is not peer]
            peer.close()

    def open(self) -> None:
        """Begin a transport, a server or a pair of streams."""
        loop, tape = self.loop, self.tape
        factory = tape.pick((OddProtocol, OddBuffered))
        protocol = lambda: factory(self)  # noqa: E731
        near, far = self.pair(socket.SOCK_STREAM)
        kind = tape.byte() % 9
        note("open", kind)
        if kind < 2:
            made = loop.create_connection(protocol, sock=near)
        elif kind == 2:
            made = loop.connect_accepted_socket(protocol, near)
        elif kind == 3:
            made = asyncio.open_connection(sock=near)
        elif kind == 4:
            made = self.open_tls(protocol, near, far)
        elif kind == 5:
            made = loop.create_datagram_endpoint(
                protocol, sock=self.pair(socket.SOCK_DGRAM)[0]
            )
        elif kind == 6:
            made = loop.connect_read_pipe(protocol, near)
        elif kind == 7:
            made = loop.connect_write_pipe(protocol, near)
        else:
            made = loop.create_server(protocol, "127.0.0.1", 0)
        task = self.begin(made)
        self.add(task)
        task.add_done_callback(self.opened)

    def open_tls(self, protocol: Any, near: Any, far: Any) -> Any:
        """Begin TLS at both ends of a pair."""
        self.peers = [one for one in self.peers if one is not far]
        server, client = _contexts
        accepting = self.loop.connect_accepted_socket(
            protocol, far, ssl=server
        )
        task = self.begin(accepting)
        task.add_done_callback(self.opened)
        return self.loop.create_connection(
            protocol, sock=near, ssl=client, server_hostname="localhost"
        )

    def opened(self, task: asyncio.Task[Any]) -> None:
        """Put what was opened into the pool."""
        if task.cancelled() or task.exception() is not None:
            return
        result = task.result()
        for one in result if isinstance(result, tuple) else (result,):
            self.add(one)

    def pair(self, kind: int) -> tuple[socket.socket, socket.socket]:
        """Return two connected sockets; the second one is the peer's."""
        near, far = socket.socketpair(socket.AF_UNIX, kind)
        near.setblocking(False)
        far.setblocking(False)
        self.peers = [*self.peers, far]
        while len(self.peers) > 12:
            first, *self.peers = self.peers
            first.close()
        return near, far

    def run(self) -> None:
        """Run the loop for one iteration."""
        one_iteration(self.loop)

    def finish(self) -> None:
        """Close all, and see that all is freed."""
        self.tape.at = len(self.tape.data)
        if not self.loop.is_closed():
            cancels = [task.cancel for task in self.tasks]
            for end in (*cancels, self.run, self.run, self.run):
                try:
                    end()
                except SystemError:
                    raise
                except ALLOWED as exc:
                    note("raised", type(exc))
        self.loop.close()
        self.executor.shutdown()
        for peer in self.peers:
            peer.close()
        check(not self.broken, "SystemError", self.broken)
        self.pool.clear()
        self.tasks.clear()
        self.peers.clear()


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith("fastloop")


#: What the parameters of these names take.
_FITTING: dict[str, Callable[[Case], Any]] = {
    **dict.fromkeys(("callback", "fn", "handler", "func"), Case.callback),
    **dict.fromkeys(("data", "buf"), Case.data),
    **dict.fromkeys(("fd", "sock", "file", "pipe"), Case.peer),
    **dict.fromkeys(("high", "low", "limit", "n", "bufsize"), Case.size),
    **dict.fromkeys(("nbytes", "offset", "count", "backlog"), Case.size),
    **dict.fromkeys(("ssl", "sslcontext"), lambda case: _contexts[0]),
    "context": lambda case: contextvars.copy_context(),
    "delay": lambda case: case.tape.byte() / 1e5,
    "exc": lambda case: ValueError(),
    "name": lambda case: case.tape.pick(("socket", "cipher", "peername")),
    "list_of_data": lambda case: [case.data() for _ in range(3)],
    "protocol": lambda case: OddProtocol(case),
    "protocol_factory": lambda case: lambda: OddBuffered(case),
    "separator": lambda case: b"\n",
    "sig": lambda case: case.tape.pick((signal.SIGUSR1, signal.SIGUSR2)),
    "server_hostname": lambda case: "localhost",
    "transport": Case.thing,
    "when": lambda case: case.loop.time() + case.tape.byte() / 1e5,
}
_contexts = contexts()
_known: dict[type, list[str]] = {}
_signatures: dict[str, list[tuple[str, Any, bool]]] = {}


def _methods(kind: type) -> list[str]:
    """Return the names of a type's public methods."""
    if kind not in _known:
        # A second __init__ of CPython's own Task leaks.
        special = ("__repr__", "__init__" if _is_ours(kind) else "")
        _known[kind] = [
            name
            for name in dir(kind)
            if (not name.startswith("_") or name in special)
            and name not in LEFT_OUT
            and callable(getattr(kind, name, None))
        ]
    return _known[kind]


def _parameters(method: Any) -> list[tuple[str, Any, bool]]:
    """Return names and kinds of parameters, and whether each is needed."""
    known = getattr(method, "__func__", method)
    name = getattr(known, "__qualname__", "")
    if name not in _signatures:
        try:
            found = inspect.signature(method).parameters.values()
        except (TypeError, ValueError):
            return []
        _signatures[name] = [
            (one.name, one.kind, one.default is one.empty)
            for one in found
            if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        ]
    return _signatures[name]


def start() -> Run:
    """Leave out what is written to logs and to standard error."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    set_action = signal.signal

    def set_user_action(sig: Any, action: Any) -> None:
        # The default action of others would end this process: of SIGPIPE at a
        # write to a closed socket, of SIGALRM at libFuzzer's next alarm.
        if sig not in (signal.SIGUSR1, signal.SIGUSR2):
            raise OSError(errno.EINVAL, "not for an input")
        set_action(sig, action)

    def no_names(*args: Any, **words: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    socket.getaddrinfo = socket.getnameinfo = no_names
    unraised = sys.unraisablehook

    def hook(info: Any) -> None:
        if isinstance(info.exc_value, SystemError):
            unraised(info)

    def run(tape: Tape) -> None:
        sys.unraisablehook = hook
        signal.signal = set_user_action  # atheris has set its own by now
        case = Case(tape)
        while tape:
            case.step()
        case.finish()
        freed = case.freed
        del case
        for _ in range(3):  # finalizers bring back what the first one found
            gc.collect()
        left = [one() for one in freed if one() is not None]
        check(not left, "not freed", left)

    return run
