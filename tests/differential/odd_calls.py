"""Each public method with each odd argument: the same outcome on both loops.

The methods and their parameters are those of asyncio's objects.  One argument
of a call is odd, and the others are usual ones.  An outcome is what the call
returns or raises, what the protocol is called with, what is reported, and the
object's state some iterations later.  Texts of exceptions are left out.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import contextvars
import decimal
import functools
import inspect
import math
import os
import pathlib
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent))

import fastloop  # noqa: E402

#: Seconds that a coroutine may take, in each attempt to see a difference: a
#: machine that does other work is slow.
PATIENCE = (0.003, 0.03, 0.3)
#: Methods that end the run, and those that wait for other systems.
LEFT_OUT = {
    *("close", "stop", "run_forever", "run_until_complete", "getaddrinfo"),
    *(
        "getnameinfo",
        "call_exception_handler",
        "shutdown_default_executor",
        "shutdown_asyncgens",
    ),
    *("create_server", "create_connection", "create_datagram_endpoint"),
    *("create_unix_server", "create_unix_connection", "get_loop"),
    # asyncio's own run does not end with some of their values.
    *("create_task", "set_debug", "set_task_factory", "set_default_executor"),
}
#: What docs/differences.md lists, or what asyncio does by mistake: the method,
#: and the odd values; none: each of them.
ALLOWED: dict[str, set[str]] = {
    # A time that is no real number: asyncio fails in the run.
    "loop.call_at": set(),
    # Any number that is not below 2^63, or not whole.
    "set_write_buffer_limits": {"huge", "inf", "decimal"},
    # asyncio ends the connection by a BufferError, or a TypeError.
    "write": {"strided", "ints view", "2d view"},
    # asyncio joins the pieces, or iterates over them later.
    "writelines": {
        "released",
        "future",
        "context",
        "strided",
        "2d view",
        "done future",
        # From 3.12 on asyncio takes them for no pieces.
        *("None", "0"),
    },
    # A number of any type; asyncio fails in the run from 3.13 on, or at once.
    "call_later": {"nan", "decimal", "index"},
    # asyncio 3.12 and 3.13 keep what a closed transport gets, and later ones
    # do not look at it.
    "stream closed.writelines": set(),
    # asyncio sends by a socket that it has closed.
    "datagrams closed.sendto": set(),
    # Its number is that of an fd, which the loops have for different files.
    "add_reader": {"signal"},
    "add_writer": {"signal"},
    # asyncio compares their length with a number of bytes, and never ends.
    "sock_sendall": {"ints", "ints view", "2d view"},
    # Any object that has __index__.
    "reader.readexactly": {"index", "inf", "-inf"},
}
if sys.version_info[:2] in ((3, 12), (3, 13)):
    # Their writelines() goes on after the end (gh-155888).
    ALLOWED["closing stream.writelines"] = set()


class Recorder(asyncio.Protocol, asyncio.DatagramProtocol):
    """Notes the calls of its methods in a list that it shares."""

    def __init__(self, events: list[str] | None = None) -> None:
        self.events: list[str] = [] if events is None else events

    def connection_made(self, transport: Any) -> None:
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.events.append(f"data {data!r}")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.events.append(f"datagram {data!r}")

    def error_received(self, exc: Exception) -> None:
        self.events.append(f"error {type(exc).__name__}")

    def eof_received(self) -> None:
        self.events.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append(f"lost {type(exc).__name__}")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")


class Index:
    def __index__(self) -> int:
        return 1


class Text(str):
    pass


class Socket(socket.socket):
    pass


class Case:
    """What one call needs, on one loop."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop
        self.events: list[str] = []
        self.kept = contextlib.ExitStack()
        self.object: Any = None

    def keep(self, thing: Any) -> Any:
        """Close it in the end."""
        self.kept.callback(thing.close)
        return thing

    def protocol(self) -> Recorder:
        return Recorder(self.events)

    def socket(self) -> socket.socket:
        """Return an end of a pair that can be read."""
        near, far = map(self.keep, socket.socketpair())
        near.setblocking(False)
        far.send(b"hello\n")
        return near

    def listener(self) -> socket.socket:
        made = self.keep(socket.create_server(("127.0.0.1", 0)))
        made.setblocking(False)
        return made

    def datagrams(self) -> socket.socket:
        made = self.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.setblocking(False)
        return made

    def pipe(self, writes: bool = False) -> Any:
        ends = os.pipe()
        modes = ("rb", "wb")
        files = [
            self.keep(os.fdopen(fd, mode, 0))
            for fd, mode in zip(ends, modes, strict=True)
        ]
        return files[writes]

    def file(self) -> Any:
        return self.keep(open(__file__, "rb"))

    def coroutine(self) -> Any:
        async def one() -> int:
            return 1

        return self.keep(one())

    def future(self, value: Any = None) -> Any:
        future = self.loop.create_future()
        if value is not None:
            future.set_result(value)
        return future

    def closed_socket(self) -> socket.socket:
        made = socket.socket()
        made.close()
        return made

    def blocking_socket(self) -> socket.socket:
        near, _far = map(self.keep, socket.socketpair())
        return near

    def subclassed_socket(self) -> socket.socket:
        made = self.keep(Socket(fileno=self.socket().detach()))
        made.setblocking(False)
        return made


