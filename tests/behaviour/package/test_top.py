"""What a process shows of its loops on a socket, and ``top``, which reads it.

The socket is the user's own and no client writes to it; it answers while the
loop is blocked, for that is when it is needed.
"""

import asyncio
import gc
import itertools
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest
from builds import HAS_GIL
from patience import PATIENCE

import fastloop
from fastloop import cli
from fastloop.cli.commands import Refused
from fastloop.observe import metrics_socket
from fastloop.observe import reading as reader
from fastloop.observe.top import _text

pytestmark = pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)


@pytest.fixture
def path(tmp_path):
    """Return the path for a socket."""
    return str(tmp_path / "loops.sock")


@pytest.fixture
def shown(loop, path):
    """Return the path of the socket on which ``loop`` is shown."""
    loop.enable_metrics(socket=path)
    return path


@pytest.fixture
def top(capsys):
    """Return a function that runs top and returns code, output and errors.

    A sentence on stderr has one line, however it was wrapped.
    """

    def top(*arguments):
        code = cli.main(["top", *arguments])
        out, err = capsys.readouterr()
        return code, out, re.sub(r"\n(?=.)", " ", err)

    return top


# -- the socket ---------------------------------------------------------------


def test_the_socket_is_the_users_alone(loop, shown):
    found = os.stat(shown)
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    loop.close()
    assert not os.path.exists(shown)


