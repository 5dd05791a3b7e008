"""The socket on which a process shows the metrics of its loops."""

import contextlib
import io
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

import fastloop
from fastloop import cli
from fastloop.observe import metrics_socket, reading

pytestmark = pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)


class Loop(fastloop.Loop):
    """A loop that the GC can collect, and whose metrics may fail."""

    broken = False

    def metrics(self):
        if self.broken:
            raise ValueError("of the program's")
        return super().metrics()


def test_the_socket_is_the_users_alone(loop, path):
    loop.enable_metrics(socket=path)
    found = os.stat(path)
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600


def test_loops_of_a_process_share_a_socket(loop, loop_factory, path):
    other = loop_factory()
    loop.enable_metrics(socket=path)
    other.enable_metrics(socket=path)
    other.enable_metrics(socket=path)
    assert [one["number"] for one in reading.read(path)["loops"]] == [0, 1]
    loop.close()
    # A later loop is not taken for an earlier one.
    later = loop_factory()
    later.enable_metrics(socket=path)
    assert [one["number"] for one in reading.read(path)["loops"]] == [1, 2]
    for one in (other, later):
        one.close()


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


# -- paths --------------------------------------------------------------------


def bound(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    return sock


def stale(path):
    sock = bound(path)
    sock.close()
    return sock


def listening(path):
    sock = bound(path)
    sock.listen()
    return sock


@pytest.mark.parametrize(
    ("before", "name", "text"),
    [
        (lambda path: open(path, "w"), "x", "not a socket"),
        (listening, "x", "another process"),
        (lambda path: io.StringIO(), "none/x", "No such file"),
        (stale, "x", None),
    ],
)
def test_only_a_stale_socket_is_replaced(loop, path, before, name, text):
    at = Path(path).parent / name
    wrong = pytest.raises(OSError, match=text)
    with contextlib.closing(before(at)):
        was_there = at.exists()
        with wrong if text else contextlib.nullcontext():
            loop.enable_metrics(socket=str(at))
    assert at.exists() == was_there
    loop.metrics()  # does not raise: metrics are on


def test_a_path_is_text(loop, tmp_path):
    with pytest.raises(TypeError, match=r"a path as a str, or True, not .*\)"):
        loop.enable_metrics(socket=tmp_path / "x")


def test_the_default_folder_must_be_the_users_alone(
    loop, tmp_path, monkeypatch, path
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
    assert reading.find(str(own)) == f"{folder}/{own}.sock"


# -- ends ---------------------------------------------------------------------

#: It ends without closing its loop.
FORKS = """
import os, sys, fastloop
path = sys.argv[1]
loop = fastloop.new_event_loop()
loop.enable_metrics(socket=path)
pid = os.fork()
if pid == 0:
    from fastloop.observe import metrics_socket
    os._exit(len(metrics_socket._servers))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), os.path.exists(path))
"""
#: Its process ends without the functions of `atexit`.
STARTS = """
import multiprocessing, os, sys, fastloop
path = sys.argv[1]
def child():
    loop = fastloop.new_event_loop()
    loop.enable_metrics(socket=path)
    assert os.path.exists(path)
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
print(process.exitcode, not os.path.exists(path))
"""


@pytest.mark.parametrize("program", [FORKS, STARTS], ids=["forks", "starts"])
def test_a_process_removes_its_socket_and_no_other(
    loop_kind, path, python, program
):
    done = python("-W", "ignore", "-c", program, path)
    assert (done.stdout, done.stderr) == ("0 True\n", "")
    assert not os.path.exists(path)


def test_a_thread_that_cannot_start_is_an_error(
    loop_factory, path, monkeypatch
):
    def start(thread):
        raise RuntimeError("can't start new thread")

    loop = loop_factory()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(OSError, match="can't start new thread"):
            loop.enable_metrics(socket=path)
    assert not os.path.exists(path)
    loop.enable_metrics(socket=path)
    assert reading.read(path)["loops"]
    loop.close()


def test_metrics_that_fail_end_only_that_answer(loop_kind, path, capfd):
    with contextlib.closing(Loop()) as loop:
        loop.enable_metrics(socket=path)
        loop.broken = True
        with pytest.raises(cli.Refused, match="no metrics"):
            reading.read(path)
        assert "ValueError: of the program's" in capfd.readouterr().err
        loop.broken = False
        assert reading.read(path)["loops"]
