"""What a connection's protocol and its peers are told when a call fails.

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
import os
import pathlib
import socket
import subprocess
import sys
import sysconfig

from fault_calls import SHIM, VARIABLE, arm, check, hits
from fault_cuts import cut_stress
from fault_registrations import (
    first_wait_error,
    fork_fd,
    fork_space,
    fork_space_kept,
    renewal_error,
    watch_error,
    watch_error_again,
)
from fault_shim import BOTH

HERE = pathlib.Path(__file__).resolve().parent
BEHAVIOUR = HERE.parent / "behaviour"
SANITIZED = "sanitizer" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
NO_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
#: A native reader's memory and the loop's are filled by one call; without a
#: GIL the reader is asyncio's.
READ = "recv" if NO_GIL else "recvmsg"


# --- the program -----------------------------------------------------------


async def read_error(code, helpers, reports):
    """recv fails: connection_lost with that error, and nothing reported."""
    async with helpers.link("tcp-server") as c:
        arm("recv", code)
        await c.peer.send(b"data")
        exc = await c.protocol.wait_lost()
        check(exc, code, reports)
        assert c.protocol.names == ["made", "lost"]


async def read_buffered_error(code, helpers, reports):
    async with helpers.link("unix", helpers.BufferedRecorder()) as c:
        arm("recv", code)
        await c.peer.send(b"data")
        exc = await c.protocol.wait_lost()
        check(exc, code, reports)


async def read_again(code, helpers, reports):
    """EAGAIN and EINTR are no errors: the data comes all the same."""
    async with helpers.link("tcp-client") as c:
        arm("recv", code, count=3)
        await c.peer.send(b"data")
        assert await c.protocol.wait_data(4) == b"data"
        assert c.protocol.names == ["made", "data"]


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


async def reader_again(code, helpers, reports):
    async with reading(helpers) as (reader, peer, task):
        arm(READ, code, count=3)
        data = helpers.pattern(300_000)
        sending = asyncio.create_task(peer.send(data))
        assert await task == data[:100_000]
        assert await reader.readexactly(200_000) == data[100_000:]
        await sending


async def reader_cut(code, helpers, reports):
    SHIM.fault_cut(BOTH, code, 3, errno.EAGAIN)
    await reader_again(errno.EINTR, helpers, reports)
    SHIM.fault_cut(0, 0, 0, 0)


async def write_error(code, helpers, reports):
    """The write returns; the connection is lost with the error, quietly."""
    async with helpers.link("tcp-server") as c:
        arm("send", code)
        assert c.transport.write(b"data") is None
        exc = await c.protocol.wait_lost()
        check(exc, code, reports)
        assert c.transport.get_write_buffer_size() == 0
        assert c.transport.is_closing()


async def write_again(code, helpers, reports):
    """What the kernel does not take now leaves later, whole."""
    async with helpers.link("unix") as c:
        arm("send", code)
        c.transport.write(b"first ")
        if code == errno.EAGAIN:
            assert c.transport.get_write_buffer_size() == 6
        c.transport.write(b"second")
        assert await c.peer.recv_exactly(12) == b"first second"
        assert c.protocol.names == ["made"]


async def flush_error(code, helpers, reports):
    """The same for what waited: dropped, and told once."""
    async with helpers.link("tcp-client") as c:
        c.shrink()
        c.transport.write(bytes(4 * helpers.MIB))
        assert c.transport.get_write_buffer_size() > 0
        arm("send", code)
        await c.peer.recv(helpers.MIB)
        while not hits() and not c.protocol.lost:
            await c.peer.recv(helpers.MIB)
        exc = await c.protocol.wait_lost()
        check(exc, code, reports)
        assert c.transport.get_write_buffer_size() == 0
        assert c.protocol.names == ["made", "pause", "lost"]


async def writev_error(code, helpers, reports):
    async with helpers.link("unix") as c:
        arm("sendmsg", code)
        c.transport.writelines([b"a", b"b", b"c"])
        c.transport.write(b"d")
        exc = await c.protocol.wait_lost()
        check(exc, code, reports)


async def writev_again(code, helpers, reports):
    async with helpers.link("unix") as c:
        arm("sendmsg", code)
        c.transport.writelines([b"a", b"b", b"c"])
        c.transport.write(b"d")
        assert await c.peer.recv_exactly(4) == b"abcd"


async def close_error(code, helpers, reports):
    """A flush that fails while closing: told the error, not a clean end."""
    async with helpers.link("tcp-server") as c:
        c.shrink()
        c.transport.write(bytes(4 * helpers.MIB))
        c.transport.close()
        arm("send", code)
        while not hits() and not c.protocol.lost:
            await c.peer.recv(helpers.MIB)
        exc = await c.protocol.wait_lost()
        check(exc, code, reports)


async def accept_exhausted(code, helpers, reports):
    """Reported, retried after a pause, and the client is served."""
    loop = asyncio.get_running_loop()
    protocol = helpers.Recorder()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    arm("accept4", code)
    address = server.sockets[0].getsockname()
    sock = socket.create_connection(address)
    await protocol.wait_for("made")
    (report,) = reports
    assert report["message"] == "socket.accept() out of system resource"
    check(report["exception"], code, reports)
    assert report["socket"].getsockname() == address
    reports.clear()
    sock.close()
    await protocol.wait_lost()
    server.close()


async def accept_passed_over(code, helpers, reports):
    """A connection that is gone again is no error of the listener's."""
    loop = asyncio.get_running_loop()
    protocol = helpers.Recorder()
    server = await loop.create_server(lambda: protocol, "127.0.0.1", 0)
    arm("accept4", code)
    sock = socket.create_connection(server.sockets[0].getsockname())
    await protocol.wait_for("made")
    sock.close()
    await protocol.wait_lost()
    server.close()
    reports.clear()


