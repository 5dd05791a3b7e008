"""A TLS connection that is called from within its own calls.

A class of the application's in place of ssl.SSLObject, a transport below that
is Python, the protocol and finalizers may write, bring records or close in
the midst of any call.  Here they do what a seed says.  The peer is CPython's
own SSLObject: it must decrypt exactly what was written, in order.
"""

import asyncio
import contextlib
import gc
import random
import ssl

import pytest
from tls_memory_link import Raw, contexts, have_libssl

import fastloop
from fastloop import _tls

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
SIZES = [1, 100, 5000, 20000, 40000]
#: What an engine that calls libssl itself still asks of the SSLObject, and
#: what is asked of one with a read() and a write() of its own.
ASKED = ["do_handshake", "unwrap", "getpeercert", "cipher", "compression"]
ASKED_ALL = [*ASKED, "read", "write"]
#: The engines; the last one's SSLObject has methods of its own.
KINDS = ["libssl", "sslobject", "own-methods"]
PROGRAMS = 20
QUIET_ROUNDS = 8  # more than what is put off to a later iteration takes


class Peer:
    """The far end, by CPython alone."""

    def __init__(self, context, server_side):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self.incoming,
            self.outgoing,
            server_side,
            None if server_side else "localhost",
        )
        self.ready = self.closed = self.ended = False
        self.got = b""

    def take(self, data):
        """Decrypt; returns what it has to say."""
        self.incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self.ready:
                self.tls.do_handshake()
                self.ready = True
            while not self.ended:
                self._read()
        return self.outgoing.read()

    def _read(self):
        try:
            got = self.tls.read(65536)
        except ssl.SSLZeroReturnError:
            got = b""
        self.got += got
        if not got:
            self.ended = True
            self.close()

    def close(self):
        if self.ready and not self.closed:
            self.closed = True
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.unwrap()


class Protocol(asyncio.Protocol):
    """Checks the order of its calls, and nests after each."""

    def __init__(self, program):
        self.program = program

    def connection_made(self, transport):
        self.program.events.append("made")
        self.program.nest()

    def data_received(self, data):
        program = self.program
        assert program.events == ["made"], program.events
        # A close() of the new transport shows that start_tls() has returned.
        early = program.waiter is not None and not program.waiter_ran
        assert program.closed or not early
        program.got += data
        assert program.sent.startswith(program.got)
        if not (program.may_flush or program.cut):
            # An EOF has not overtaken it, so a reply reaches the peer.
            assert program.tls._state.name == "WRAPPED"
        program.nest()

    def eof_received(self):
        self.program.events.append("eof")
        self.program.nest()

    def connection_lost(self, exc):
        self.program.events.append("lost")
        self.program.nest()

    def pause_writing(self):
        self.program.nest()

    def resume_writing(self):
        self.program.nest()


class NestingRaw(Raw):
    """A transport below whose calls call back."""

    def __init__(self, program):
        super().__init__()
        self.program = program

    def write(self, data):
        self.program.nest()
        super().write(data)
        self.program.nest()

    def pause_reading(self):
        super().pause_reading()
        self.program.nest()

    def resume_reading(self):
        super().resume_reading()
        self.program.nest()


class Writes:
    """Garbage whose finalizer writes."""

    def __init__(self, program):
        self.program = program
        self.cycle = self

    def __del__(self):
        self.program.write()


def nesting_class(program, methods):
    """An SSLObject that nests before and after each of its calls."""

    def nesting(name):
        real = getattr(ssl.SSLObject, name)

        def method(self, *args):
            before = program.deaf
            # Data in the midst of it is an error of CPython's unwrap().
            program.deaf = before or name == "unwrap"
            program.nest()
            try:
                if name == "write" and program.is_blocked():
                    raise ssl.SSLWantReadError  # as while keys are changed
                return real(self, *args)
            finally:
                program.nest()
                program.deaf = before

        return method

    return type(
        "Nests", (ssl.SSLObject,), {name: nesting(name) for name in methods}
    )


