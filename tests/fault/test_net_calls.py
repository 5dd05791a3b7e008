"""What a connection's protocol and its peers see when a call fails.

sweep.py lets every call fail for crashes, leaks and hangs; here each
network path is failed on purpose and its outcome checked. Run as a script
this file is the program of its own tests:

    test_net_calls.py SHIM CASE
"""

from __future__ import annotations

import asyncio
import asyncio.constants
import contextlib
import errno
import functools
import os
import socket
import subprocess
import sys

from builds import FREE_THREADED, SANITIZED
from fault_calls import SHIM, VARIABLE, arm, check, hits
from fault_registrations import (
    first_wait_error,
    fork_fd,
    fork_space,
    fork_space_kept,
    renewal_error,
    watch_error,
)

#: A native reader's memory and the loop's are filled by one call; without a
#: GIL the reader is asyncio's.
READ = "recv" if FREE_THREADED else "recvmsg"


# --- the program -----------------------------------------------------------


async def is_sent(c, helpers):
    await c.peer.send(b"data")


async def writes(c, helpers):
    """The write returns, and says nothing."""
    assert c.transport.write(b"data") is None


async def writes_lines(c, helpers):
    c.transport.writelines([b"a", b"b", b"c"])
    c.transport.write(b"d")


async def is_read(c, helpers):
    while not hits() and not c.protocol.lost:
        await c.peer.recv(helpers.MIB)


#: The call that fails; the kind of transport and of protocol; and what leads
#: to the call.
LOSSES = {
    "read": ("recv", "tcp-server", "Recorder", is_sent),
    "read-buffered": ("recv", "unix", "BufferedRecorder", is_sent),
    "write": ("send", "tcp-server", "Recorder", writes),
    "writev": ("sendmsg", "unix", "Recorder", writes_lines),
    "flush": ("send", "tcp-client", "Recorder", is_read),
    "close": ("send", "tcp-server", "Recorder", is_read),
}


async def loss(how, code, helpers, reports):
    """connection_lost has the error, what waits is dropped, and nothing is
    reported.
    """
    call, kind, protocol, act = LOSSES[how]
    async with helpers.link(kind, getattr(helpers, protocol)()) as c:
        if act is is_read:
            c.shrink()
            c.transport.write(bytes(4 * helpers.MIB))
            assert c.transport.get_write_buffer_size() > 0
        if how == "close":
            c.transport.close()
        arm(call, code)
        await act(c, helpers)
        check(await c.protocol.wait_lost(), code, reports)
        paused = ["pause"] if act is is_read else []
        assert c.protocol.names == ["made", *paused, "lost"]
        assert c.transport.get_write_buffer_size() == 0
        assert c.transport.is_closing()


@contextlib.asynccontextmanager
async def reading(helpers):
    """A reader, the peer of its transport, and a task that reads much."""
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=near)
    peer = helpers.Peer(far)
    await peer.send(bytes(20_000))  # from now on large reads are expected
    await reader.readexactly(20_000)
    yield reader, peer, await helpers.waiting(reader.readexactly(100_000))
    peer.close()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def reader_error(code, helpers, reports):
    """The reader has the error, and no bytes of the memory it was to fill."""
    async with reading(helpers) as (reader, peer, task):
        arm(READ, code)
        await peer.send(b"data")
        await asyncio.wait([task])
        check(task.exception(), code, reports)
        assert reader.exception() is task.exception()


@contextlib.asynccontextmanager
async def accept_error(code, helpers, reports):
    """One accept() fails; yield its report and the server's address.

    The client is served all the same.
    """
    loop = asyncio.get_running_loop()
    protocol = helpers.Recorder()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    arm("accept4", code)
    address = server.sockets[0].getsockname()
    sock = socket.create_connection(address)
    await protocol.wait_for("made")
    (report,) = reports
    yield report, address
    check(report["exception"], code, reports)
    reports.clear()
    sock.close()
    await protocol.wait_lost()
    server.close()


async def accept_exhausted(code, helpers, reports):
    """It is reported, and retried after a pause."""
    async with accept_error(code, helpers, reports) as (report, address):
        assert report["message"] == "socket.accept() out of system resource"
        assert report["socket"].getsockname() == address


async def accept_failed(code, helpers, reports):
    """The loop reports it as the callback's."""
    async with accept_error(code, helpers, reports) as (report, _):
        assert report["message"].startswith("Exception in callback ")