async def name_error(code, helpers, reports):
    """An unknown name is None, and the connection works."""
    arm("getsockname", code, count=100)
    async with helpers.link("tcp-server") as c:
        assert c.transport.get_extra_info("sockname") is None
        await c.peer.send(b"data")
        assert await c.protocol.wait_data(4) == b"data"


async def option_error(code, helpers, reports):
    """TCP_NODELAY that cannot be set ends nothing."""
    arm("setsockopt", code, count=100)
    async with helpers.link("tcp-client") as c:
        await c.peer.send(b"data")
        assert await c.protocol.wait_data(4) == b"data"


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
    await helpers.turns(5)
    arm("recv", code)
    near.transport.write(b"y")
    exc = await far.wait_lost()
    check(exc, code, reports)
    await near.wait_lost()
    server.close()


async def cut_tls(code, helpers, reports):
    """A large transfer over TLS under short reads and writes."""
    SHIM.fault_cut(BOTH, code, 3, errno.EAGAIN)
    server, near, far = await joined_by_tls(helpers)
    data = helpers.pattern(300_000)
    near.transport.write(data)
    near.transport.close()
    await far.wait_lost()
    assert far.data == data
    await near.wait_lost()
    SHIM.fault_cut(0, 0, 0, 0)
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
    """The protocol is told, and hears of the datagram all the same."""
    async with datagram_helpers.endpoint() as p:
        arm("recvmmsg", code)
        p.transport.sendto(b"data", p.transport.get_extra_info("sockname"))
        exc = await p.wait("error")
        assert isinstance(exc, OSError) and exc.errno == code, exc
        await p.wait("datagram")
        assert p.names == ["made", "error", "datagram"]


async def datagram_read_again(code, helpers, reports):
    async with datagram_helpers.endpoint() as p:
        arm("recvmmsg", code, count=3)
        p.transport.sendto(b"data", p.transport.get_extra_info("sockname"))
        await p.wait("datagram")
        assert p.names == ["made", "datagram"]


async def datagram_send_error(code, helpers, reports):
    """The datagram is gone, the protocol is told, the next is sent."""
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
    """What waits is sent in order, several with one call."""
    with datagram_helpers.plain() as peer:
        how = {"remote_addr": peer.getsockname()} if connected else {}
        async with datagram_helpers.endpoint(**how) as p:
            await queue_datagrams(p, peer, 1, connected)
            await helpers.turns(3)
            await queue_datagrams(p, peer, 40, connected)
            SHIM.fault_arm(b"sendmmsg", 0, 0, 0)
            await helpers.turns(5)
            assert p.transport.get_write_buffer_size() == 0
            assert SHIM.fault_seen() <= (3 if connected else 8)
            got = [peer.recv(9) for _ in range(41)]
            assert got == [b"0"] + [b"%d" % n for n in range(40)]
            assert p.names == ["made"]


async def datagram_flush_error(code, helpers, reports):
    """The first that waits is gone and told, the rest is sent."""
    with datagram_helpers.plain() as peer:
        async with datagram_helpers.endpoint(
            remote_addr=peer.getsockname()
        ) as p:
            await queue_datagrams(p, peer, 20, True)
            arm("sendmmsg", code)
            exc = await p.wait("error")
            assert isinstance(exc, OSError) and exc.errno == code, exc
            got = await datagram_helpers.drain(peer, 19)
            assert got == [b"%d" % n for n in range(1, 20)]
            p.transport.close()
            await p.wait("lost")
            assert p.names == ["made", "error", "lost"]


async def datagram_flush_again(code, helpers, reports):
    with datagram_helpers.plain() as peer:
        async with datagram_helpers.endpoint(
            remote_addr=peer.getsockname()
        ) as p:
            await queue_datagrams(p, peer, 20, True)
            arm("sendmmsg", code, count=3)
            p.transport.close()
            assert await p.wait("lost") is None
            got = [peer.recv(9) for _ in range(20)]
            assert got == [b"%d" % n for n in range(20)]


