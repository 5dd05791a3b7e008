"""Both TLS engines: records that are cut, spoiled, lost, in each phase.

Two filters talk in memory.  An input says what carries bytes between them, in
which pieces, and what the applications and the transports below do meanwhile,
also from within callbacks, from calls of the transports and from methods of a
class in place of ssl.SSLObject.  Whatever happens, what one end has got is
the beginning of what the other wrote, no plain byte is sent, and protocols
are called in asyncio's order.

unit/test_tls_programs.py runs the corpus and inputs made at random.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import random
import ssl
from typing import Any
from unittest import mock

from harness import DEPTH, Run, Spoiled, Tape, act, check, note
from tls_memory_link import CERTS, Raw, contexts, one_iteration

import fastloop
from fastloop._loop import _tls

#: What an engine that calls libssl itself still asks of an SSLObject, and
#: what is asked of one with a read() and a write() of its own.  Not unwrap():
#: data in the midst of it is an error of CPython's.
ASKED = ("do_handshake", "getpeercert", "cipher", "compression")
OWN_METHODS = ((), ASKED, (*ASKED, "read", "write"))

INSTRUMENTED = ["fastloop._loop._tls"]
MOST_BYTES = 400
PLAIN = b"".join(b"plain%08d|" % at for at in range(40_000))
SIZES = (1, 5, 16, 100, 600, 1 << 14, 1 << 20)


class Below(Raw):
    """A transport that ends as asyncio's do, and reads only when it may."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case = case
        self.closing = self.paused = self.eof = False
        self.tls: Any = None

    def write(self, data: Any) -> None:
        data = bytes(data)
        check(b"|plain" not in data and b"plain0" not in data, "plain text")
        if not self.closing:
            self.sent += data
        self.case.call_back("below", "write")

    def pause_reading(self) -> None:
        self.paused = True
        self.case.call_back("below", "pause")

    def resume_reading(self) -> None:
        self.paused = False
        self.case.call_back("below", "resume")

    def close(self) -> None:
        self.end(None)

    def abort(self) -> None:
        self.end(None)

    def _force_close(self, exc: BaseException | None) -> None:
        self.end(exc)

    def is_closing(self) -> bool:
        return self.closing

    def end(self, exc: BaseException | None) -> None:
        if not self.closing:
            self.closing = True
            self.case.loop.call_soon(self.tls.connection_lost, exc)


