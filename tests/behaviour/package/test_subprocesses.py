"""Child processes: how they are started, talked to and waited for."""

from __future__ import annotations

import asyncio
import os
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


async def test_input_and_output():
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; data = sys.stdin.read();"
        "print(data.upper()); print(len(data), file=sys.stderr)",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    data = b"x" * 300_000
    out, err = await child.communicate(data)
    assert out.strip() == data.upper()
    assert err.strip() == b"300000"
    assert child.returncode == 0
    assert await child.wait() == 0


async def test_a_shell():
    child = await asyncio.create_subprocess_shell(
        "read x; echo got $x; exit 3",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    out, _ = await child.communicate(b"it\n")
    assert out == b"got it\n"
    assert child.returncode == 3


async def test_standard_streams_are_real_pipes():
    """A child may open /dev/stdin and its kin anew; a socket it could not."""
    child = await asyncio.create_subprocess_shell(
        "cat /dev/stdin > /dev/stdout; echo error > /dev/stderr",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert await child.communicate(b"data") == (b"data", b"error\n")


async def test_the_environment(monkeypatch):
    monkeypatch.setenv("FASTLOOP_CHILD", "inherited")
    show = python("os.environ.get('FASTLOOP_CHILD')")
    assert await output(*show) == "inherited"
    assert await output(*show, env=os.environ) == "inherited"
    other = {**os.environ, "FASTLOOP_CHILD": "own"}
    assert await output(*show, env=other) == "own"


async def test_popen_keywords(tmp_path):
    assert await output(*python("os.getcwd()"), cwd=tmp_path) == str(
        tmp_path.resolve()
    )
    mask = python("os.umask(0)")
    assert await output(*mask, umask=0o077) == str(0o077)
    group = python("os.getpgid(0) == os.getpid()")
    assert await output(*group, process_group=0) == "True"
    session = python("os.getsid(0) == os.getpid()")
    assert await output(*session, start_new_session=True) == "True"
    assert await output(*python("1"), preexec_fn=os.getpid) == "1"


def test_descriptors_are_passed(run):
    read, write = os.pipe()

    async def main():
        show = python(f"os.read({read}, 9).decode()")
        os.write(write, b"passed")
        assert await output(*show, pass_fds=[read]) == "passed"

    try:
        run(main())
    finally:
        os.close(read)
        os.close(write)


async def test_files_as_standard_streams(tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"from a file")
    with source.open("rb") as stdin, target.open("wb") as stdout:
        child = await asyncio.create_subprocess_exec(
            "cat", stdin=stdin, stdout=stdout
        )
        assert await child.wait() == 0
    assert target.read_bytes() == b"from a file"


async def test_user_and_group():
    if os.getuid() != 0:
        pytest.skip("only root may become another user")

    shown = await output("sh", "-c", "id -u; id -g", user=65534, group=65534)
    assert shown.split() == ["65534", "65534"]


async def test_many_children_at_once():
    async def one(number):
        child = await asyncio.create_subprocess_shell(f"exit {number}")
        return await child.wait()

    codes = await asyncio.gather(*map(one, range(12)))
    assert codes == list(range(12))


async def test_cancelled_while_it_waits():
    child = await asyncio.create_subprocess_exec("sleep", "60")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(child.wait(), 0.01)
    assert child.returncode is None
    child.kill()
    assert await child.wait() == -signal.SIGKILL


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
