"""What fastloop alone does where a system call fails, or how many it makes.

same_errors.py compares the effects of a failing read, write, accept or
datagram with asyncio's, and sweep.py lets every call fail for crashes, leaks
and hangs.  Run as a script this file is the program of its own tests:

    test_net_calls.py CASE
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import threading
import traceback

from builds import FREE_THREADED, SANITIZED
from fault_shim import SHIM, arm, hits

#: A native reader's memory and the loop's are filled by one call; without a
#: GIL the reader is asyncio's.
READ = "recv" if FREE_THREADED else "recvmsg"


# --- the program -----------------------------------------------------------


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
        assert task.exception().errno == code
        assert reader.exception() is task.exception()


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


async def renewal_error(code, helpers, reports):
    """A renewed set has no room for libuv: the loop polls at intervals until
    there is some.
    """
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    loop.add_reader(near, print)
    duplicate = near.dup()
    near.close()
    loop.remove_reader(near)  # too late
    left, right = socket.socketpair()
    arm("epoll_ctl_libuv", code, count=4)
    far.sendall(b"stale")
    while hits() < 4:
        seen = loop.create_future()
        loop.add_reader(left, seen.set_result, None)
        right.send(b"x")
        await seen
        left.recv(1)
    loop.remove_reader(left)
    for sock in (left, right, far, duplicate):
        sock.close()


async def first_wait_error(code, helpers, reports):
    """There is no room for what libuv polls when a loop first waits: the loop
    looks at it itself until there is some, also for other threads.  One that
    is closed meanwhile closes all it has.
    """
    new_loop = type(asyncio.get_running_loop())

    def wait(loop):
        seen = loop.create_future()
        loop.call_later(0.001, loop.call_soon, seen.set_result, "done")
        assert loop.run_until_complete(seen) == "done"

    def use(loops):
        arm("epoll_ctl_libuv", code, count=2)
        wait(loops[0])
        loops[0].close()
        assert 0 < hits() <= 2
        arm("epoll_ctl_libuv", code, count=8)
        seen = loops[1].create_future()
        others = threading.Thread(
            target=loops[1].call_soon_threadsafe, args=(seen.set_result, None)
        )
        loops[1].call_soon(others.start)
        loops[1].run_until_complete(seen)
        others.join()
        while hits() < 8:
            wait(loops[1])
        wait(loops[1])
        loops[1].close()

    await asyncio.to_thread(use, [new_loop(), new_loop()])


async def pass_in_child(part):
    """Fork; the child ends with what it runs, which has to pass there."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            await part()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


async def fork_space(code, helpers, reports):
    """The new set of a forked child has no room at first: nothing is lost."""
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    near, far = helpers.tcp_socketpair()
    near.setblocking(False)
    seen = loop.create_future()
    loop.add_reader(left, seen.set_result, None)
    task = loop.create_task(loop.sock_recv(near, 9))
    await helpers.iterations(2)

    async def child():
        # Of these two.
        arm("epoll_ctl", code, count=2)
        await helpers.iterations(2)
        assert hits() == 2
        right.send(b"x")
        far.send(b"data")
        await seen
        assert await task == b"data"

    await pass_in_child(child)
    loop.remove_reader(left)
    task.cancel()
    await asyncio.wait([task])
    for sock in (left, right, near, far):
        sock.close()


#: Each case, and its errno, or how many calls it makes.
CASES = {
    "reader-ECONNRESET": (reader_error, errno.ECONNRESET),
    "reader-ENOMEM": (reader_error, errno.ENOMEM),
    "first-wait": (first_wait_error, errno.ENOSPC),
    "renewal": (renewal_error, errno.ENOSPC),
    "fork-ENOSPC": (fork_space, errno.ENOSPC),
    "fork-ENOMEM": (fork_space, errno.ENOMEM),
    "writes-corked": (count_writes, 50),
    "writes-not-corked": (count_writes, 100),
}
#: Cases in which no call is made to fail, or a child's alone.
COUNTED = (count_writes, fork_space)
#: The fast path that a case turns off.
DISABLED = {"writes-not-corked": "cork"}


def main():
    """Run one case on a fresh loop; nothing may be left or reported."""
    import net_helpers

    import fastloop

    case, code = CASES[sys.argv[1]]
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

pytestmark = pytest.mark.skipif(
    SANITIZED, reason="a sanitizer wraps the same functions"
)


@pytest.mark.parametrize("case", CASES)
def test_a_failing_call(run_program, case):
    if case == "writes-corked" and FREE_THREADED:
        pytest.skip("without a GIL nothing is corked")
    if CASES[case][0] is fork_space and sys.version_info >= (3, 14):
        pytest.skip("a task does not go on in a forked child from 3.14 on")
    out = run_program(__file__, case, FASTLOOP_DISABLE=DISABLED.get(case, ""))
    assert out == "passed\n"