class App:
    """What both kinds of protocol of an end do."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.transport: Any = None
        self.got = self.written = self.needed = 0  # bytes
        self.lost = self.closed = self.full = self.eof = False
        self.was_plain = False

    def act(self, *name: Any) -> None:
        act(self.case, self.lost, self.case.apps.index(self), *name)

    def take(self, data: bytes) -> None:
        side = self.case.apps.index(self)
        # Where the transport below has ended no answer can be plain text.
        known = self.transport is not None or self.case.ends[side][1].closing
        check(known, "data before connection_made")
        at = self.got
        self.got += len(data)
        peer = self.case.apps[1 - side]
        check(PLAIN[at : at + len(data)] == data, "wrong bytes")
        check(self.got <= peer.written, "more bytes than were written")
        self.act("data", len(data))

    def connection_made(self, transport: Any) -> None:
        check(self.transport is None, "made twice")
        self.transport = transport
        self.act("made")

    def upgraded(self, waiter: asyncio.Future[None]) -> None:
        """As the task that awaits start_tls(): no data came before."""
        at = self.case.apps.index(self)
        failed = waiter.cancelled() or waiter.exception() is not None
        # As on asyncio the waiter succeeds, and the protocol is not told, if
        # the transport below was closed during the handshake.
        lost = self.lost or self.case.ends[at][0]._transport is None
        if not (failed or lost):
            self.connection_made(self.case.tops[at])

    def connection_lost(self, exc: BaseException | None) -> None:
        check(self.transport is not None or self.was_plain, "lost before made")
        check(not self.lost, "lost twice")
        self.lost = True
        self.act("lost")

    def eof_received(self) -> bool:
        check(not self.eof, "two ends")
        self.eof = True
        self.act("eof")
        return False

    def pause_writing(self) -> None:
        check(not self.full, "paused twice")
        self.full = True
        self.act("pause")

    def resume_writing(self) -> None:
        check(self.full, "resumed, not paused")
        self.full = False
        self.act("resume")


class Plain(App, asyncio.Protocol):
    """Is given bytes."""

    def data_received(self, data: bytes) -> None:
        self.take(data)


class Buffered(App, asyncio.BufferedProtocol):
    """Lends memory."""

    def get_buffer(self, hint: int) -> bytearray:
        tape = self.case.tape
        self.buffer = bytearray(tape.pick(SIZES[:-1]) if tape else 1 << 16)
        self.act("buffer")
        return self.buffer

    def buffer_updated(self, size: int) -> None:
        self.take(bytes(self.buffer[:size]))


#: As FL_TLS_HOLD_ITERATIONS: after so many, data of start_tls() is delivered.
HOLD_ITERATIONS = 5
#: The steps that use the application's transport.
USES = (4, 5, 9, 10, 11, 13)


class Case:
    """Two ends, and the steps of an input."""

    def __init__(
        self, loop: Any, pair: Any, tape: Tape, own: tuple[str, ...] = ()
    ) -> None:
        self.loop, self.tape, self.rough, self.own = loop, tape, False, own
        self.depth = DEPTH  # nothing is nested before both have begun
        self.ends: list[Any] = []
        self.apps: list[Any] = []
        self.tops: list[Any] = []  # the applications' transports
        for side, context in enumerate(pair):
            app = tape.pick((Plain, Buffered))(self)
            waiter = loop.create_future()
            upgraded = tape.pick((False, True))
            if own:
                context.sslobject_class = self.class_that_calls_back()
            tls = _tls.open_adapter(
                loop,
                app,
                context,
                waiter,
                server_side=side == 0,
                server_hostname="localhost" if side else None,
                call_connection_made=not upgraded,
            )
            context.sslobject_class = ssl.SSLObject
            if upgraded:
                app.was_plain = True
                waiter.add_done_callback(app.upgraded)
            below = Below(self)
            below.tls = tls
            self.apps.append(app)
            self.ends.append((tls, below, waiter))
            self.tops.append(tls._app_transport)
        for tls, below, _ in reversed(self.ends):
            tls.connection_made(below)
        self.depth = 0

    def call_back(self, *call: Any) -> None:
        """Do something from within a call that is no protocol's, perhaps."""
        depth = self.depth
        try:
            if self.own:
                act(self, False, *call)
        except Spoiled:  # a protocol's, which is no finding here
            self.depth = depth

    def class_that_calls_back(self) -> Any:
        """Return a class of an application's in place of ssl.SSLObject."""

        def calling(name: str) -> Any:
            real = getattr(ssl.SSLObject, name)

            def method(tls: Any, *args: Any) -> Any:
                self.call_back("before", name)
                try:
                    return real(tls, *args)
                finally:
                    self.call_back("after", name)

            return method

        methods = {name: calling(name) for name in self.own}
        return type("CallsBack", (ssl.SSLObject,), methods)

    def give(self, side: int, most: int) -> bool:
        """Carry bytes to an end, at most so many; whether there were any."""
        tls, below, _ = self.ends[side]
        other = self.ends[1 - side][1]
        sent = other.sent
        if below.closing or below.paused or below.eof:
            return False
        if not sent:
            other.closing and self.give_end(side)
            return False
        size = min(most, len(sent), 65536)
        data = sent[:size]
        del sent[:size]
        note("give", side, size)
        try:
            tls.data_received(data)
        except Spoiled as exc:
            below.end(exc)  # as a transport does
        return True

    def give_end(self, side: int) -> None:
        tls, below, _ = self.ends[side]
        note("eof", side)
        below.eof = True
        if not tls.eof_received():
            below.close()

    def carry(self) -> None:
        for _ in range(100_000):
            some = [self.give(side, 1 << 20) for side in (0, 1)]
            if self.depth == 0:
                one_iteration(self.loop)
            if not any(some) and (self.depth or not self.loop._ready):
                return
        check(False, "they talk for ever")

    def spoil(self, side: int) -> None:
        sent, tape = self.ends[side][1].sent, self.tape
        if not sent:
            return
        self.rough = True
        at = (tape.byte() << 8 | tape.byte()) % len(sent)
        how = tape.byte() % 4
        note("spoil", side, how, at)
        if how == 0:
            sent[at] ^= 1 << tape.byte() % 8
        elif how == 1:
            del sent[at : at + tape.size()]
        elif how == 2:
            sent[at:at] = tape.bytes()
        else:  # not all of it: 20 times would be a million times as much
            sent[at:at] = sent[at : at + 65536]

    def write(self, side: int) -> None:
        app, tape = self.apps[side], self.tape
        transport = self.tops[side]
        sizes = [tape.size() for _ in range(tape.byte() % 4)]
        if app.written + sum(sizes) > len(PLAIN) // 2:
            return
        parts = []
        for size in sizes:
            parts.append(PLAIN[app.written : app.written + size])
            app.written += size
        if not (app.closed or transport.is_closing()):
            app.needed = app.written
        note("write", side, sizes)
        if len(parts) == 1:
            transport.write(
                tape.pick((bytes, bytearray, memoryview))(parts[0])
            )
        else:
            transport.writelines(parts)

    def below(self, side: int) -> None:
        """Have the transport below do something."""
        tls, below, _ = self.ends[side]
        how = self.tape.byte() % 8
        note("below", side, how)
        if below.closing:
            return
        if how < 3:
            tls.pause_writing()
        elif how < 6:
            tls.resume_writing()
        elif how == 6 and not below.eof:
            self.rough = True
            self.give_end(side)
        elif how == 7:
            self.rough = True
            below.end(self.tape.pick((None, ConnectionResetError())))

    def end(self, side: int) -> None:
        tls, below, _ = self.ends[side]
        transport = self.tops[side]
        how = self.tape.byte() % 8
        note("end", side, how)
        self.apps[side].closed = True
        # In a handshake it drops what was written.
        self.rough |= how >= 4 or self.apps[side].transport is None
        if how < 4:
            return transport.close()
        if how == 4:
            transport.abort()
        elif how == 5:
            transport._force_close(ConnectionAbortedError())
        elif how == 6:
            _tls.handshake_timed_out(tls)
        elif not below.closing:
            _tls.shutdown_timed_out(tls)

    def look(self, side: int) -> None:
        tls, _, _ = self.ends[side]
        transport, tape = self.tops[side], self.tape
        how = tape.byte() % 8
        note("look", side, how)
        if how == 0:
            transport.set_write_buffer_limits(tape.size())
        elif how == 1:
            transport.set_read_buffer_limits(tape.size())
        elif how == 2:
            repr(transport), repr(tls), tls._state
        elif how == 3:
            gc.collect()
        elif how == 4:
            check(transport.get_write_buffer_size() >= 0)
            check(transport.get_read_buffer_size() >= 0)
        elif how == 5:
            found = transport.get_extra_info("ssl_object")
            found and (found.version(), found.cipher(), found.pending())
        elif how == 6 and self.apps[side].transport:
            self.swap(side)

    def swap(self, side: int) -> None:
        """Give an end another protocol, which goes on with what was got."""
        old = self.apps[side]
        if self.own and self.depth:
            return  # a read into the old one's buffer may be under way
        new = self.tape.pick((Plain, Buffered))(self)
        for name in ("transport", "got", "written", "needed", "lost"):
            setattr(new, name, getattr(old, name))
        new.closed, new.full, new.eof = old.closed, old.full, old.eof
        # connection_lost of the old one may be queued by now.
        if not self.ends[side][1].closing:
            old.transport.set_protocol(new)
            self.apps[side] = new

    def step(self) -> None:
        """Do what the input says next."""
        op = self.tape.byte()
        side, op = op & 1, op >> 1 & 15
        app, transport = self.apps[side], self.tops[side]
        if op < 4:
            self.give(side, self.tape.pick(SIZES))
        elif op in USES and app.was_plain and app.transport is None:
            pass  # start_tls() has not returned it to the program yet
        elif op < 6:
            self.write(side)
        elif op == 6:
            self.carry()
        elif op == 7:
            self.spoil(side)
        elif op == 8:
            self.below(side)
        elif op == 9:
            self.end(side)
        elif op == 10:
            note("pause", side)
            transport.pause_reading()
        elif op == 11:
            note("resume", side)
            transport.resume_reading()
        elif op == 12 and self.depth == 0:
            one_iteration(self.loop)
        elif op == 13:
            self.look(side)

    def finish(self) -> None:
        """Bring it to an orderly end, and see that nothing is missing."""
        self.tape.at = len(self.tape.data)
        for _ in range(HOLD_ITERATIONS):
            for app, (tls, below, _) in zip(self.apps, self.ends, strict=True):
                # A program gets the transport when start_tls() returns.
                if app.transport is not None:
                    app.transport.resume_reading()
                if not below.closing:
                    tls.resume_writing()
            one_iteration(self.loop)
            self.carry()
        for side, app in enumerate(self.apps):
            peer = self.apps[1 - side]
            if not (self.rough or app.closed or app.lost):
                check(app.got >= peer.needed, "bytes are missing", side)
        for top, (_, below, _) in zip(self.tops, self.ends, strict=True):
            top.abort()
            below.end(None)
        for _ in range(4):
            one_iteration(self.loop)
        for app, (_, _, waiter) in zip(self.apps, self.ends, strict=True):
            check(app.lost or app.transport is None, "not lost")
            check(waiter.done(), "nobody tells the waiter")
            waiter.cancelled() or waiter.exception()


