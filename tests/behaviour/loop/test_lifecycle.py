"""What runs and close() leave, what close() refuses, and unclosed loops."""

import _thread
import asyncio
import gc
import sys
import threading
import warnings
import weakref

import pytest
from patience import PATIENCE


def test_a_closed_loop_refuses_calls(loop, pair):
    """CPython's test_events has the others."""
    loop.close()
    for refused in (
        lambda: loop.call_soon(print),
        lambda: loop.call_at("soon", print),
        lambda: loop.add_reader(pair[0], print),
        lambda: loop.add_writer(pair[0], print),
        lambda: loop.getaddrinfo("localhost", 1).send(None),
    ):
        with pytest.raises(RuntimeError, match="^Event loop is closed$"):
            refused()


def test_watchers_are_dropped_by_close(loop, pair):
    left, right = pair

    def callback():
        pass

    alive = weakref.ref(callback)
    loop.add_reader(left, callback)
    loop.add_writer(left, callback)
    del callback
    loop.close()
    gc.collect()
    assert alive() is None
    left.send(b"x")
    assert right.recv(1) == b"x"


@pytest.mark.reports
def test_unclosed_loop_warns(loop_factory):
    loop = loop_factory()
    name = type(loop).__name__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del loop
        gc.collect()
    (warning,) = [w for w in caught if "unclosed event loop" in str(w.message)]
    assert type(warning.source).__name__ == name
    assert {w.category for w in caught} == {ResourceWarning}


def test_asyncgen_hooks_of_an_outer_loop_are_restored(loop, iterate):
    outer = print, repr
    old = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(*outer)
    try:
        iterate()
        assert sys.get_asyncgen_hooks() == outer
    finally:
        sys.set_asyncgen_hooks(*old)


def test_a_run_leaves_no_thread_object_of_a_foreign_thread(loop_factory):
    ended = threading.Event()

    def run():
        loop = loop_factory()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        ended.set()

    before = threading.active_count()
    _thread.start_new_thread(run, ())
    assert ended.wait(PATIENCE)
    assert threading.active_count() == before
