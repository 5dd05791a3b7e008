"""loop.subprocess_exec and loop.subprocess_shell: the calls themselves.

asyncio.subprocess is made of these; what programs do with it is tested in
test_subprocesses.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.usefixtures("child_watcher")

CAT = "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.exit(7)"


class Child(asyncio.SubprocessProtocol):
    """What became of a child: its output by descriptor, and its end."""

    def __init__(self):
        self.output = {1: b"", 2: b""}
        self.closed = []
        self.exited = False
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def pipe_data_received(self, fd, data):
        self.output[fd] += data

    def pipe_connection_lost(self, fd, exc):
        self.closed.append(fd)

    def process_exited(self):
        self.exited = True

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def ended(transport, protocol):
    """Wait for a child's end; its output and what it returned."""
    assert await protocol.lost is None
    assert protocol.exited
    transport.close()
    assert transport.is_closing()
    return protocol.output[1], transport.get_returncode()


async def test_exec(loop):
    transport, protocol = await loop.subprocess_exec(
        Child,
        *(sys.executable, "-c", CAT),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert isinstance(transport, asyncio.SubprocessTransport)
    assert protocol.transport is transport
    assert transport.get_returncode() is None
    os.kill(transport.get_pid(), 0)
    stdin = transport.get_pipe_transport(0)
    assert isinstance(stdin, asyncio.WriteTransport)
    for number in (1, 2):
        pipe = transport.get_pipe_transport(number)
        assert isinstance(pipe, asyncio.ReadTransport)
    assert transport.get_pipe_transport(3) is None
    popen = transport.get_extra_info("subprocess")
    assert popen.pid == transport.get_pid()
    stdin.write(b"text")
    stdin.write_eof()
    assert await ended(transport, protocol) == (b"TEXT", 7)
    assert sorted(protocol.closed) == [0, 1, 2]


async def test_shell(loop):
    transport, protocol = await loop.subprocess_shell(
        Child,
        "read x; echo $x; echo no >&2; exit 5",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    transport.get_pipe_transport(0).write(b"line\n")
    assert await ended(transport, protocol) == (b"line\n", 5)
    assert protocol.output[2] == b"no\n"


@pytest.mark.parametrize("stderr", [subprocess.STDOUT, subprocess.DEVNULL])
async def test_streams_that_are_no_pipes(loop, stderr, tmp_path):
    with open(os.devnull, "rb") as empty:
        transport, protocol = await loop.subprocess_shell(
            Child,
            "cat; echo out; echo err >&2",
            stdin=empty,
            stderr=stderr,
        )
        assert transport.get_pipe_transport(0) is None
        assert transport.get_pipe_transport(2) is None
        output, code = await ended(transport, protocol)
    both = stderr == subprocess.STDOUT
    assert output == (b"out\nerr\n" if both else b"out\n")
    assert code == 0
    with open(tmp_path / "out", "wb") as file:
        transport, protocol = await loop.subprocess_exec(
            Child, "echo", "to a file", stdin=None, stdout=file
        )
        await ended(transport, protocol)
    assert (tmp_path / "out").read_bytes() == b"to a file\n"


@pytest.mark.parametrize("how", ["terminate", "kill", "send_signal", "close"])
async def test_signals(loop, how):
    expected = {"terminate": signal.SIGTERM, "send_signal": signal.SIGUSR1}
    transport, protocol = await loop.subprocess_exec(Child, "sleep", "60")
    if how == "terminate":
        transport.terminate()
    elif how == "kill":
        transport.kill()
    elif how == "send_signal":
        transport.send_signal(signal.SIGUSR1)
    else:
        transport.close()
    _, code = await ended(transport, protocol)
    assert code == -expected.get(how, signal.SIGKILL)
    for call in (transport.terminate, transport.kill):
        with pytest.raises(ProcessLookupError):
            call()


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"universal_newlines": True}, "universal_newlines must be False"),
        ({"bufsize": 1}, "bufsize must be 0"),
        ({"text": True}, "text must be False"),
        ({"encoding": "utf-8"}, "encoding must be None"),
        ({"errors": "strict"}, "errors must be None"),
    ],
)
async def test_text_and_buffers_are_the_protocols_affair(loop, keywords, text):
    for call in (loop.subprocess_exec, loop.subprocess_shell):
        with pytest.raises(ValueError, match=text):
            await call(Child, "a", **keywords)


async def test_the_shell_is_a_call_of_its_own(loop):
    with pytest.raises(ValueError, match="shell must be False"):
        await loop.subprocess_exec(Child, "a", shell=True)
    with pytest.raises(ValueError, match="shell must be True"):
        await loop.subprocess_shell(Child, "a", shell=False)
    with pytest.raises(ValueError, match="cmd must be a string"):
        await loop.subprocess_shell(Child, ["a"])


async def test_keywords_that_popen_takes(loop, tmp_path):
    show = "import os; print(os.getcwd(), os.environ['A'], os.getpgid(0))"
    transport, protocol = await loop.subprocess_exec(
        Child,
        *("renamed", "-c", show),
        executable=sys.executable,
        cwd=tmp_path,
        env={**os.environ, "A": "value"},
        start_new_session=True,
        close_fds=True,
        pass_fds=(),
    )
    output, code = await ended(transport, protocol)
    group = str(transport.get_pid()).encode()
    wanted = [str(tmp_path.resolve()).encode(), b"value", group]
    assert output.split() == wanted
    assert code == 0


def test_commands_that_cannot_start(run, loop):
    with pytest.raises(FileNotFoundError):
        run(loop.subprocess_exec(Child, "/no/such/program"))
    with pytest.raises(TypeError):
        run(loop.subprocess_exec(Child, "true", no_such_keyword=1))


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="removed in 3.14")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_watcher_that_a_program_set_is_asked(run, loop):
    class Watcher(asyncio.ThreadedChildWatcher):
        children = []

        def add_child_handler(self, pid, callback, *args):
            self.children.append(pid)
            super().add_child_handler(pid, callback, *args)

    async def main():
        transport, protocol = await loop.subprocess_exec(Child, "true")
        assert Watcher.children == [transport.get_pid()]
        assert (await ended(transport, protocol))[1] == 0

    asyncio.set_child_watcher(Watcher())
    try:
        assert type(asyncio.get_child_watcher()) is Watcher
        run(main())
    finally:
        asyncio.set_child_watcher(None)