CASES = {
    "datagram-read": (datagram_read_error, errno.EIO),
    "datagram-read-memory": (datagram_read_error, errno.ENOMEM),
    "datagram-read-would-block": (datagram_read_again, errno.EAGAIN),
    "datagram-read-interrupted": (datagram_read_again, errno.EINTR),
    "datagram-send": (datagram_send_error, errno.EPERM),
    "datagram-send-memory": (datagram_send_error, errno.ENOMEM),
    "datagram-send-buffers": (datagram_send_error, errno.ENOBUFS),
    "datagram-queue": (datagram_queue, False),
    "datagram-queue-connected": (datagram_queue, True),
    "datagram-flush": (datagram_flush_error, errno.EPERM),
    "datagram-flush-would-block": (datagram_flush_again, errno.EAGAIN),
    "read-reset": (read_error, errno.ECONNRESET),
    "read-io": (read_error, errno.EIO),
    "read-memory": (read_error, errno.ENOMEM),
    "read-timeout": (read_error, errno.ETIMEDOUT),
    "read-buffered-reset": (read_buffered_error, errno.ECONNRESET),
    "read-buffered-memory": (read_buffered_error, errno.ENOMEM),
    "read-would-block": (read_again, errno.EAGAIN),
    "read-interrupted": (read_again, errno.EINTR),
    "reader-reset": (reader_error, errno.ECONNRESET),
    "reader-memory": (reader_error, errno.ENOMEM),
    "reader-would-block": (reader_again, errno.EAGAIN),
    "reader-interrupted": (reader_again, errno.EINTR),
    "reader-cut": (reader_cut, 9000),
    "write-pipe": (write_error, errno.EPIPE),
    "write-reset": (write_error, errno.ECONNRESET),
    "write-memory": (write_error, errno.ENOMEM),
    "write-would-block": (write_again, errno.EAGAIN),
    "write-interrupted": (write_again, errno.EINTR),
    "flush-reset": (flush_error, errno.ECONNRESET),
    "flush-io": (flush_error, errno.EIO),
    "writev-pipe": (writev_error, errno.EPIPE),
    "writev-memory": (writev_error, errno.ENOMEM),
    "writev-would-block": (writev_again, errno.EAGAIN),
    "writev-interrupted": (writev_again, errno.EINTR),
    "close-reset": (close_error, errno.ECONNRESET),
    "accept-files": (accept_exhausted, errno.EMFILE),
    "accept-system-files": (accept_exhausted, errno.ENFILE),
    "accept-memory": (accept_exhausted, errno.ENOMEM),
    "accept-buffers": (accept_exhausted, errno.ENOBUFS),
    "accept-aborted": (accept_passed_over, errno.ECONNABORTED),
    "accept-interrupted": (accept_passed_over, errno.EINTR),
    "watch-space": (watch_error, errno.ENOSPC),
    "watch-memory": (watch_error, errno.ENOMEM),
    "watch-space-again": (watch_error_again, errno.ENOSPC),
    "watch-memory-again": (watch_error_again, errno.ENOMEM),
    "first-wait-space": (first_wait_error, errno.ENOSPC),
    "renewal-space": (renewal_error, errno.ENOSPC),
    "fork-space": (fork_space, errno.ENOSPC),
    "fork-space-kept": (fork_space_kept, errno.ENOSPC),
    "fork-memory": (fork_space, errno.ENOMEM),
    "fork-fd": (fork_fd, errno.EBUSY),
    "fork-fd-flag": (fork_fd, errno.EINTR),
    "name": (name_error, errno.ENOBUFS),
    "option": (option_error, errno.EINVAL),
    "tls-read": (tls_read_error, errno.ETIMEDOUT),
    "cut-1000": (cut_stress, 1000),
    "cut-7777": (cut_stress, 7777),
    "cut-tls": (cut_tls, 500),
    "writes-held": (count_writes, 50),
    "writes-not-held": (count_writes, 100),
}
#: Cases in which no call is made to fail.
COUNTED = (
    cut_stress,
    cut_tls,
    count_writes,
    datagram_queue,
    fork_fd,
    fork_space,
    fork_space_kept,
)
#: The fast path that a case turns off.
DISABLED = {"writes-not-held": "hold_writes"}


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
    before = len(os.listdir("/proc/self/fd"))
    loop.run_until_complete(
        asyncio.wait_for(case(code, net_helpers, reports), 100)
    )
    loop.run_until_complete(net_helpers.turns(5))
    if case not in COUNTED:
        assert hits(), "the call was never made"
    assert reports == [], reports
    after = len(os.listdir("/proc/self/fd"))
    loop.close()
    assert after <= before, (before, after)
    print("passed")


if __name__ == "__main__":
    tests = (BEHAVIOUR, BEHAVIOUR / "transport", HERE.parent)
    sys.path[:0] = map(str, tests)
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
    gil_cases = ("writes-held", "fork-space-kept")
    if case in gil_cases and NO_GIL:
        pytest.skip("without a GIL nothing is held, nor kept")
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