def released() -> memoryview:
    view = memoryview(b"ab")
    view.release()
    return view


Value = Callable[[Case], Any]
ODD: dict[str, Value] = {
    **{
        repr(value): lambda case, value=value: value
        for value in (None, True, -1, 0, 1, 1.5, 70000, "127.0.0.1", "", b"")
    },
    "nan": lambda case: math.nan,
    "inf": lambda case: math.inf,
    "-inf": lambda case: -math.inf,
    "huge": lambda case: 10**30,
    "decimal": lambda case: decimal.Decimal("0.5"),
    "index": lambda case: Index(),
    "surrogate": lambda case: "\udc80",
    "nul": lambda case: "a\0b",
    "text": lambda case: Text("127.0.0.1"),
    "bytes": lambda case: b"ab",
    "bytearray": lambda case: bytearray(b"abc"),
    "strided": lambda case: memoryview(b"abcd")[::2],
    "ints": lambda case: array.array("i", [1, 2]),
    "ints view": lambda case: memoryview(array.array("i", [1, 2])),
    "2d view": lambda case: memoryview(bytes(4)).cast("B", (2, 2)),
    "released": lambda case: released(),
    "object": lambda case: object(),
    "list": lambda case: [b"a", b"b"],
    "list of int": lambda case: [1],
    "dict": lambda case: {},
    "address": lambda case: ("127.0.0.1", 1),
    "named port": lambda case: ("127.0.0.1", "http"),
    "iterator": lambda case: iter([b"x", b"y"]),
    "closed socket": Case.closed_socket,
    "blocking socket": Case.blocking_socket,
    "socket": Case.socket,
    "listener": Case.listener,
    "datagrams": Case.datagrams,
    "subclassed socket": Case.subclassed_socket,
    "coroutine": Case.coroutine,
    "function": lambda case: lambda *args: None,
    "partial": lambda case: functools.partial(list),
    "future": Case.future,
    "done future": lambda case: case.future(5),
    "protocol": lambda case: Recorder(),
    "class": lambda case: int,
    "path": lambda case: pathlib.Path("/nonexistent/x"),
    "file": Case.file,
    "context": lambda case: contextvars.copy_context(),
    "signal": lambda case: signal.SIGKILL,
    "exception": lambda case: ValueError("x"),
    "exception class": lambda case: ValueError,
}

#: What the parameters of these names usually take.
USUAL: dict[str, Value] = {
    **dict.fromkeys(
        ("callback", "func", "fn"),
        lambda case: lambda *args: case.events.append("called"),
    ),
    **dict.fromkeys(("fd", "sock"), Case.socket),
    **dict.fromkeys(("n", "nbytes", "bufsize", "limit"), lambda case: 5),
    **dict.fromkeys(
        ("executor", "handler", "factory", "addr", "mode"), lambda case: None
    ),
    "delay": lambda case: 0,
    "when": lambda case: case.loop.time(),
    "sig": lambda case: signal.SIGUSR1,
    "protocol_factory": lambda case: case.protocol,
    "protocol": Case.protocol,
    "pipe": Case.pipe,
    "future": lambda case: case.future(5),
    "data": lambda case: b"data",
    "buf": lambda case: bytearray(10),
    "address": lambda case: case.listener().getsockname(),
    "list_of_data": lambda case: [b"a", b"b"],
    "transport": lambda case: case.object,
    "file": Case.file,
    "sslcontext": lambda case: None,
    "name": lambda case: "socket",
    "context": lambda case: {"message": "hello"},
    "separator": lambda case: b"\n",
    "exc": lambda case: ValueError("x"),
    "offset": lambda case: 0,
}


