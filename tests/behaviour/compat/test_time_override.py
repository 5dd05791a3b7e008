"""A loop whose time() the program replaced goes by that time.

Tests do so to make an hour pass in no time, on the object for a while or in
a subclass for good.
"""

import asyncio
from unittest import mock

import pytest


@pytest.fixture
def virtual(loop_class):
    """Return a loop of a class with a time() that only its user moves."""

    class Virtual(loop_class):
        now = 1000.0
        fails = None

        def time(self):
            if self.fails is not None:
                raise self.fails
            return self.now

    made = Virtual()
    yield made
    made.close()


def test_a_subclass_overrides_time(virtual):
    moments = iter([1000.25, 1000.5, 1000.5, 1000.49, 1001.0, 8200.0, 8200.0])
    seen = []

    def iterate():
        now = next(moments, None)
        if now is None:
            virtual.stop()
            return
        virtual.now = now
        seen.append(now)
        virtual.call_soon(iterate)

    virtual.call_at(1000.5, seen.append, "half")
    virtual.call_later(0.25, seen.append, "quarter")
    virtual.call_later(0, seen.append, "now")
    virtual.call_later(7200, seen.append, "hours")
    virtual.call_later(0.75, seen.append, "three quarters")
    virtual.call_later(7201, seen.append, "never")
    virtual.call_soon(iterate)
    virtual.run_forever()
    assert seen == [
        1000.25,
        "now",
        1000.5,
        "quarter",
        1000.5,
        "half",
        1000.49,
        1001.0,
        8200.0,
        "three quarters",
        8200.0,
        "hours",
    ]


def test_a_time_that_fails_ends_the_run(virtual):
    virtual.call_later(1, virtual.stop)
    virtual.fails = OSError("no clock")
    with pytest.raises(OSError, match="no clock"):
        virtual.run_forever()
    with pytest.raises(OSError, match="no clock"):
        virtual.call_later(1, virtual.stop)
    assert not virtual.is_running()
    virtual.fails = None
    virtual.now += 1
    virtual.run_forever()


def test_a_time_patched_between_runs_counts(loop):
    loop.run_until_complete(asyncio.sleep(0))
    now = loop.time()
    timer = loop.call_later(3600, loop.stop)
    with mock.patch.object(type(loop), "time", lambda self: now + 3601):
        loop.run_forever()
    assert timer.when() <= now + 3601
