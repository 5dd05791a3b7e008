"""The thread of a metrics socket, and loops that end at any moment.

The GC may close a loop in any thread and between any two statements, so also
while another loop is shown or forgotten.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading

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


@pytest.fixture
def path(tmp_path):
    """Return the path for a socket."""
    return str(tmp_path / "loops.sock")


def test_a_thread_that_cannot_start_is_an_error(
    loop_factory, path, monkeypatch
):
    def start(thread):
        raise RuntimeError("can't start new thread")

    loop = loop_factory()
    before = os.listdir("/dev/fd")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(OSError, match="can't start new thread"):
            loop.enable_metrics(socket=path)
    assert not os.path.exists(path)
    assert os.listdir("/dev/fd") == before
    loop.enable_metrics(socket=path)
    assert reading.read(path)["loops"]
    loop.close()


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


def test_metrics_that_fail_end_only_that_answer(loop_kind, path, capfd):
    with contextlib.closing(Loop()) as loop:
        loop.enable_metrics(socket=path)
        loop.broken = True
        with pytest.raises(cli.Refused, match="no metrics"):
            reading.read(path)
        assert "ValueError: of the program's" in capfd.readouterr().err
        loop.broken = False
        assert reading.read(path)["loops"]