def test_data_that_a_client_sends_is_ignored(loop, path, monkeypatch):
    """All of it is there before the answer is made, so it could be read."""
    sent = threading.Event()

    def describe_loop(loop):
        assert sent.wait(PATIENCE)
        return describe(loop)

    describe = metrics_socket.describe_loop
    monkeypatch.setattr(metrics_socket, "describe_loop", describe_loop)
    loop.enable_metrics(socket=path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(path)
        sock.sendall(b'{"command": "stop"}\n' * 100)
        sent.set()
        assert json.loads(sock.recv(1 << 16))["loops"]
    assert len(reader.read(path)["loops"]) == 1


def test_loops_of_a_process_share_a_socket(loop, loop_factory, path):
    other = loop_factory()
    loop.enable_metrics(socket=path)
    other.enable_metrics(socket=path)
    other.enable_metrics(socket=path)
    assert len(reader.read(path)["loops"]) == 2
    other.close()
    assert len(reader.read(path)["loops"]) == 1


async def test_it_answers_while_the_loop_is_blocked(shown, in_thread):
    await asyncio.sleep(0)
    found = []

    def look():
        while not found or not found[-1]["blocked_in"]:
            found.append(reader.read(shown)["loops"][0])

    def block_here(thread):
        while thread.is_alive():
            time.sleep(0.001)

    block_here(in_thread(look))
    where = "block_here" if HAS_GIL else "without a GIL"
    assert any(where in line for line in found[-1]["blocked_in"])
    assert found[-1]["metrics"].busy_ns >= 50e6


def test_the_lines_of_a_blocked_callback_are_shown(
    loop_kind, path, top, tmp_path
):
    """Not those of the loop and of the command that run it."""
    file = tmp_path / "prog.py"
    file.write_text(
        "import asyncio, sys\n"
        "async def block(): print('now', flush=True); sys.stdin.read()\n"
        "asyncio.run(block())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "fastloop", "run", str(file)],
        env={**os.environ, "FASTLOOP_METRICS_SOCKET": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "now\n"
    out = ""
    while "blocked in:" not in out and process.poll() is None:
        code, out, err = top(path, "--once")
        assert (code, err) == (0, "")
    process.communicate(timeout=PATIENCE)
    assert (f"{file}:2 block" if HAS_GIL else "without a GIL") in out
    assert "run_forever" not in out and "fastloop/cli" not in out


def test_only_the_last_slow_callbacks_are_remembered(loop, iterate):
    loop.enable_metrics()
    loop.slow_callback_duration = 0
    for kind in (str, *[int] * 16):
        loop.call_soon(kind)
    loop.call_soon(list)
    iterate()
    slow = metrics_socket.describe_loop(loop)["slow"]
    names = [found["name"] for found in slow]
    assert len(names) == 16
    assert "str" not in names
    assert "list" in names


def test_slow_callbacks_are_shown_while_others_end(loop, in_thread):
    """Without a GIL a thread reads them at the same time."""
    loop.enable_metrics()
    loop.slow_callback_duration = 0
    failures = []

    def look():
        try:
            for _ in range(1000):
                metrics_socket.describe_loop(loop)
        except RuntimeError as exc:
            failures.append(exc)
        finally:
            loop.call_soon_threadsafe(loop.stop)

    def again():
        loop.call_soon(again)

    again()
    looking = in_thread(look)
    loop.run_forever()
    looking.join()
    assert failures == []


def program(environment, code, warnings="error"):
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("FASTLOOP_METRICS")
    }
    return subprocess.run(
        [sys.executable, "-W", warnings, "-c", code],
        env={**env, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_a_program_that_ends_without_closing_removes_it(loop_kind, path):
    done = program(
        {"FASTLOOP_METRICS_SOCKET": path},
        "import fastloop, os\n"
        "loop = fastloop.new_event_loop()\n"
        f"print(os.path.exists({path!r}))",
        warnings="ignore",
    )
    assert done.stdout == "True\n", done.stderr
    assert done.stderr == ""
    assert not os.path.exists(path)


def test_a_stale_socket_is_replaced(loop, path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    loop.enable_metrics(socket=path)
    assert reader.read(path)["pid"] == os.getpid()


def test_files_and_sockets_in_use_are_not_removed(loop, tmp_path, path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(FileExistsError):
        loop.enable_metrics(socket=str(file))
    with pytest.raises(
        TypeError, match=r"a path as a str, or True, not .*file'\)"
    ):
        loop.enable_metrics(socket=file)
    assert file.read_text() == "mine"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()
        with pytest.raises(OSError, match=r"another process|in use"):
            loop.enable_metrics(socket=path)
    assert os.path.exists(path)
    # It counts all the same.
    assert loop.metrics().iterations == 0


def test_a_path_that_cannot_be_bound_is_an_error(loop, tmp_path):
    with pytest.raises(OSError, match="No such file"):
        loop.enable_metrics(socket=str(tmp_path / "none" / "x.sock"))


def test_the_default_folder_must_be_the_users_alone(
    loop, tmp_path, monkeypatch
):
    monkeypatch.setattr(metrics_socket.tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"fastloop-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionError):
        loop.enable_metrics(socket=True)
    folder.chmod(0o700)
    loop.enable_metrics(socket=True)
    own = os.getpid()
    assert reader.find(str(own)) == f"{folder}/{own}.sock"


def test_a_client_that_does_not_read_blocks_no_other(shown, in_thread):
    idle = []
    for _ in range(3):
        idle.append(socket.socket(socket.AF_UNIX))
        idle[-1].connect(shown)
    assert reader.read(shown)["loops"]
    for sock in idle:
        sock.close()


def test_a_forked_child_leaves_the_parents_socket(loop, shown):
    # In a program of its own, for 3.12 warns of forks where threads are.
    script = f"""
import os, sys, fastloop
loop = fastloop.new_event_loop()
loop.enable_metrics(socket={shown + ".2"!r})
pid = os.fork()
if pid == 0:
    from fastloop.observe import metrics_socket
    os._exit(len(metrics_socket._servers))
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert os.path.exists({shown + ".2"!r})
loop.close()
assert not os.path.exists({shown + ".2"!r})
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], timeout=PATIENCE
    )
    assert done.returncode == 0
    assert os.path.exists(shown)


def test_a_child_that_is_forked_in_an_answer_does_not_hold_it(loop_kind, path):
    script = f"""
import os, socket, threading, fastloop
from fastloop.observe import metrics_socket

class Loop(fastloop.Loop):
    def metrics(self):
        asked.set()
        forked.wait()
        return super().metrics()

asked, forked = threading.Event(), threading.Event()
loop = Loop()
loop.enable_metrics(socket={path!r})
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(10)
    sock.connect({path!r})
    asked.wait()
    read, write = os.pipe()
    if os.fork() == 0:
        os.close(write)
        sock.close()
        os.read(read, 1)
        os._exit(0)
    forked.set()
    while sock.recv(65536):
        pass
os.close(write)
os.wait()
loop.close()
"""
    done = program({}, script, warnings="ignore")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_loop_that_was_collected_is_no_reason_to_stay(loop_factory, path):
    class Loop(fastloop.Loop):
        pass

    loop = Loop()
    loop.itself = loop
    loop.enable_metrics(socket=path)
    del loop
    with pytest.warns(ResourceWarning):
        gc.collect()
    assert not os.path.exists(path)


# -- top ----------------------------------------------------------------------


async def test_once_as_json(shown, top):
    await asyncio.sleep(0.01)
    code, out, err = top(shown, "--once", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["pid"] == os.getpid()
    assert found["loops"][0]["running"] is True
    assert found["loops"][0]["metrics"]["sleep_time_ns"] >= 8e6
    assert 0 < found["loops"][0]["metrics"]["utilization"] < 1


async def test_once_as_text(shown, top):
    await asyncio.sleep(0.01)
    code, out, err = top(shown, "--once")
    assert (code, err) == (0, "")
    for name in ("utilization", "lag", "connections", "executor", "slow"):
        assert name in out
    assert re.search(r"in [\d.]+ [kMG]?B/s, out [\d.]+ [kMG]?B/s", out)


def test_figures_tell_the_time_that_they_count(loop, shown):
    first, later = reader.read(shown), reader.read(shown)
    assert "period  since metrics were enabled" in _text(first, None)
    assert "period  the last " in _text(later, first)


@pytest.mark.parametrize("terminal", [True, False])
def test_top_ends_with_ctrl_c(shown, terminal):
    """Without a traceback."""
    code = (
        "import sys\n"
        "from fastloop.cli import main\n"
        f"sys.exit(main(['top', {shown!r}, '--interval', '0.05']))"
    )
    ours, theirs = os.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    seen = 0
    with open(ours, encoding="utf-8") as out:
        for line in out:
            assert terminal or "\x1b" not in line
            seen += "utilization" in line
            if seen == 3:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_end_of_the_process_is_a_one_line_error(
    loop, shown, top, options, monkeypatch
):
    reads = itertools.count()

    def read(*arguments):
        if next(reads) == 3:
            loop.close()
        return reader.read(*arguments)

    monkeypatch.setattr("fastloop.observe.top.read", read)
    code, out, err = top(shown, "--interval", "0.02", *options)
    assert code == 2
    assert "utilization" in out
    assert err == f"fastloop: {shown}: No such file or directory\n"


def test_invalid_answers_are_one_line_errors(loop, tmp_path, top):
    own = str(os.getpid())
    assert top(own, "--once")[0::2] == (
        2,
        f"fastloop: process {own} has no socket of the usual name: name the "
        f"path of its socket, or {reader.HOW}\n",
    )
    code, out, err = top(str(tmp_path / "none"), "--once")
    assert (code, out) == (2, "") and "No such file" in err
    code, out, err = top("4194305", "--once")
    assert (code, out) == (2, "") and "no process 4194305" in err
    code, out, err = top(f"1{'0' * 30}", "--once")
    assert (code, out) == (2, "") and "no process 1000" in err
    for interval in ("0", "nan", "inf"):
        code, out, err = top(own, "--interval", interval)
        assert (code, out) == (2, "") and "--interval" in err


def answered(path, top, in_thread, text):
    """What top says of a server's answer."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()

        def answer():
            peer, _ = sock.accept()
            peer.sendall(text)
            peer.close()

        in_thread(answer)
        return top(path, "--once")


def test_an_answer_of_another_version_names_that(loop, path, top, in_thread):
    text = b'{"fastloop": "9.9", "loops": [{}]}'
    code, out, err = answered(path, top, in_thread, text)
    assert (code, out) == (2, "")
    says = f"its process has fastloop 9.9, not {fastloop.__version__}"
    assert err == f"fastloop: {path}: {says}\n"


@pytest.mark.parametrize("text", [b"220 hello\r\n", b"[]", b"{}"])
def test_another_programs_socket_is_a_sentence(
    loop, path, top, in_thread, text
):
    code, out, err = answered(path, top, in_thread, text)
    assert (code, out) == (2, "")
    assert "no metrics of fastloop's" in err


def test_a_program_whose_path_is_no_text_is_shown(
    loop, path, top, monkeypatch
):
    monkeypatch.setattr(sys, "argv", [os.fsdecode(b"\xff.py")])
    loop.enable_metrics(socket=path)
    code, out, err = top(path, "--once")
    assert (code, err) == (0, "")
    assert out.startswith("\\udcff.py, process")


async def test_what_a_terminal_would_obey_is_shown_as_text(
    shown, top, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["\x1b]0;title\x07.py"])
    code, out, err = top(shown, "--once")
    assert (code, err) == (0, "")
    assert out.startswith("\\x1b]0;title\\x07.py, process")


def test_a_process_that_does_not_answer_has_not_ended(
    loop_kind, tmp_path, monkeypatch
):
    """It is stopped, or C code has its GIL."""
    monkeypatch.setattr(reader, "_TIMEOUT_S", 0.2)
    path = str(tmp_path / "silent")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(path)
        silent.listen()
        with pytest.raises(Refused, match=r"no answer in 0\.2 s: the process"):
            reader.read(path)