# -- objects ------------------------------------------------------------------


async def make_stream(case: Case) -> Any:
    made = case.loop.create_connection(case.protocol, sock=case.socket())
    return (await made)[0]


async def make_closing_stream(case: Case) -> Any:
    stream = await make_stream(case)
    stream.write(bytes(500_000))
    stream.close()
    return stream


async def make_datagrams(case: Case) -> Any:
    made = case.loop.create_datagram_endpoint(
        case.protocol, local_addr=("127.0.0.1", 0)
    )
    return (await made)[0]


async def closed(made: Any) -> Any:
    thing = await made
    thing.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return thing


async def make_reader(case: Case, which: int) -> Any:
    pair = await asyncio.open_connection(sock=case.socket())
    case.kept.callback(pair[1].close)
    return pair[which]


async def make_pipe(case: Case, writes: bool) -> Any:
    kind = "connect_write_pipe" if writes else "connect_read_pipe"
    made = getattr(case.loop, kind)(case.protocol, case.pipe(writes))
    return (await made)[0]


async def at_once(thing: Any) -> Any:
    return thing


OBJECTS: dict[str, Callable[[Case], Any]] = {
    "loop": lambda case: at_once(case.loop),
    "handle": lambda case: at_once(case.loop.call_soon(list)),
    "timer": lambda case: at_once(case.loop.call_later(0.01, list)),
    "stream": make_stream,
    "closing stream": make_closing_stream,
    "stream closed": lambda case: closed(make_stream(case)),
    "datagrams": make_datagrams,
    "datagrams closed": lambda case: closed(make_datagrams(case)),
    "server": lambda case: case.loop.create_server(
        case.protocol, "127.0.0.1", 0
    ),
    "reader": lambda case: make_reader(case, 0),
    "writer": lambda case: make_reader(case, 1),
    "read pipe": lambda case: make_pipe(case, False),
    "write pipe": lambda case: make_pipe(case, True),
}


# -- calls --------------------------------------------------------------------

#: An argument: the parameter, the odd value's name or "", by keyword or not.
Argument = tuple[str, str, bool]


def kind_of(value: Any) -> str:
    """Return what is compared of a result."""
    for kind in (
        *(asyncio.TimerHandle, asyncio.Handle, asyncio.Future),
        *(asyncio.AbstractServer, asyncio.BaseTransport, socket.socket),
    ):
        if isinstance(value, kind):
            return kind.__name__
    if value is None or isinstance(value, (bool, bytes)):
        return repr(value)
    return type(value).__name__


def state_of(thing: Any) -> dict[str, str]:
    """Return what a transport or another object says of itself."""
    found = {}
    for name in (
        *("is_closing", "is_reading", "can_write_eof", "cancelled", "done"),
        *("is_serving", "at_eof", "get_write_buffer_size"),
    ):
        if not isinstance(thing, asyncio.AbstractEventLoop):
            with contextlib.suppress(AttributeError):
                method = getattr(thing, name)
                with contextlib.suppress(NotImplementedError):
                    found[name] = str(method())
    if "get_write_buffer_size" in found:  # what the kernel took is a race
        found["get_write_buffer_size"] = str(
            found["get_write_buffer_size"] != "0"
        )
    return found


async def outcome_of(
    case: Case, call: tuple[str, str, list[Argument]], patience: float
) -> list[Any]:
    """Make the call, and look some iterations later."""
    name, method, arguments = call
    case.object = thing = await OBJECTS[name](case)
    args, words = [], {}
    for parameter, odd, keyword in arguments:
        value = (ODD[odd] if odd else USUAL[parameter])(case)
        if keyword:
            words[parameter] = value
        else:
            args.append(value)
    case.events.append("call")
    try:
        result = getattr(thing, method)(*args, **words)
        if inspect.isawaitable(result):
            async with asyncio.timeout(patience):
                result = await result
        answer = kind_of(result)
    except Exception as exc:
        answer = f"raised {type(exc).__name__}"
    for _ in range(4):
        await asyncio.sleep(0)
    return [answer, case.events[:], state_of(thing)]