def pairs() -> list[tuple[ssl.SSLContext, ssl.SSLContext]]:
    """Return a server's and a client's context, for each way to agree."""
    found = [contexts() for _ in range(4)]
    found[1][0].maximum_version = ssl.TLSVersion.TLSv1_2
    found[2][0].verify_mode = ssl.CERT_REQUIRED
    found[2][0].load_verify_locations(CERTS / "ca.pem")
    found[2][1].load_cert_chain(CERTS / "client.pem", CERTS / "client.key")
    found[3] = (found[3][0], ssl.create_default_context())
    return found


def repeatable_keys() -> Any:
    """Have OpenSSL's random numbers come from a seed, which is returned."""
    source = random.Random()
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)

    @kind
    def fill(memory: int, size: int) -> int:
        ctypes.memmove(memory, source.randbytes(size), size)
        return 1

    status = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1)
    # seed, bytes, cleanup, add, pseudorand, status
    address = [ctypes.cast(f, ctypes.c_void_p).value for f in (fill, status)]
    fields = (0, address[0], 0, 0, address[0], address[1])
    method = (ctypes.c_void_p * 6)(*fields)
    ctypes.CDLL("libcrypto.so.3").RAND_set_rand_method(method)
    source.kept = (fill, status, method)  # type: ignore[attr-defined]
    return source


