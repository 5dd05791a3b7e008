"""The TLS filter's engines: which one a connection has, and what it does."""

import asyncio
import os
import ssl
import subprocess
import sys
import tracemalloc

import pytest
from tls_memory_link import CERTS, Link, contexts, one_iteration

import fastloop

CA = CERTS / "ca.pem"


def test_the_sslobject_outlives_the_connection(link):
    held = link.client.protocol.transport.get_extra_info("ssl_object")
    link.client.tls.connection_lost(None)
    link.client.protocol.transport.close()
    with pytest.raises(ssl.SSLWantReadError):
        held.read(1)
    assert held.version() in ("TLSv1.3", "TLSv1.2")
    held.write(b"nobody reads it")
    assert held.getpeercert()["subject"]


class Sips(asyncio.BufferedProtocol):
    """Takes a little at a time, and pauses after each."""

    def __init__(self, transport):
        self.transport = transport
        self.buffer = bytearray(1000)
        self.got = b""
        self.calls = []

    def get_buffer(self, hint):
        return self.buffer

    def buffer_updated(self, size):
        self.got += self.buffer[:size]
        self.transport.pause_reading()

    def eof_received(self):
        self.calls.append("eof")


@pytest.mark.parametrize("size", [5000, 50_000])
def test_an_end_waits_for_a_protocol_that_pauses(link, fast_loop, size):
    """Also for what is left of a record that was half read."""
    data = os.urandom(size)
    transport = link.server.protocol.transport
    transport.pause_reading()
    link.client.protocol.transport.write(data)
    link.carry()
    sips = Sips(transport)
    transport.set_protocol(sips)
    transport.resume_reading()
    assert link.server.tls.eof_received()
    for _ in range(size // 1000 - 1):
        assert sips.calls == []
        transport.resume_reading()
        one_iteration(fast_loop)
    assert sips.got == data
    transport.resume_reading()
    one_iteration(fast_loop)
    assert sips.calls == ["eof"]


def test_records_behind_those_of_a_slow_reader_follow_them(link, fast_loop):
    """A block whose first half has been read serves again."""
    data = os.urandom(400_000)
    sips = Sips(link.server.protocol.transport)
    sips.buffer = bytearray(10_000)
    sips.transport.pause_reading()
    sips.transport.set_protocol(sips)
    for at in range(0, len(data), 10_000):
        link.client.protocol.transport.write(data[at : at + 10_000])
        link.carry()
        # Ten wait at first, and then two.
        while at >= 90_000 and at - len(sips.got) >= 20_000:
            sips.transport.resume_reading()
            one_iteration(fast_loop)
    while len(sips.got) < len(data):
        sips.transport.resume_reading()
        one_iteration(fast_loop)
    assert sips.got == data


def test_memory_is_freed_once_reading_has_caught_up(link, fast_loop, engine):
    if engine != "libssl":
        pytest.skip("a MemoryBIO keeps its memory")
    transport = link.server.protocol.transport
    transport.pause_reading()
    link.client.protocol.transport.write(os.urandom(400_000))
    tracemalloc.start()
    try:
        link.carry()
        transport.resume_reading()
        one_iteration(fast_loop)
        assert len(link.server.protocol.got) == 400_000
        link.server.protocol.got = b""
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 200_000


class Ends(asyncio.BufferedProtocol):
    """Ends its connection while it receives, and keeps the SSLObject."""

    def __init__(self, transport):
        self.transport = transport
        self.buffer = bytearray(16)
        self.kept = []

    def get_buffer(self, hint):
        return self.buffer

    def buffer_updated(self, size):
        self.kept.append(self.transport.get_extra_info("ssl_object"))
        self.transport.abort()
        self.transport.close()


def test_unread_records_stay_readable_after_abort_and_close(link):
    """The transport below is lost inside of abort(), as one of Python code may
    be; the records were in memory that the call borrowed.
    """
    end = link.server
    end.raw.abort = lambda: end.tls.connection_lost(None)
    ends = Ends(end.protocol.transport)
    ends.transport.set_protocol(ends)
    for text in (b"A" * 16, b"B" * 16000, b"C" * 16000):
        link.client.protocol.transport.write(text)
    link.carry()
    (held,) = ends.kept
    assert held.read(16000) == b"B" * 16000
    assert held.read(16000) == b"C" * 16000


# -- which engine -------------------------------------------------------------


@pytest.fixture
def engine_of():
    """Return what tells a client's engine, once it has talked to a server."""
    loop = fastloop.new_event_loop()

    def ask(client):
        link = Link(loop, contexts()[0], client)
        link.begin()
        link.carry()
        link.client.protocol.transport.write(b"hello")
        link.carry()
        assert link.server.protocol.got == b"hello"
        engine = link.client.engine
        link.end()
        return engine

    yield ask
    loop.close()


def test_message_callbacks_of_a_context_behind_another_are_called(engine_of):
    """A context may have another one wrap, as those of truststore do."""
    _, inner = contexts()
    seen = []
    inner._msg_callback = lambda *args: seen.append(args)

    class Wraps(ssl.SSLContext):
        def wrap_bio(self, *args, **kwargs):
            return inner.wrap_bio(*args, **kwargs)

    assert engine_of(Wraps(ssl.PROTOCOL_TLS_CLIENT)) == "sslobject"
    assert seen
    seen.clear()  # the GC does not see that the SSL object has the context


@pytest.mark.parametrize("freed", [False, True])
def test_another_ssl_is_not_taken_for_the_sslobjects(engine_of, freed):
    """Nor is one that is freed used."""
    others = []

    class Wraps(ssl.SSLContext):
        def wrap_bio(self, incoming, outgoing, **kwargs):
            made = super().wrap_bio(incoming, outgoing, **kwargs)
            others.append(
                super().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), **kwargs)
            )
            if freed:
                others.clear()
            return made

    client = Wraps(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(CA)
    assert engine_of(client) == "sslobject"
    others.clear()  # as above


#: The library is looked up once a process, so each case has its own.
LOOK_UP = """
import sys
sys.path.insert(0, {folder!r})
import fastloop
from fastloop._loop import _tls
_tls._library = {library!r}
from tls_memory_link import Link, contexts
loop = fastloop.new_event_loop()
link = Link(loop, *contexts())
link.begin()
link.carry()
print(link.client.engine)
link.end()
loop.close()
"""


@pytest.mark.parametrize(
    "library", ["/no/such/file", None, "libc.so.6", "libm.so.6"]
)
def test_without_libssls_functions_the_object_serves(library):
    code = LOOK_UP.format(folder=os.path.dirname(__file__), library=library)
    # A search for leaks dies of a library that was closed.
    options = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ASAN_OPTIONS": options},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["sslobject"]
