"""What fastloop alone does where a system call fails, or how many it makes.

same_errors.py compares the effects of a failing read, write, accept or
datagram with asyncio's, and sweep.py lets every call fail for crashes, leaks
and hangs.  Run as a script this file is the program of its own tests:

    test_net_calls.py CASE
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys

from builds import FREE_THREADED, SANITIZED
from fault_shim import SHIM, arm, hits

# --- the program -----------------------------------------------------------


async def count_writes(most, helpers):
    """A header and a body a response: how many system calls they take."""

    def answer(protocol, data):
        protocol.transport.write(b"header:")
        protocol.transport.write(data)
        answered.append(data)

    answered, seen = [], {}
    for name in ("send", "sendmsg"):
        answered.clear()
        async with helpers.link(
            "tcp-server", helpers.Recorder(data=answer)
        ) as c:
            for i in range(60):
                if i == 10:
                    SHIM.fault_arm(name.encode(), 0, 0, 0)
                # Not by the loop, whose calls are counted.
                assert c.peer.sock.send(b"body") == 4
                # A loop that waits long is quiet, and corks nothing.
                await helpers.spin(lambda n=i: len(answered) > n)
                assert await c.peer.recv_exactly(11) == b"header:body"
            seen[name] = SHIM.fault_seen()
    print(seen, file=sys.stderr)
    assert sum(seen.values()) == most, seen


async def count_changes(most, helpers):
    async with helpers.link("tcp-server") as c:
        SHIM.fault_arm(b"epoll_ctl_mod", 0, 0, 0)
        for _ in range(10):
            c.transport.pause_reading()
            c.transport.resume_reading()
        assert SHIM.fault_seen() == most


async def thread_error(code, helpers):
    """There is no thread to send ahead: a run corks nothing then."""
    seen = []

    def answer(protocol, data):
        for part in (b"header:", data):
            protocol.transport.write(part)
            c.peer.sock.setblocking(True)
            seen.append(c.peer.sock.recv(100))

    async with helpers.link("tcp-server", helpers.Recorder(data=answer)) as c:
        arm("pthread_create", code, count=2)
        c.peer.sock.send(b"first")
        await helpers.spin(lambda: len(seen) == 2)
        c.peer.sock.send(b"second")
        await helpers.spin(lambda: len(seen) == 4)
    assert seen == [b"header:", b"first", b"header:", b"second"]


async def accept_error(code, helpers):
    """A sandbox knows accept() alone."""
    arm("accept4", code)
    async with helpers.link("tcp-server") as c:
        fd = c.transport.get_extra_info("socket").fileno()
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)


async def shared_error(code, helpers):
    """Where no registration can be exclusive, or none is left for one."""
    made = []

    def factory():
        made.append(helpers.Recorder())
        return made[-1]

    loop = asyncio.get_running_loop()
    if code == errno.EINVAL:
        arm("epoll_exclusive", code, count=100)
    else:
        arm("epoll_ctl", code, skip=2, count=2)
    with helpers.listening_socket() as sock:
        async with await loop.create_server(factory, sock=sock):
            for number in range(3):
                with socket.create_connection(sock.getsockname()):
                    await helpers.spin(lambda n=number: len(made) > n)
                await made[-1].wait_lost()
    if code == errno.EINVAL:  # one refusal each, and one a second later
        assert hits() >= 4


#: Each case, and its errno, or how many calls it makes.
CASES = {
    "accept": (accept_error, errno.ENOSYS),
    "changes": (count_changes, 0),
    "shared-no-room": (shared_error, errno.ENOSPC),
    "shared-refused": (shared_error, errno.EINVAL),
    "thread": (thread_error, errno.EAGAIN),
    "writes-corked": (count_writes, 50),
    "writes-not-corked": (count_writes, 100),
}
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
    loop.run_until_complete(asyncio.wait_for(case(code, net_helpers), 100))
    loop.run_until_complete(net_helpers.iterations(5))
    if case not in (count_changes, count_writes):
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
    if case in ("thread", "writes-corked") and FREE_THREADED:
        pytest.skip("without a GIL nothing is corked")
    out = run_program(__file__, case, FASTLOOP_DISABLE=DISABLED.get(case, ""))
    assert out == "passed\n"