def runner(loops: list[Any]) -> Run:
    """Return what runs an input, with a loop for each engine."""
    reports: list[Any] = []

    def report(loop: Any, context: Any) -> None:
        note("reported", context.get("exception"))
        reports.append(context)

    for loop in loops:
        loop.set_exception_handler(report)
    made = pairs()

    def run(tape: Tape) -> None:
        reports.clear()
        loop, byte = tape.pick(loops), tape.byte()
        pair = made[byte % len(made)]
        own = OWN_METHODS[max(0, byte // len(made) % 8 - 5)]
        case = Case(loop, pair, tape, own)
        case.rough = pair is made[-1]  # which do not agree
        for _ in range(tape.byte() % 5):
            for side in (0, 1):
                case.give(side, 1 << 20)
        while tape:
            try:
                case.step()
            except Spoiled:
                case.depth = 0
        case.finish()
        allowed = (OSError, Spoiled)
        for report in reports:
            exc = report.get("exception")
            check(case.rough and isinstance(exc, allowed), report)

    return run


def loops() -> list[Any]:
    """Return a loop for each engine."""
    made = [fastloop.new_event_loop()]
    with mock.patch.dict(os.environ, FASTLOOP_DISABLE="libssl"):
        made.append(fastloop.new_event_loop())
    return made


def start() -> Run:
    """Return what runs an input, with the same keys each time."""
    run, source = runner(loops()), repeatable_keys()

    def run_again(tape: Tape) -> None:
        source.seed(0)
        run(tape)

    return run_again
