"""The thread of a metrics socket, and loops that end at any moment.

The GC may close a loop in any thread and between any two statements, so also
while another loop is shown or forgotten.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import threading

import pytest
from patience import PATIENCE

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


@pytest.fixture
def path(tmp_path):
    """Return the path for a socket."""
    return str(tmp_path / "loops.sock")


@pytest.fixture
def starting(monkeypatch):
    """Return a function that has a call made where a thread is started.

    Another thread makes it, and Thread.start() waits for that.
    """

    def install(call):
        start = threading.Thread.start

        def start_after_the_call(thread):
            monkeypatch.undo()
            caller = threading.Thread(target=call, daemon=True)
            start(caller)
            caller.join(PATIENCE)
            assert not caller.is_alive()
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_after_the_call)

    return install


def test_a_loop_may_be_closed_before_its_thread_starts(
    loop_factory, path, starting
):
    before = os.listdir("/dev/fd")
    loop = loop_factory()
    starting(loop.close)
    loop.enable_metrics(socket=path)
    for thread in threading.enumerate():
        if thread.name == "fastloop-metrics":
            thread.join(PATIENCE)
    assert not os.path.exists(path)
    assert os.listdir("/dev/fd") == before


@pytest.fixture
def failing(monkeypatch):
    """Return a function that has a call made where a thread fails to start."""

    def install(call):
        def start(thread):
            call()
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", start)

    return install


def test_a_loop_is_shown_where_the_thread_of_another_failed_to_start(
    loop_factory, path, monkeypatch, failing
):
    before = os.listdir("/dev/fd")
    first, second = loop_factory(), loop_factory()

    def join():
        monkeypatch.undo()
        second.enable_metrics(socket=path)

    failing(join)
    with pytest.raises(OSError, match="can't start new thread"):
        first.enable_metrics(socket=path)
    assert len(reading.read(path)["loops"]) == 1
    first.close()
    second.close()
    assert not os.path.exists(path)
    assert os.listdir("/dev/fd") == before


def test_each_loop_whose_thread_cannot_start_gets_an_error(
    loop_factory, path, failing
):
    before = os.listdir("/dev/fd")
    loops = [loop_factory(), loop_factory()]
    left = list(loops)

    def join():
        while left:
            with pytest.raises(OSError, match="can't start new thread"):
                left.pop().enable_metrics(socket=path)

    failing(join)
    join()
    assert not os.path.exists(path)
    for loop in loops:
        loop.close()
    assert os.listdir("/dev/fd") == before


def test_one_thread_serves_where_two_loops_begin_at_once(
    loop_factory, path, starting
):
    before = os.listdir("/dev/fd")
    first, second = loop_factory(), loop_factory()
    starting(lambda: second.enable_metrics(socket=path))
    first.enable_metrics(socket=path)
    assert len(reading.read(path)["loops"]) == 2
    first.close()
    assert len(reading.read(path)["loops"]) == 1
    second.close()
    assert not os.path.exists(path)
    assert os.listdir("/dev/fd") == before


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_gc_in_a_close_may_close_the_other_loop_of_the_socket(
    loop_kind, path, monkeypatch
):
    loops = metrics_socket._Server.loops

    def collect(server):
        gc.collect()
        return loops(server)

    with contextlib.closing(Loop()) as loop:
        other = Loop()
        other.itself = other
        for one in (loop, other):
            one.enable_metrics(socket=path)
        loop.run_until_complete(loop.run_in_executor(None, int))
        del one, other
        monkeypatch.setattr(metrics_socket._Server, "loops", collect)
    assert loop._default_executor is None
    assert not os.path.exists(path)


def test_a_gc_may_close_the_last_loop_while_another_joins_its_socket(
    loop_kind, path, monkeypatch
):
    """The one that joins is shown, by a server of its own."""
    first = Loop()
    first.enable_metrics(socket=path)
    add = metrics_socket._Server.add

    def collect(server, loop):
        first.close()
        add(server, loop)

    monkeypatch.setattr(metrics_socket._Server, "add", collect)
    with contextlib.closing(Loop()) as second:
        second.enable_metrics(socket=path)
        assert first.is_closed()
        assert len(reading.read(path)["loops"]) == 1


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
def test_an_excepthook_that_raises_ends_only_that_answer(
    loop_kind, path, monkeypatch, kind
):
    reported = []

    def hook(*exc):
        reported.append(exc[0])
        raise kind("of the program's")

    monkeypatch.setattr(sys, "excepthook", hook)
    with contextlib.closing(Loop()) as loop:
        loop.enable_metrics(socket=path)
        loop.broken = True
        with pytest.raises(cli.Refused, match="no metrics"):
            reading.read(path)
        assert reported[0] is ValueError
        loop.broken = False
        assert reading.read(path)["loops"]
