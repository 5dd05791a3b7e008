"""Compares the effects of failing system calls on fastloop and on asyncio.

Each action runs once for each errno and loop, with and without debug mode.
A patched Python function makes asyncio's call fail.  The shim makes fastloop's
system call fail, or the same patch does where fastloop calls the socket's
method.  The traces are compared: the protocol's calls, the exceptions, the
reports, the log, the bytes that arrived and the state of the transport.
test_same_errors.py runs this file as a script, and sets PYTHONPATH for it:

    same_errors.py ACTION
"""

from __future__ import annotations

import _socket
import asyncio
import asyncio.constants
import contextlib
import errno
import functools
import itertools
import json
import logging
import os
import pathlib
import re
import socket
import sys
import tempfile
import unittest.mock
from functools import partial

import fault_shim

ERRORS = """EAGAIN EINTR EINPROGRESS EALREADY EPIPE ECONNRESET ECONNABORTED
ENOTCONN ESHUTDOWN ETIMEDOUT EHOSTUNREACH EIO ENOMEM ENOBUFS ENOSPC EPERM
EBADF EPROTO EINVAL""".split()
#: More than the pair's send buffer holds.
SIZE_BYTES = 256 << 10

# The peers call the original functions, which no fault patches.
raw_send = _socket.socket.send
raw_recv = _socket.socket.recv


# --- faults ----------------------------------------------------------------


class Patches:
    """Makes the next call of one of these methods of sockets fail."""

    def __init__(self, names):
        self.names = names
        self.code = self.hits = 0
        self.stack = contextlib.ExitStack()

    def install(self):
        for name in self.names:
            failing = self.failing(getattr(socket.socket, name))
            patch = unittest.mock.patch.object(socket.socket, name, failing)
            self.stack.enter_context(patch)

    def failing(self, original):
        @functools.wraps(original)
        def call(*args, **kwargs):
            if not self.code:
                return original(*args, **kwargs)
            code, self.code = self.code, 0
            self.hits += 1
            raise OSError(code, os.strerror(code))

        return call

    def arm(self, code):
        self.code = code

    def end(self):
        self.stack.close()
        return self.hits


class Shim:
    """Makes the next call of one C function fail."""

    def __init__(self, name):
        self.name = name

    def install(self):
        fault_shim.arm(self.name, 0, count=0)

    def arm(self, code):
        fault_shim.arm(self.name, code)

    def end(self):
        hits = fault_shim.hits()
        fault_shim.arm(self.name, 0, count=0)
        return hits


# --- traces ----------------------------------------------------------------


def shown(exc):
    """Return the parts of an exception to compare."""
    if exc is None or isinstance(exc, OSError):
        return [type(exc).__name__, getattr(exc, "errno", None)]
    return [type(exc).__name__, str(exc)]


def plain_text(message):
    """Return a message without the objects that it shows."""
    if message.startswith("Exception in callback"):
        return "Exception in callback"
    return re.sub(r"<.*>", "<>", message)


class Trace(logging.Handler):
    """The ordered effects of one run of an action on one loop."""

    def __init__(self, fault, code):
        super().__init__(logging.DEBUG)
        self.fault, self.code = fault, code
        self.entries = []

    def note(self, *values):
        self.entries.append(list(values))

    def arm(self):
        self.fault.arm(self.code)

    def emit(self, record):
        if record.levelno >= logging.WARNING:
            exc = record.exc_info[1] if record.exc_info else None
            text = plain_text(record.getMessage())
            self.note("logged", record.levelname, text, shown(exc))

    def report(self, loop, context):
        text = plain_text(context["message"])
        self.note("reported", text, shown(context.get("exception")))

    async def outcome(self, awaitable):
        """Await, and note the result or the exception."""
        try:
            self.note("returned", repr(type(await awaitable)))
        except OSError as exc:
            self.note("raised", shown(exc))

    def note_state(self, protocol):
        transport = protocol.transport
        lost = protocol.exc if protocol.lost else None
        self.note("calls", protocol.names, shown(lost))
        self.note("data", bytes(protocol.data).decode())
        self.note("faults", protocol.faults)
        self.note("closing", transport.is_closing())
        if hasattr(transport, "get_write_buffer_size"):
            self.note("buffer", transport.get_write_buffer_size() > 0)