async def joined_by_tls(helpers):
    """A server, a client's protocol, and the server's own."""
    loop = asyncio.get_running_loop()
    near, far = helpers.Recorder(), helpers.Recorder()
    server = await loop.create_server(
        lambda: far, "127.0.0.1", 0, ssl=helpers.server_context()
    )
    await loop.create_connection(
        lambda: near,
        *server.sockets[0].getsockname(),
        ssl=helpers.client_context(),
        server_hostname="localhost",
    )
    return server, near, far


async def tls_read_error(code, helpers, reports):
    """Under TLS the error reaches the protocol through asyncio's own."""
    server, near, far = await joined_by_tls(helpers)
    await far.wait_for("made")
    near.transport.write(b"x")
    await far.wait_data(1)
    await helpers.iterations(5)
    arm("recv", code)
    near.transport.write(b"y")
    exc = await far.wait_lost()
    check(exc, code, reports)
    await near.wait_lost()
    server.close()


async def count_writes(most, helpers, reports):
    """A header and a body a response: how many system calls they take."""

    def answer(protocol, data):
        protocol.transport.write(b"header:")
        protocol.transport.write(data)

    seen = {}
    for name in ("send", "sendmsg"):
        async with helpers.link(
            "tcp-server", helpers.Recorder(data=answer)
        ) as c:
            for i in range(60):
                if i == 10:
                    SHIM.fault_arm(name.encode(), 0, 0, 0)
                # Not by the loop, whose calls are counted.
                assert c.peer.sock.send(b"body") == 4
                assert await c.peer.recv_exactly(11) == b"header:body"
            seen[name] = SHIM.fault_seen()
    print(seen, file=sys.stderr)
    assert sum(seen.values()) == most, seen


async def datagram_read_error(code, helpers, reports):
    """The protocol gets the error, and the datagram all the same."""
    async with datagram_helpers.endpoint() as p:
        arm("recvmmsg", code)
        p.transport.sendto(b"data", p.transport.get_extra_info("sockname"))
        exc = await p.wait("error")
        assert isinstance(exc, OSError) and exc.errno == code, exc
        await p.wait("datagram")
        assert p.names == ["made", "error", "datagram"]


async def datagram_send_error(code, helpers, reports):
    """The datagram is gone, the protocol gets the error, the next is sent."""
    with datagram_helpers.plain() as peer:
        async with datagram_helpers.endpoint() as p:
            arm("sendto", code)
            p.transport.sendto(b"gone", peer.getsockname())
            assert p.names == ["made", "error"]
            exc = p.events[-1][1]
            assert isinstance(exc, OSError) and exc.errno == code, exc
            p.transport.sendto(b"sent", peer.getsockname())
            assert peer.recv(9) == b"sent"


async def queue_datagrams(p, peer, count, connected):
    """Let the first find no room, so that all wait."""
    name, port = peer.getsockname()
    arm("send" if connected else "sendto", errno.EAGAIN)
    for number in range(count):
        # Every tenth address is a name.
        host = name if number % 10 != 5 or connected else "localhost"
        p.transport.sendto(b"%d" % number, None if connected else (host, port))
    size = sum(len(b"%d" % n) + datagram_helpers.HEADER for n in range(count))
    if hits():
        assert p.transport.get_write_buffer_size() == size


async def datagram_queue(connected, helpers, reports):
    """What waits is sent in order."""
    with datagram_helpers.plain() as peer:
        how = {"remote_addr": peer.getsockname()} if connected else {}
        async with datagram_helpers.endpoint(**how) as p:
            await queue_datagrams(p, peer, 1, connected)
            await helpers.iterations(3)
            await queue_datagrams(p, peer, 40, connected)
            await helpers.iterations(5)
            assert p.transport.get_write_buffer_size() == 0
            got = [peer.recv(9) for _ in range(41)]
            assert got == [b"0"] + [b"%d" % n for n in range(40)]
            assert p.names == ["made"]


async def datagram_flush(code, helpers, reports):
    """The first in the buffer is reported as lost, the rest is sent; where it
    would block, all of them are, though the transport closes.
    """
    lost = code != errno.EAGAIN
    with datagram_helpers.plain() as peer:
        async with datagram_helpers.endpoint(
            remote_addr=peer.getsockname()
        ) as p:
            await queue_datagrams(p, peer, 20, True)
            arm("send", code, count=1 if lost else 3)
            if not lost:
                p.transport.close()
            got = await datagram_helpers.drain(peer, 20 - lost)
            assert got == [b"%d" % n for n in range(lost, 20)]
            if lost:
                exc = await p.wait("error")
                assert isinstance(exc, OSError) and exc.errno == code, exc
                p.transport.close()
            assert await p.wait("lost") is None
            assert p.names == ["made", *["error"] * lost, "lost"]


