"""Addresses and arguments: what a socket and asyncio say is what is right.

Four kinds of input: literals of addresses, addresses to send to, names of
Unix sockets, and calls with arguments by position and by name.  Nothing here
asks a resolver, and nothing leaves the machine.
"""

from __future__ import annotations

import asyncio
import contextvars
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from harness import Run, Tape, check, note, one_iteration

import fastloop
from fastloop import _core

INSTRUMENTED = ["fastloop.loop", "fastloop.connections"]
MOST_BYTES = 200
PARTS = (
    """127.0.0.1 ::1 . : 0 1 7 255 256 f ffff % lo 1 x \0 é ٣ 0x7f 127. ::
::ffff: ::ffff:127.0.0.1 0.0.0.0 fe80:: - /8 + 00 _""".split()
    + [" ", "\ud800"]
)
LITERALS = (
    "127.0.0.1",
    "::1",
    "127.9.9.9",
    "::ffff:127.0.0.1",
    "::",
    "1.2.3.4",
)
PORTS = (0, 1, 80, 65535, 65536, -1, 1 << 70, "80", "", "x", b"80", None)
PORTS += (True, 1.0, "0x50", "-1")
NUMERIC = socket.AI_NUMERICHOST
#: By the length of a literal address.
FAMILIES = {2: socket.AF_INET, 4: socket.AF_INET6}
#: asyncio reads the tuple itself, which a subclass may answer otherwise.
TUPLES = (tuple, tuple, tuple, tuple, list, type("Own", (tuple,), {}))


class Name(str):
    """A str that may be anything."""


