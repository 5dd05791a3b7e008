"""Another thread uses a transport of TLS, which asyncio forbids.

CPython releases the GIL in a handshake and in unwrap().  ThreadSanitizer sees
here whether other threads touch the records meanwhile (.ci/stages.toml).
"""

import functools
import operator
import ssl
import sys
import threading

import pytest
from net_helpers import Recorder, iterations
from tls_ends import WAYS, contexts

LINES = [b"%05d\n" % number for number in range(100)]


@pytest.fixture
def impatient():
    """A thread that waits for the GIL asks for it after 1 ms."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.001)
    yield
    sys.setswitchinterval(interval)


def letting_others_in(call):
    """Call it behind other C code, during which a thread asks for the GIL.

    That thread gets it as soon as the call releases it.
    """
    busy = functools.partial(sum, range(200_000))
    return [*map(operator.call, (busy, call))][1]


def ask(transport):
    transport.get_write_buffer_size()
    transport.get_read_buffer_size()
    return transport.is_closing()


class Other:
    """The other thread, which begins with the handshake."""

    def __init__(self, in_thread, protocol, close):
        self.start = functools.partial(in_thread, self.run)
        self.protocol, self.close = protocol, close
        self.may_close = threading.Event()
        self.thread = None
        self.unwrapping = set()

    def run(self):
        transport = self.protocol.transport.get_protocol()._app_transport
        for line in LINES:
            transport.write(line)
            transport.set_write_buffer_limits(1 << 20)
            ask(transport)
        while not self.may_close.is_set() and not ask(transport):
            pass
        self.close(transport)
        while not self.protocol.lost:
            ask(transport)

    def context(self, side):
        """The context of the transport that it uses."""
        other = self

        class Watched(ssl.SSLObject):
            def do_handshake(self):
                other.thread = other.thread or other.start()
                return letting_others_in(self._sslobj.do_handshake)

            def unwrap(self):
                other.unwrapping.add(threading.get_ident())
                return letting_others_in(self._sslobj.shutdown)

        context, _ = contexts(side)
        context.sslobject_class = Watched
        return context


@pytest.mark.native_tls  # asyncio's may lose bytes
@pytest.mark.parametrize("side", WAYS[2:])
@pytest.mark.parametrize("closes", ["the loop", "the thread"])
async def test_all_lines_of_another_thread_arrive_in_order(
    loop, in_thread, tls_pair, impatient, side, closes
):
    """Until close(), whose unwrap() is the loop's in any case."""
    call = loop.call_soon_threadsafe if closes == "the loop" else operator.call
    other = Other(in_thread, Recorder(), lambda secure: call(secure.close))
    c = await tls_pair(other.protocol, side=side, near=other.context(side))
    assert await c.peer.read_exactly(len(LINES) * 6) == b"".join(LINES)
    await c.settle()
    other.may_close.set()
    while not c.transport.is_closing():
        await c.peer.write(b"to read meanwhile")
        await iterations(1)
    assert await c.peer.read() == b""
    await c.peer.close_notify()
    assert await c.protocol.wait_lost() is None
    assert other.unwrapping == {threading.get_ident()}