def outcome(
    make_loop: Callable[[], Any],
    call: tuple[str, str, list[Argument]],
    patience: float,
) -> list[Any]:
    """Return the outcome of a call on a new loop, with its reports."""
    loop = make_loop()
    reports: list[str] = []
    loop.set_exception_handler(
        lambda loop, context: reports.append(
            # asyncio calls the run() of any context.
            type(context.get("exception")).__name__.replace(
                "Attribute", "Type"
            )
        )
    )
    case = Case(loop)
    try:
        found: list[Any]
        try:
            found = loop.run_until_complete(outcome_of(case, call, patience))
        except Exception as exc:
            found = [f"left the run by {type(exc).__name__}"]
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)
        case.kept.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        with contextlib.suppress(Exception):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    return [*found, reports]


def parameters(method: Any) -> tuple[list[str], list[tuple[str, bool]]]:
    """Return the required ones, and the optional ones with how to pass one."""
    required, optional = [], []
    for one in inspect.signature(method).parameters.values():
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            continue
        if one.default is one.empty:
            required.append(one.name)
        else:
            optional.append((one.name, one.kind != one.POSITIONAL_ONLY))
    return required, optional


def calls_of(method: Any) -> Iterator[list[Argument]]:
    """Yield the arguments of each call."""
    required, optional = parameters(method)
    usual: list[Argument] = [(name, "", False) for name in required]
    yield usual
    if usual:
        yield usual[:-1]
    for at, name in enumerate(required):
        for odd in ODD:
            yield [*usual[:at], (name, odd, False), *usual[at + 1 :]]
    for name, keyword in optional:
        for odd in ODD:
            yield [*usual, (name, odd, keyword)]


def methods_of(name: str) -> dict[str, list[list[Argument]]]:
    """Return the calls of an object's public methods, as asyncio has them."""
    loop = asyncio.SelectorEventLoop()
    case = Case(loop)
    thing = loop.run_until_complete(OBJECTS[name](case))
    found = {}
    for method in dir(thing):
        function = getattr(thing, method)
        if method.startswith(("_", "subprocess")) or method in LEFT_OUT:
            continue
        if callable(function):
            required, _ = parameters(function)
            if all(parameter in USUAL for parameter in required):
                found[method] = list(calls_of(function))
    case.kept.close()
    loop.close()
    return found


def is_allowed(name: str, method: str, arguments: list[Argument]) -> bool:
    """Whether asyncio's outcome may be another one."""
    odds = {odd for _, odd, _ in arguments if odd}
    if method.startswith("sock_") and odds & {"blocking socket", "listener"}:
        return True  # which blocks both loops
    for key in (f"{name}.{method}", method):
        allowed = ALLOWED.get(key)
        if allowed is not None and (not allowed or odds & allowed):
            return True
    return False


def differs(name: str, method: str, arguments: list[Argument]) -> str:
    """Return what differs in a call's outcome, or nothing."""
    call = (name, method, arguments)
    for patience in PATIENCE:
        theirs = outcome(asyncio.SelectorEventLoop, call, patience)
        ours = outcome(fastloop.new_event_loop, call, patience)
        if theirs[0] == "raised NotImplementedError":
            return ""  # early releases lack methods that later ones have
        if len(ours) == len(theirs) == 4:
            # Early releases of 3.11 have is_reading() in fewer classes.
            ours[2] = {name: ours[2].get(name) for name in theirs[2]}
        if ours == theirs:
            return ""
    return f"asyncio {theirs}, fastloop {ours}"


def main() -> int:
    """Make the calls of the objects that the command line names."""
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda info: None  # of what a call leaves behind
    calls = found = 0
    for name in sys.argv[1:] or OBJECTS:
        for method, all_arguments in methods_of(name).items():
            for arguments in all_arguments:
                if is_allowed(name, method, arguments):
                    continue
                calls += 1
                text = differs(name, method, arguments)
                if text:
                    found += 1
                    print(f"{name}.{method} {arguments}: {text}")
    print(f"{calls} calls, {found} differ")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