def outcome(call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """Return a result, or the type and errno of what was raised."""
    try:
        return call(*args, **named)
    except Exception as exc:
        return type(exc), getattr(exc, "errno", None)


def host(tape: Tape) -> Any:
    kind = tape.byte()
    if kind < 16:
        return tape.pick((None, b"::1", 1, "", Name("127.0.0.1")))
    if kind < 32:
        return tape.bytes(20).decode("latin1")
    if kind < 128:
        return tape.pick(LITERALS)
    return "".join(tape.pick(PARTS) for _ in range(1 + kind % 8))


def numbers(tape: Tape) -> Any:
    return tape.pick((0, 1, 0xFFFFF, 0x100000, 2**32 - 1, 2**32, -1, "0"))


def address(tape: Tape, name: Any, port: Any) -> Any:
    more = (numbers(tape) for _ in range(tape.pick((0, 0, 0, 2, 2, 1, 3))))
    return tape.pick(TUPLES)((name, port, *more))


class Target:
    """What all inputs share."""

    def __init__(self) -> None:
        self.loop: Any = fastloop.new_event_loop()
        self.plain: Any = asyncio.SelectorEventLoop()
        # A resolver's thread is not what is looked at.
        self.loop.run_in_executor = self.at_once
        self.reports: list[Any] = []
        self.loop.set_exception_handler(
            lambda _, context: self.reports.append(context["exception"])
        )
        self.errors: list[Any] = []
        self.sockets = {
            family: self.bound(family, where)
            for family, where in (
                (socket.AF_INET, "127.0.0.1"),
                (socket.AF_INET6, "::"),
            )
        }
        self.near, self.far = socket.socketpair()

    def at_once(self, _: Any, call: Any, *args: Any) -> Any:
        future = self.loop.create_future()
        try:
            future.set_result(call(*args))
        except Exception as exc:
            future.set_exception(exc)
        return future

    @staticmethod
    def bound(family: int, where: str) -> tuple[socket.socket, socket.socket]:
        pair = []
        for _ in range(2):
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.bind((where, 0))
            sock.setblocking(False)
            pair.append(sock)
        return pair[0], pair[1]

    # -- literals ------------------------------------------------------------

    def literal(self, tape: Tape) -> None:
        name, port = host(tape), tape.pick(PORTS)
        more = {
            "family": tape.pick((0, socket.AF_INET, socket.AF_INET6, 99)),
            "type": tape.pick((0, socket.SOCK_STREAM, socket.SOCK_DGRAM, 99)),
            "proto": tape.pick((0, socket.IPPROTO_TCP, 99)),
            "flags": NUMERIC | tape.pick((0, socket.AI_PASSIVE, 8, 1 << 40)),
        }
        note("literal", name, port, more)
        wanted = repr(outcome(socket.getaddrinfo, name, port, **more))
        # The second answer is a stored one, and nobody else's list.
        for _ in range(2):
            found = outcome(
                self.loop.run_until_complete,
                self.loop.getaddrinfo(name, port, **more),
            )
            check(repr(found) == wanted, name, port, more, found, wanted)
            if isinstance(found, list):
                found.clear()
        full = address(tape, name, port)
        note("is_literal", full)
        wanted = self.is_literal(full)
        if _core.is_literal(FAMILIES.get(len(full), 0), full):
            check(wanted, "is no literal", full)
        elif wanted:  # the socket takes the rest of a number that is too large
            check(not all(0 <= one < 1 << 32 for one in full[1:]), full)

    @staticmethod
    def is_literal(full: Any) -> bool:
        """Whether a socket takes it without a resolver."""
        family = FAMILIES.get(len(full))
        if type(full) is not tuple or type(full[0]) is not str or not family:
            return False
        if not all(type(one) is int for one in full[1:]):
            return False
        if type(outcome(socket.inet_pton, family, full[0])) is not bytes:
            return False
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            found = outcome(sock.connect, full)  # sends nothing
            return not (found and found[0] in (OverflowError, TypeError))

    # -- datagrams -----------------------------------------------------------

    def send(self, tape: Tape) -> None:
        family = tape.pick((socket.AF_INET, socket.AF_INET6))
        source, drain = self.sockets[family]
        name = host(tape)
        port = tape.pick((drain.getsockname()[1], *PORTS))
        full = address(tape, name, port)
        try:
            found = socket.getaddrinfo(name, 1, flags=NUMERIC)[0][4][0]
            inside = ipaddress.ip_address(found.split("%")[0])
            inside = getattr(inside, "ipv4_mapped", None) or inside
            if not inside.is_loopback:
                return
        except Exception:
            if isinstance(name, str | bytes) and not _core.is_literal(
                family, full
            ):
                return
        note("send", full)
        while not isinstance(outcome(drain.recv, 9), tuple):
            pass
        wanted = outcome(source.sendto, b"a", full)
        arrived = outcome(drain.recvfrom, 9)
        dup = source.dup()
        self.errors, self.reports = [], []
        transport, _ = self.loop.run_until_complete(
            self.loop.create_datagram_endpoint(lambda: self, sock=dup)
        )
        error = outcome(transport.sendto, b"a", full)
        found = outcome(drain.recvfrom, 9)
        check(found == arrived, full, found, arrived)
        if isinstance(wanted, tuple):
            errors = self.errors or self.reports or [error]
            kinds = [(type(e), getattr(e, "errno", None)) for e in errors]
            check(wanted in (*kinds, error), full, wanted, kinds, error)
        else:
            check(not self.errors and not self.reports and error is None)
        transport.abort()
        one_iteration(self.loop)
        one_iteration(self.loop)

    def connection_made(self, transport: Any) -> None:
        pass

    def connection_lost(self, exc: Any) -> None:
        pass

    def error_received(self, exc: Any) -> None:
        self.errors.append(exc)

    # -- Unix ----------------------------------------------------------------

    def unix(self, tape: Tape) -> None:
        """The name of whom a datagram is from."""
        name = b"\0fuzz" + tape.bytes(110)
        near, far = (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in "ab"
        )
        got: list[Any] = []
        self.datagram_received = lambda _, sender: got.append(sender)
        with near, far:
            near.bind("")
            if outcome(far.bind, name) is not None:
                return
            transport, _ = self.loop.run_until_complete(
                self.loop.create_datagram_endpoint(lambda: self, sock=near)
            )
            own = transport.get_extra_info("sockname")
            check(own == near.getsockname(), own)
            far.sendto(b"x", own)
            while not got:
                one_iteration(self.loop)
            check(got == [name], got, name)
            transport.sendto(b"answer", got[0])
            check(far.recvfrom(9) == (b"answer", own))
            transport.abort()
            one_iteration(self.loop)
            one_iteration(self.loop)

    # -- arguments -----------------------------------------------------------

    def call(self, tape: Tape) -> None:
        """The same call on both loops; which refuses it, and how."""
        method = tape.pick(METHODS)
        values = (*VALUES, self.near, self.near.fileno())
        args = [tape.pick(values) for _ in range(tape.byte() % 5)]
        named: dict[str, Any] = {}
        for _ in range(tape.byte() % 4):
            keyword = tape.pick(KEYWORDS)
            named[keyword] = tape.pick(
                CONTEXTS if keyword == "context" else values
            )
        note(method, args, named)
        results = []
        for loop in (self.plain, self.loop):
            found = outcome(getattr(loop, method), *args, **named)
            if isinstance(found, asyncio.Handle):
                found.cancel()
                found = "a handle"
            results.append(found)
            loop.remove_reader(self.near)
            loop.remove_writer(self.near)
            one_iteration(loop)
        self.plain._scheduled.clear()  # which a bad time has spoilt
        early = results == ["a handle", (TypeError, None)]
        if early and method in ("call_later", "call_at"):
            return  # asyncio refuses the time when it compares it
        check(results[0] == results[1], method, args, named, results)


def called(*args: Any, **named: Any) -> None:
    """A callback."""


METHODS = """call_soon call_soon_threadsafe call_later call_at add_reader
add_writer remove_reader remove_writer""".split()
KEYWORDS = ("callback", "context", "delay", "when", "fd", "x", "é")
VALUES = (called, None, 0.0, 0, -1, 1e9, "s", b"b", 1 << 70, True)
CONTEXTS = (None, contextvars.copy_context())


def start() -> Run:
    """Return what runs an input."""
    target = Target()
    kinds = (target.literal, target.send, target.unix, target.call)

    def run(tape: Tape) -> None:
        while tape:
            tape.pick(kinds)(tape)

    return run
