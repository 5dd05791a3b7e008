"""The socket on which a process shows the metrics of its loops."""

import contextlib
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

import fastloop
from fastloop.cli import Refused, top
from fastloop.observe import metrics_socket

pytestmark = pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)


class Loop(fastloop.Loop):
    """A loop that the GC can collect, and whose metrics may fail."""

    broken = False

    def metrics(self):
        if self.broken:
            raise ValueError("of the program's")
        return super().metrics()


def test_the_sockets_folder_is_the_users_alone(loop, path):
    folder = Path(path).parent
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="this user's alone"):
        loop.enable_metrics(socket=True)
    folder.rmdir()
    loop.enable_metrics(socket=True)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert top.find(str(os.getpid())) == path


def test_loops_of_a_process_share_a_socket(loop, loop_factory, path):
    def shown():
        return [one["name"] for one in top.read(path)["loops"]]

    other = loop_factory()
    for one in (loop, other, other):
        one.enable_metrics(socket=True)
    assert shown() == ["main", "main-2"]
    loop.close()
    assert shown() == ["main-2"]
    other.close()


def test_the_last_slow_callbacks_are_remembered(loop, iterate):
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
    loop.enable_metrics()
    loop.slow_callback_duration = 0
    shown = []

    def look():
        try:
            for _ in range(1000):
                shown.append(metrics_socket.describe_loop(loop))
        finally:
            loop.call_soon_threadsafe(loop.stop)

    def again():
        loop.call_soon(again)

    again()
    in_thread(look)
    loop.run_forever()
    assert len(shown) == 1000


ENDED = "4194305"  # more than the number of any process


@pytest.mark.parametrize(
    ("pid", "kind", "remains"),
    [
        (ENDED, "refuses", False),
        (ENDED, "listens", True),  # in another container
        (ENDED, "is a file", True),
        (ENDED, "is another user's", True),
        ("parent's", "refuses", True),  # it may listen soon
        ("own", "refuses", True),  # as the new one
        ("other", "refuses", True),
    ],
)
def test_a_socket_of_a_process_that_has_ended_is_removed(
    loop, path, pid, kind, remains
):
    pids = {"parent's": os.getppid(), "own": os.getpid()}
    left = Path(path).with_name(f"{pids.get(pid, pid)}.sock")
    left.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        if kind == "is a file":
            left.touch()
        else:
            sock.bind(str(left))
        if kind == "listens":
            sock.listen()
        if kind == "is another user's":
            if os.geteuid():
                pytest.skip("cannot give it away")
            os.chown(left, 12345, -1)
        loop.enable_metrics(socket=True)
    assert left.exists() == remains
    assert top.read(path)["loops"]


def test_a_path_is_refused(loop):
    with pytest.raises(TypeError, match="socket is True or False, not '/x'"):
        loop.enable_metrics(socket="/x")


# -- ends ---------------------------------------------------------------------

#: It ends without closing its loop.
FORKS = """
import os, fastloop
from fastloop.observe import metrics_socket
path = metrics_socket.path_of(os.getpid(), os.geteuid())
loop = fastloop.new_event_loop()
loop.enable_metrics(socket=True)
pid = os.fork()
if pid == 0:
    os._exit(metrics_socket._server is not None)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.path.exists(path))
"""
#: Its process ends without the functions of `atexit`.
STARTS = """
import multiprocessing, os, fastloop
from fastloop.observe import metrics_socket
def child():
    loop = fastloop.new_event_loop()
    loop.enable_metrics(socket=True)
    os.stat(metrics_socket.path_of(os.getpid(), os.geteuid()))
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
path = metrics_socket.path_of(process.pid, os.geteuid())
print(process.exitcode, not os.path.exists(path))
"""


@pytest.mark.parametrize("program", [FORKS, STARTS], ids=["forks", "starts"])
def test_a_process_removes_its_socket_and_no_other(
    loop_kind, tmp_path, python, program
):
    folder = str(tmp_path)
    done = python("-W", "ignore", "-c", program, TMPDIR=folder)
    assert (done.stdout, done.stderr) == ("0 True\n", "")
    assert [*tmp_path.glob("*/*.sock")] == []


def test_a_thread_that_cannot_start_is_an_error(
    loop_factory, path, monkeypatch
):
    def start(thread):
        raise RuntimeError("can't start new thread")

    loop = loop_factory()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            loop.enable_metrics(socket=True)
    assert not os.path.exists(path)
    loop.enable_metrics(socket=True)
    assert top.read(path)["loops"]
    loop.close()


def test_metrics_that_fail_end_only_that_answer(loop_kind, path, capfd):
    with contextlib.closing(Loop()) as loop:
        loop.enable_metrics(socket=True)
        loop.broken = True
        with pytest.raises(Refused, match="no metrics"):
            top.read(path)
        assert "ValueError: of the program's" in capfd.readouterr().err
        loop.broken = False
        assert top.read(path)["loops"]