class Program:
    """One connection and what happens to it."""

    def __init__(self, loop, seed, kind, certified):
        self.loop = loop
        self.rng = random.Random(seed)
        self.budget = self.depth = 0
        self.written, self.sent, self.got = b"", b"", b""
        self.events = []
        self.wire = bytearray()
        self.cut = self.lost = self.closed = self.ended = False
        self.raw_paused = self.at_eof = self.deaf = self.may_flush = False
        server_side = self.rng.random() < 0.5
        near, far = certified if server_side else certified[::-1]
        near.maximum_version = far.maximum_version = self.rng.choice(VERSIONS)
        near.sslobject_class = nesting_class(
            self, ASKED_ALL if kind == "own-methods" else ASKED
        )
        self.waiter, self.waiter_ran = None, False
        if self.rng.random() < 0.5:  # a connection that start_tls() upgrades
            self.waiter = loop.create_future()
            self.waiter.add_done_callback(self.note_waiter)
            self.events.append("made")
        self.raw = NestingRaw(self)
        self.tls = _tls.open_adapter(
            loop,
            Protocol(self),
            near,
            self.waiter,
            server_side=server_side,
            server_hostname=None if server_side else "localhost",
            call_connection_made=self.waiter is None,
        )
        near.sslobject_class = ssl.SSLObject
        self.transport = self.tls._app_transport
        self.peer = Peer(far, not server_side)
        operations = [
            *[self.write, self.writelines, self.give, self.peer_writes] * 6,
            *[self.pause_raw, self.resume_raw, self.pump] * 2,
            *[self.pause_reading, self.transport.resume_reading],
            *[self.collect, self.set_protocol],
        ]
        self.ends = self.rng.random() < 0.5
        if self.ends:
            operations += [self.close, self.peer_closes, self.eof]
        if self.rng.random() < 0.2:
            operations += [self.abort, self.lose]
        self.operations = operations

    def note_waiter(self, waiter):
        self.waiter_ran = True
        failed = waiter.exception() is not None
        self.cut = self.cut or failed

    # -- operations -----------------------------------------------------------

    def nest(self):
        if self.budget > 0 and self.depth < 4 and self.rng.random() < 0.4:
            self.budget -= 1
            self.depth += 1
            self.rng.choice(self.operations)()
            self.depth -= 1

    def is_blocked(self):
        """Not where an end would drop what waits, as with asyncio."""
        return self.budget > 0 and not self.ends and self.rng.random() < 0.2

    def chunk(self):
        return self.rng.randbytes(self.rng.choice(SIZES))

    def note_written(self, data):
        """As asyncio: what is written behind an end is dropped."""
        if self.tls._state.name in ("WRAPPED", "DO_HANDSHAKE"):
            self.written += data

    def write(self):
        data = self.chunk()
        self.note_written(data)
        kind = self.rng.choice([bytes, bytearray, memoryview])
        self.transport.write(kind(data))

    def writelines(self):
        lines = [self.chunk() for _ in range(self.rng.randrange(1, 5))]
        self.note_written(b"".join(lines))
        self.transport.writelines(lines)

    def give(self):
        """Some of what the peer has sent arrives."""
        size = self.rng.choice([1, 50, 1000, 10000, 60000])
        part = b"" if self.deaf else bytes(self.wire[:size])
        del self.wire[: len(part)]
        if part and not self.lost:
            with self.tls.get_buffer(-1) as view:
                view[: len(part)] = part
            self.tls.buffer_updated(len(part))

    def peer_writes(self):
        if self.peer.ready and not self.peer.closed and not self.at_eof:
            data = self.chunk()
            self.sent += data
            self.peer.tls.write(data)
            self.wire += self.peer.outgoing.read()

    def pump(self):
        """What was sent reaches the peer."""
        data = bytes(self.raw.sent)
        self.raw.sent.clear()
        self.wire += self.peer.take(data)
        assert self.written.startswith(self.peer.got)

    def pause_reading(self):
        self.may_flush = True
        self.transport.pause_reading()

    def pause_raw(self):
        if not self.raw_paused:
            self.raw_paused = True
            self.tls.pause_writing()

    def resume_raw(self):
        if self.raw_paused:
            self.raw_paused = False
            self.tls.resume_writing()

    def collect(self):
        Writes(self)
        gc.collect(0)

    def set_protocol(self):
        if not self.lost:
            self.transport.set_protocol(Protocol(self))

    def close(self):
        if self.tls._state.name in ("UNWRAPPED", "DO_HANDSHAKE"):
            self.cut = True
        self.closed = self.ended = self.may_flush = True
        self.transport.close()

    def peer_closes(self):
        self.pump()
        self.ended = self.ended or self.peer.ready
        self.peer.close()
        self.wire += self.peer.outgoing.read()

    def eof(self):
        """The raw end, after all that the peer has sent."""
        if self.deaf or self.at_eof:
            return
        self.at_eof = True
        self.may_flush = self.may_flush or self.depth > 0
        self.peer_closes()
        while self.wire:
            self.give()
        if not self.lost and self.tls._transport is not None:
            self.cut = self.cut or self.tls._state.name == "DO_HANDSHAKE"
            self.ended = True
            self.tls.eof_received()

    def abort(self):
        self.cut = True
        self.transport.abort()

    def lose(self):
        self.cut = True
        if self.lost:
            return
        self.lost = True
        if self.waiter is not None and self.tls._state.name == "DO_HANDSHAKE":
            self.events.remove("made")  # start_tls() raises instead
        self.tls.connection_lost(None)

    # -- the whole ------------------------------------------------------------

    def iterate(self):
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def run(self):
        self.tls.connection_made(self.raw)
        for _ in range(25):
            self.budget = 6
            self.rng.choice(self.operations)()
            if self.rng.random() < 0.7:
                self.pump()
                self.give()
            if self.rng.random() < 0.5:
                self.iterate()
        self.rest()
        self.judge()
        self.lose()
        self.iterate()
        assert self.events.count("lost") == ("made" in self.events)

    def rest(self):
        """Let all arrive that is under way."""
        self.budget = 0
        self.resume_raw()
        self.write()  # also what was blocked
        quiet = 0
        while quiet < QUIET_ROUNDS:
            self.transport.resume_reading()
            moved = len(self.raw.sent) + len(self.wire)
            self.pump()
            self.give()
            self.iterate()
            quiet = 0 if moved else quiet + 1

    def judge(self):
        failed = [c for c in self.raw.calls if isinstance(c, Exception)]
        assert self.cut or failed == []
        assert self.written.startswith(self.peer.got)
        assert self.sent.startswith(self.got)
        if self.cut:
            return
        assert self.peer.got == self.written
        if self.ended:
            assert "close" in self.raw.calls
        if not self.closed and "made" in self.events:
            assert self.got == self.sent


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    if request.param == "libssl" and not have_libssl():
        pytest.skip("there is no libssl to call, or no GIL to call it under")
    if request.param == "sslobject":
        monkeypatch.setenv("FASTLOOP_DISABLE", "libssl")
    return request.param


@pytest.fixture
def loop(kind):
    loop = fastloop.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("block", range(12))
def test_nested_writes_are_sent_once(loop, kind, block):
    """In the order in which the writes began; and so what comes arrives."""
    reports = []
    loop.set_exception_handler(lambda loop, context: reports.append(context))
    certified = contexts()
    for seed in range(block * PROGRAMS, (block + 1) * PROGRAMS):
        reports.clear()
        program = Program(loop, seed, kind, certified)
        engine = program.transport.get_extra_info("tls_engine")
        assert engine == ("libssl" if kind == "libssl" else "sslobject")
        try:
            program.run()
        except BaseException as exc:
            exc.add_note(f"program {seed} of {kind}")
            raise
        assert [str(r["exception"]) for r in reports] == [], seed