def received(far):
    """Return the bytes that have arrived, with b"end" appended at EOF."""
    parts = []
    with contextlib.suppress(BlockingIOError, ConnectionError):
        while part := raw_recv(far, 1 << 20):
            parts.append(part)
        parts.append(b"end")
    return b"".join(parts)


# --- actions ---------------------------------------------------------------


async def idle():
    """Return once the loop has handled all events that are ready.

    epoll reports fds in the order in which they became ready, so the event of
    a new socket comes last.
    """
    loop = asyncio.get_running_loop()
    for _ in range(2):
        near, far = socket.socketpair()
        with near, far:
            raw_send(far, b"x")
            seen = loop.create_future()
            loop.add_reader(near, seen.set_result, None)
            await seen
            loop.remove_reader(near)
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def connected(protocol):
    """A transport on one of a pair, and the other socket."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    with far:
        transport, _ = await loop.create_connection(
            lambda: protocol, sock=near
        )
        yield transport, far
        await abort_and_wait(transport)


async def abort_and_wait(transport):
    if not transport.is_closing():
        transport.abort()
    await idle()


async def reads(trace, kind="Recorder"):
    protocol = getattr(helpers, kind)()
    async with connected(protocol) as (_, far):
        trace.arm()
        for data in (b"one", b"two"):
            with contextlib.suppress(OSError):
                raw_send(far, data)
            await idle()
        trace.note_state(protocol)
        trace.note("peer", received(far).decode())


async def reads_a_stream(trace):
    near, far = socket.socketpair()
    with far:
        reader, writer = await asyncio.open_connection(sock=near)
        trace.arm()
        raw_send(far, b"data\n")
        await trace.outcome(reader.readline())
        trace.note("exception", shown(reader.exception()))
        writer.close()
        await trace.outcome(writer.wait_closed())


async def writes(trace, how, data=None):
    protocol = helpers.Recorder()
    async with connected(protocol) as (transport, far):
        trace.arm()
        try:
            getattr(transport, how)(*() if data is None else (data,))
        except OSError as exc:
            trace.note("raised", shown(exc))
        await idle()
        trace.note_state(protocol)
        with contextlib.suppress(RuntimeError):
            transport.write(b"more")
        await idle()
        trace.note_state(protocol)
        trace.note("peer", received(far).decode())


async def flushes(trace, then=None):
    """A write that waits for room fails once there is some."""
    protocol = helpers.Recorder()
    async with connected(protocol) as (transport, far):
        transport.write(bytes(SIZE_BYTES))
        if then:
            getattr(transport, then)()
        trace.arm()
        await idle()
        size = 0
        for _ in range(40):
            part = received(far)
            size += len(part)
            await idle()
            if not part:
                break
        trace.note_state(protocol)
        trace.note("all arrived", size >= SIZE_BYTES)


@contextlib.asynccontextmanager
async def secured(trace, protocol, armed):
    """Connect by TLS; yield the peer, or None if the handshake failed.

    OpenSSL makes the peer's system calls, so no fault reaches them.  If
    `armed`, the fault is armed before the handshake.
    """
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    far.settimeout(60)
    wrap = partial(helpers.server_context().wrap_socket, far)
    wrapping = loop.run_in_executor(None, lambda: wrap(server_side=True))
    if armed:
        trace.arm()
    await trace.outcome(
        loop.create_connection(
            lambda: protocol,
            sock=near,
            ssl=helpers.client_context(),
            server_hostname="localhost",
        )
    )
    with contextlib.suppress(OSError):
        with await wrapping as secure:
            await idle()  # session tickets
            yield secure
            if protocol.transport:
                await abort_and_wait(protocol.transport)
            return
    yield None
    await idle()


async def connects_by_tls(trace):
    protocol = helpers.Recorder()
    async with secured(trace, protocol, True):
        trace.note("calls", protocol.names)


async def reads_tls(trace, kind):
    protocol = getattr(helpers, kind)()
    async with secured(trace, protocol, False) as secure:
        trace.arm()
        for data in (b"one", b"two"):
            with contextlib.suppress(OSError):
                secure.send(data)
            await idle()
        trace.note_state(protocol)


async def writes_tls(trace, then):
    protocol = helpers.Recorder()
    async with secured(trace, protocol, False) as secure:
        trace.arm()
        protocol.transport.write(b"one")
        if then == "write":
            protocol.transport.write(b"two")
        else:
            protocol.transport.close()
        await idle()
        trace.note_state(protocol)
        secure.settimeout(0)
        with contextlib.suppress(OSError):
            trace.note("peer", secure.recv(100).decode())


async def accepts(trace):
    loop = asyncio.get_running_loop()
    protocols = []

    def make():
        protocols.append(helpers.Recorder())
        return protocols[-1]

    server = await loop.create_server(make, "127.0.0.1", 0)
    trace.arm()
    with socket.create_connection(server.sockets[0].getsockname()):
        await asyncio.sleep(0.02)  # longer than ACCEPT_RETRY_DELAY
        await idle()
        trace.note("connections", len(protocols))
        for protocol in protocols:
            await abort_and_wait(protocol.transport)
    server.close()
    await idle()


async def receives_datagrams(trace):
    protocol = datagram_helpers.Datagrams()
    async with datagram_helpers.endpoint(protocol) as p:
        address = p.transport.get_extra_info("sockname")
        with datagram_helpers.plain() as far:
            trace.arm()
            for data in (b"one", b"two"):
                _socket.socket.sendto(far, data, address)
                await idle()
        note_datagrams(trace, p)


def note_datagrams(trace, protocol):
    values = [
        (name, shown(value[0]) if name in ("error", "lost") else None)
        for name, *value in protocol.events
    ]
    trace.note("calls", values, [d.decode() for d in protocol.data])
    trace.note("closing", protocol.transport.is_closing())
    # asyncio 3.13.0 counts 8 bytes for each, which it never takes off again.
    if sys.version_info[:2] != (3, 13):
        size = protocol.transport.get_write_buffer_size()
        trace.note("buffer", size > 0)


async def sends_datagrams(trace, has_peer):
    with datagram_helpers.plain() as far:
        address = far.getsockname()
        how = {"remote_addr": address} if has_peer else {}
        async with datagram_helpers.endpoint(**how) as p:
            trace.arm()
            for data in (b"one", b"two"):
                p.transport.sendto(data, None if has_peer else address)
                await idle()
            note_datagrams(trace, p)
            far.setblocking(False)
            trace.note("peer", received(far).decode())


async def flushes_datagrams(trace):
    with tempfile.TemporaryDirectory() as folder:
        stuffed = datagram_helpers.stuffed(pathlib.Path(folder), True)
        async with stuffed as (p, far, _):
            trace.arm()
            far.setblocking(False)
            got = [received(far)]
            await idle()
            got.append(received(far))
            note_datagrams(trace, p)
            trace.note("peer", b"".join(got).decode())


async def calls_socket(trace, how, value):
    """Call one sock_* method; the peer has sent data already."""
    loop = asyncio.get_running_loop()
    if how == "sock_recv_into":
        value = bytearray(value)
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        raw_send(far, b"data")
        trace.arm()
        await trace.outcome(getattr(loop, how)(near, value))
        far.setblocking(False)
        trace.note("peer", received(far).decode())


async def accepts_by_a_socket(trace):
    loop = asyncio.get_running_loop()
    with helpers.listening_socket() as listener:
        with socket.create_connection(listener.getsockname()):
            trace.arm()
            await trace.outcome(loop.sock_accept(listener))


async def connects(trace, how):
    loop = asyncio.get_running_loop()
    with helpers.listening_socket() as listener, socket.socket() as sock:
        sock.setblocking(False)
        trace.arm()
        if how == "sock_connect":
            making = loop.sock_connect(sock, listener.getsockname())
        else:
            making = loop.create_connection(
                helpers.Recorder, *listener.getsockname()
            )
        await trace.outcome(making)


SENDS = "send sendmsg"
LINES = [b"one", b"two", b"three"]
#: The C function that fails, or "" if fastloop calls the Python functions as
#: well; these; the action, and its arguments.  sock_sendall() calls send()
#: itself unless the socket's method is patched: both ways are here.
ACTIONS = {
    "read": ("recv", "recv", reads),
    "read-buffered": ("recv", "recv_into", reads, "BufferedRecorder"),
    "read-stream": ("recv", "recv", reads_a_stream),
    "write": ("send", "send", writes, "write", b"one"),
    "writelines": ("sendmsg", SENDS, writes, "writelines", LINES),
    "write-eof": ("shutdown", "shutdown", writes, "write_eof"),
    "flush": ("send", SENDS, flushes),
    "flush-close": ("send", SENDS, flushes, "close"),
    "flush-eof": ("send", SENDS, flushes, "write_eof"),
    "tls-connect-read": ("recv", "recv_into", connects_by_tls),
    "tls-connect-write": ("send", "send", connects_by_tls),
    "tls-read": ("recv", "recv_into", reads_tls, "Recorder"),
    "tls-read-buffered": ("recv", "recv_into", reads_tls, "BufferedRecorder"),
    "tls-write": ("send", SENDS, writes_tls, "write"),
    "tls-close": ("send", SENDS, writes_tls, "close"),
    "accept": ("accept4", "accept", accepts),
    "datagram-read": ("recvmmsg", "recvfrom", receives_datagrams),
    "datagram-send": ("sendto", "sendto", sends_datagrams, False),
    "datagram-send-connected": ("send", "send", sends_datagrams, True),
    "datagram-flush": ("send", "send", flushes_datagrams),
    "sock-recv": ("", "recv", calls_socket, "sock_recv", 10),
    "sock-recv-into": ("", "recv_into", calls_socket, "sock_recv_into", 10),
    "sock-recvfrom": ("", "recvfrom", calls_socket, "sock_recvfrom", 10),
    "sock-sendall": ("", "send", calls_socket, "sock_sendall", b"data"),
    "sock-sendall-c": ("send", "send", calls_socket, "sock_sendall", b"data"),
    "sock-accept": ("", "accept", accepts_by_a_socket),
    "sock-connect": ("", "connect", connects, "sock_connect"),
    "connect": ("", "connect", connects, "create_connection"),
}


#: Intended: see docs/differences.md for EBADF.  A sandbox says EPERM of
#: recvmmsg alone, and then fastloop calls recvmsg.
DIFFERENCES = {("accept", "EBADF"), ("datagram-read", "EPERM")}


def run(make_loop, name, code, debug):
    """Run an action once; return its trace."""
    call, names, act, *args = ACTIONS[name]
    native = call if make_loop is not asyncio.new_event_loop else ""
    fault = Shim(native) if native else Patches(names.split())
    trace = Trace(fault, code)
    loop = make_loop()
    loop.set_debug(debug)
    loop.slow_callback_duration = 1000
    loop.set_exception_handler(trace.report)
    logger = logging.getLogger("asyncio")
    logger.addHandler(trace)
    fault.install()
    try:
        loop.run_until_complete(act(trace, *args))
    finally:
        hits = fault.end()
        logger.removeHandler(trace)
        loop.close()
    trace.note("hits", hits)
    return trace.entries


def main():
    """Print each run whose traces differ or whose call did not fail once.

    The last line has the number of comparisons.
    """
    global datagram_helpers, helpers
    import datagram_helpers
    import net_helpers as helpers

    import fastloop

    asyncio.constants.ACCEPT_RETRY_DELAY = 0.01
    logger = logging.getLogger("asyncio")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    name = sys.argv[1]
    count = 0
    for name_of_errno, debug in itertools.product(ERRORS, (False, True)):
        code = getattr(errno, name_of_errno)
        theirs = run(asyncio.new_event_loop, name, code, debug)
        ours = run(fastloop.new_event_loop, name, code, debug)
        count += 1
        same = theirs == ours or (name, name_of_errno) in DIFFERENCES
        if not same or ["hits", 1] not in ours:
            found = {"errno": name_of_errno, "debug": debug}
            print(json.dumps({**found, "asyncio": theirs, "fastloop": ours}))
    print(json.dumps({"compared": count}))


if __name__ == "__main__":
    main()
    sys.exit(0)