def each(name, case, *words):
    """Name one case for each errno."""
    return {f"{name}-{word}": (case, getattr(errno, word)) for word in words}


def losses(how, *words):
    return each(how, functools.partial(loss, how), *words)


CASES = {
    **losses("read", "ECONNRESET", "EIO", "ENOMEM", "ETIMEDOUT"),
    **losses("read-buffered", "ECONNRESET", "ENOMEM"),
    **losses("write", "EPIPE", "ECONNRESET", "ENOMEM"),
    **losses("writev", "EPIPE", "ENOMEM"),
    **losses("flush", "ECONNRESET", "EIO"),
    **losses("close", "ECONNRESET"),
    **each("reader", reader_error, "ECONNRESET", "ENOMEM"),
    **each("tls-read", tls_read_error, "ETIMEDOUT"),
    **each("accept", accept_exhausted, "EMFILE", "ENFILE", "ENOMEM"),
    **each("accept", accept_exhausted, "ENOBUFS"),
    **each("accept", accept_failed, "EPERM", "EPROTO"),
    **each("datagram-read", datagram_read_error, "EIO", "ENOMEM"),
    **each("datagram-send", datagram_send_error, "EPERM", "ENOMEM", "ENOBUFS"),
    **each("datagram-flush", datagram_flush, "EPERM", "EAGAIN"),
    "datagram-queue": (datagram_queue, False),
    "datagram-queue-connected": (datagram_queue, True),
    **each("watch-again", watch_error, "ENOSPC", "ENOMEM"),
    **each("first-wait", first_wait_error, "ENOSPC"),
    **each("renewal", renewal_error, "ENOSPC"),
    **each("fork", fork_space, "ENOSPC", "ENOMEM"),
    **each("fork-kept", fork_space_kept, "ENOSPC"),
    **each("fork-fd", fork_fd, "EBUSY", "EINTR"),
    "writes-corked": (count_writes, 50),
    "writes-not-corked": (count_writes, 100),
}
#: Cases in which no call is made to fail.
COUNTED = (
    count_writes,
    datagram_queue,
    fork_fd,
    fork_space,
    fork_space_kept,
)
#: The fast path that a case turns off.
DISABLED = {"writes-not-corked": "cork"}


def main():
    """Run one case on a fresh loop; nothing may be left or reported."""
    global datagram_helpers
    import datagram_helpers
    import net_helpers

    import fastloop

    case, code = CASES[sys.argv[2]]
    asyncio.constants.ACCEPT_RETRY_DELAY = 0.01
    reports = []
    loop = fastloop.new_event_loop()
    loop.set_exception_handler(lambda _, context: reports.append(context))
    loop.run_until_complete(asyncio.sleep(0.002))  # opens what it waits with
    before = len(os.listdir("/proc/self/fd"))
    loop.run_until_complete(
        asyncio.wait_for(case(code, net_helpers, reports), 100)
    )
    loop.run_until_complete(net_helpers.iterations(5))
    if case not in COUNTED:
        assert hits(), "the call was never made"
    assert reports == [], reports
    after = len(os.listdir("/proc/self/fd"))
    loop.close()
    assert after <= before, (before, after)
    print("passed")


if __name__ == "__main__":
    main()
    sys.exit(0)


# --- the tests -------------------------------------------------------------

import pytest  # noqa: E402

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux", reason="the shim is made for Linux"
    ),
    pytest.mark.skipif(
        SANITIZED, reason="a sanitizer wraps the same functions"
    ),
]


@pytest.mark.parametrize("case", CASES)
def test_a_failing_call(shim, shim_env, case):
    gil_cases = ("writes-corked", "fork-kept-ENOSPC")
    if case in gil_cases and FREE_THREADED:
        pytest.skip("without a GIL nothing is corked or cached")
    forks = CASES[case][0] in (fork_space, fork_space_kept)
    if forks and sys.version_info >= (3, 14):
        pytest.skip("a task does not go on in a forked child from 3.14 on")
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", __file__, str(shim), case],
        env={
            **shim_env,
            "FASTLOOP_DISABLE": DISABLED.get(case, ""),
            VARIABLE: str(shim),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "passed\n"
