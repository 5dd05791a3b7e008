"""Child processes: how they are started, talked to and waited for."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading

import pytest
from patience import PATIENCE

SHOW = "import os, sys; print({})"


def python(expression):
    """The command of a child that prints the value of an expression."""
    return [sys.executable, "-c", SHOW.format(expression)]


pytestmark = pytest.mark.usefixtures("child_watcher")


async def output(*command, **how):
    """What a child printed, once it has ended well."""
    child = await asyncio.create_subprocess_exec(
        *command, stdout=subprocess.PIPE, **how
    )
    out, _ = await child.communicate()
    assert child.returncode == 0
    return out.decode().strip()


async def test_standard_streams_are_real_pipes():
    """A child may open /dev/stdin and its kin anew; a socket it could not."""
    child = await asyncio.create_subprocess_shell(
        "cat /dev/stdin > /dev/stdout; echo error > /dev/stderr",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert await child.communicate(b"data") == (b"data", b"error\n")


def test_other_children_are_left_alone(run):
    with subprocess.Popen(["sh", "-c", "exit 5"]) as other:

        async def main():
            assert await output(*python("1")) == "1"

        run(main())
        assert other.wait() == 5


def test_a_users_handler_of_sigchld(run):
    seen = []
    previous = signal.signal(signal.SIGCHLD, lambda *args: seen.append(args))

    async def main():
        assert await output(*python("1")) == "1"

    try:
        run(main())
        assert signal.getsignal(signal.SIGCHLD) is not previous
        assert seen
    finally:
        signal.signal(signal.SIGCHLD, previous)


def test_a_loop_in_another_thread(loop_factory):
    found = []

    def work():
        loop = loop_factory()
        try:
            found.append(loop.run_until_complete(output(*python("1"))))
        finally:
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)
    assert found == ["1"]


class Look:
    """The name of a folder, which receives when it is used."""

    def __init__(self, sock):
        self.sock, self.seen = sock, b""

    def __fspath__(self):
        self.seen += self.sock.recv(100)
        return "/"


@pytest.mark.parametrize("kind", ["tcp-client"])
async def test_what_was_written_is_sent_before_a_process_starts(
    transport_pair,
):
    """The process may be the one that needs it."""
    c = await transport_pair()
    c.transport.write(b"before")
    look = Look(c.peer.sock)
    child = await asyncio.create_subprocess_exec("true", cwd=look)
    assert await child.wait() == 0
    assert look.seen == b"before"
