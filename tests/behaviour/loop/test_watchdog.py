"""The watchdog: a callback that blocks is reported while it blocks.

asyncio has no counterpart, so these run on fastloop alone.  A callback that
blocks waits for the report itself, so that no test depends on a time.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import re
import sys
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Coroutine

import pytest
from builds import HAS_GIL
from patience import PATIENCE

from fastloop import cli
from fastloop.observe import watchdog

pytestmark = [
    pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True),
    pytest.mark.skipif(
        not HAS_GIL,
        reason="there is no watchdog without a GIL",
    ),
]

LIMIT_S = 0.02
THREAD = "fastloop-watchdog"


class Log(logging.Handler):
    """Gets the watchdog's reports."""

    def __init__(self):
        super().__init__()
        self.texts = []
        self.came = defaultdict(threading.Event)

    def emit(self, record):
        """Note a report and tell the callback that waits for it."""
        text = record.getMessage()
        if "has blocked the loop" in text:
            self.texts.append(text)
            name = text.partition(" has blocked")[0].rpartition(".")[2]
            self.came[name].set()

    def of(self, name):
        """Return the reports of a function, by its own name.

        There may be others: on a busy machine any callback may take long.
        """
        found = re.compile(rf"(.*\.)?{name} has blocked")
        return [text for text in self.texts if found.match(text)]


class Looks:
    """Counts how often watchdogs look, and what they find then."""

    def __init__(self):
        self.found = []
        self.more = threading.Semaphore(0)

    def wait(self, count):
        """Wait for so many more."""
        for _ in range(count):
            assert self.more.acquire(timeout=PATIENCE)


@pytest.fixture
def log():
    """Return the reports; all are the log's, of any loop."""
    handler = Log()
    logger = logging.getLogger("asyncio")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture
def looks(monkeypatch):
    """Return what counts the looks of all watchdogs."""
    counted = Looks()
    look = watchdog.Watchdog._look

    def counting(self, loop):
        wait_s = look(self, loop)
        counted.found.append((loop.metrics().busy_ns, self.count))
        counted.more.release()
        return wait_s

    monkeypatch.setattr(watchdog.Watchdog, "_look", counting)
    return counted


@pytest.fixture
def watched(loop, log):
    """Return ``loop`` with a watchdog."""
    loop.enable_metrics(watchdog_s=LIMIT_S)
    return loop


def report_of(loop, name):
    """Return the one report of a function that is stored."""
    (found,) = [
        one for one in loop._watchdog.recent if one.name.endswith(name)
    ]
    return found


def threads():
    return [one for one in threading.enumerate() if one.name == THREAD]


def wait_in_c(came):
    """Block in C code that has released the GIL."""
    assert came.wait(PATIENCE)


def sleep_in_c(came):
    """Block in time.sleep()."""
    end = time.monotonic() + PATIENCE
    while not came.is_set() and time.monotonic() < end:
        time.sleep(LIMIT_S)


def compute(came):
    """Block in Python code."""
    end = time.monotonic() + PATIENCE
    while not came.is_set() and time.monotonic() < end:
        pass


# -- reports ------------------------------------------------------------------


@pytest.mark.parametrize("block", [wait_in_c, sleep_in_c, compute])
@pytest.mark.parametrize("debugs", [False, True])
def test_a_callback_is_reported_while_it_blocks(
    watched, iterate, log, block, debugs
):
    watched.set_debug(debugs)
    watched.call_soon(block, log.came[block.__name__])
    iterate()
    assert len(log.of(block.__name__)) == 1
    text = log.of(block.__name__)[0]
    assert "and still runs" in text
    assert f'"{__file__}", line' in text and f"in {block.__name__}" in text
    assert "run_forever" not in text
    took, in_gc = re.findall(r"[\d.]+(?= seconds| of them)", text)
    assert float(took) >= LIMIT_S
    assert 0 <= float(in_gc) <= float(took)


async def test_a_task_is_reported_by_its_coroutine(watched, log):
    async def inner():
        wait_in_c(log.came["outer"])

    async def outer():
        await inner()

    await asyncio.create_task(outer())
    (text,) = log.of("outer")
    places = re.findall(r"in (outer|inner|wait_in_c)\n", text)
    assert places == ["outer", "inner", "wait_in_c"]


def test_a_callback_that_goes_on_blocking_is_reported_once(
    watched, iterate, log, looks
):
    def block():
        wait_in_c(log.came["block"])
        looks.wait(3)

    watched.call_soon(block)
    iterate()
    assert len(log.of("block")) == 1


async def test_a_loop_that_waits_is_not_reported(watched, looks):
    """No count grows while the loop is in a poll."""
    slept = asyncio.Event()

    def look():
        def idle():
            last = looks.found[-3:]
            return len(last) == 3 and not any(busy for busy, _ in last)

        end = time.monotonic() + PATIENCE
        while not idle() and time.monotonic() < end:
            looks.wait(1)
        watched.call_soon_threadsafe(slept.set)

    thread = threading.Thread(target=look)
    thread.start()
    await slept.wait()
    thread.join(PATIENCE)
    last = looks.found[-3:]
    assert [busy for busy, _ in last] == [0, 0, 0]
    assert len({count for _, count in last}) == 1


def test_c_code_that_keeps_the_gil_is_reported_in_the_end(
    watched, iterate, log
):
    """The thread cannot run before."""
    watched.slow_callback_duration = LIMIT_S
    watched.call_soon(ctypes.PyDLL(None).usleep, 100_000)
    iterate()
    found = [text for text in log.texts if "_FuncPtr" in text]
    assert len(found) == 1
    assert "ended before its stack could be read" in found[0]
    assert watched.metrics().blocked_callbacks >= 1


def test_a_log_handler_that_raises_does_not_end_the_watchdog(
    watched, iterate, log, monkeypatch
):
    caught = []
    raised = threading.Event()

    def hook(*exc):
        caught.append(exc[0])
        raised.set()

    def refuse(record):
        raise ValueError("of the filter")

    monkeypatch.setattr(sys, "excepthook", hook)
    log.addFilter(refuse)
    watched.call_soon(wait_in_c, raised)
    iterate()
    log.removeFilter(refuse)
    watched.call_soon(wait_in_c, log.came["wait_in_c"])
    iterate()
    assert set(caught) == {ValueError}
    assert len(log.of("wait_in_c")) == 1


class Named(Coroutine):
    """A coroutine whose name waits, in the watchdog, for the loop's thread."""

    def __init__(self):
        self.asked = threading.Event()
        self.ran_on = threading.Event()
        self.waits = []

    def __getattr__(self, name):
        if name != "__qualname__":
            raise AttributeError(name)
        if threading.current_thread().name == THREAD:
            self.asked.set()
            self.waits.append(self.ran_on.wait(PATIENCE))
        return "named"

    def send(self, value):
        """Block until the watchdog wants the name."""
        assert self.asked.wait(PATIENCE)
        raise StopIteration

    def throw(self, *exc):
        """Nothing throws."""
        raise AssertionError

    def __await__(self):
        return self


def test_a_name_that_waits_for_the_loop_does_not_stop_it(watched, log):
    """The loop's thread reports the callback meanwhile."""
    slow = []
    watched.slow_callback_duration = LIMIT_S
    watched.slow_callback_hook = slow.append
    named = Named()

    async def main():
        task = asyncio.ensure_future(named)
        await task
        named.ran_on.set()

    watched.run_until_complete(main())
    watched._watchdog.stop()  # and waits for the thread
    assert named.waits == [True]
    (found,) = [one for one in slow if one.name == "named"]
    assert found.blocked == report_of(watched, "named")
    assert "ended before its stack could be read" in log.of("named")[0]


def test_a_callback_that_runs_another_loop(watched, loop_factory, log):
    """The stack goes on where the other loop's run begins."""
    other = loop_factory()

    def outer():
        running = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        other.call_soon(wait_in_c, log.came["outer"])
        other.call_soon(other.stop)
        other.run_forever()
        other.close()
        asyncio._set_running_loop(running)

    watched.call_soon(outer)
    watched.call_soon(watched.stop)
    watched.run_forever()
    (text,) = log.of("outer")
    places = re.findall(r"in (outer|run_forever|wait_in_c)\n", text)
    assert places == ["outer", "run_forever", "wait_in_c"]


def test_a_watchdog_whose_thread_has_ended_may_be_started_again(
    watched, iterate, log, monkeypatch
):
    refused = threading.Event()

    def refuse(record):
        refused.set()
        raise SystemExit

    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    log.addFilter(refuse)
    (thread,) = threads()
    watched.call_soon(wait_in_c, refused)
    iterate()
    thread.join(PATIENCE)
    log.removeFilter(refuse)
    watched.enable_metrics(watchdog_s=LIMIT_S)
    watched.call_soon(wait_in_c, log.came["wait_in_c"])
    iterate()
    assert len(log.of("wait_in_c")) == 1


def test_the_loop_does_not_wait_while_source_is_read(
    watched, iterate, monkeypatch
):
    began, may_end, waited = threading.Event(), threading.Event(), []

    def checkcache(*args):
        began.set()
        waited.append(may_end.wait(PATIENCE))

    monkeypatch.setattr(watchdog.linecache, "checkcache", checkcache)
    watched.slow_callback_duration = LIMIT_S
    watched.call_soon(wait_in_c, began)
    watched.call_soon(may_end.set)
    iterate(2)
    watched.close()
    assert set(waited) == {True}


# -- the garbage collector ----------------------------------------------------


@pytest.fixture
def no_automatic_gc():
    """Collect only where the test does."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_automatic_gc")
def test_time_in_gc_is_counted_apart(watched, iterate, log):
    """Also of a collection that has not ended."""

    class Slow:
        def __init__(self):
            self.itself = self

        def __del__(self):
            wait_in_c(log.came["collect"])

    def collect():
        Slow()
        gc.collect()

    def compute_only():
        wait_in_c(log.came["compute_only"])

    watched.call_soon(collect)
    watched.call_soon(compute_only)
    iterate()
    first = report_of(watched, "collect")
    second = report_of(watched, "compute_only")
    assert 0 < first.gc_time_ns <= first.duration_ns
    assert [frame.name for frame in first.stack][:2] == ["collect", "__del__"]
    assert second.gc_time_ns == 0


@pytest.mark.usefixtures("no_automatic_gc")
def test_collections_that_have_ended_count(watched, iterate, log):
    def collect():
        gc.collect()
        wait_in_c(log.came["collect"])

    watched.call_soon(collect)
    iterate()
    assert report_of(watched, "collect").gc_time_ns > 0


def test_collections_are_timed_only_while_it_is_on(loop):
    before = list(gc.callbacks)
    loop.enable_metrics()
    assert gc.callbacks == before
    loop.enable_metrics(watchdog_s=60)
    assert len(gc.callbacks) == len(before) + 1
    loop.close()
    assert gc.callbacks == before


# -- where it goes ------------------------------------------------------------


async def test_the_hook_gets_the_report_of_a_slow_callback(watched, log):
    found = []
    watched.slow_callback_duration = LIMIT_S
    watched.slow_callback_hook = found.append

    async def block():
        wait_in_c(log.came["block"])

    await asyncio.create_task(block())
    (slow,) = [one for one in found if one.name.endswith("block")]
    assert slow.blocked == report_of(watched, "block")
    assert slow.blocked.name == slow.name
    assert "wait_in_c" in [frame.name for frame in slow.blocked.stack]
    assert LIMIT_S * 1e9 <= slow.blocked.duration_ns


async def test_the_hook_gets_no_report_without_a_watchdog(loop):
    found = []
    loop.slow_callback_duration = 0
    loop.slow_callback_hook = found.append
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert found and {one.blocked for one in found} == {None}


def test_blocked_callbacks_are_counted(watched, iterate, log):
    before = watched.metrics()
    watched.call_soon(wait_in_c, log.came["wait_in_c"])
    iterate()
    watched.close()
    found = watched.metrics()
    assert found.blocked_callbacks == len(log.texts) >= 1
    assert found.since(before).blocked_callbacks >= 1


def test_top_shows_the_last_reports(loop, iterate, log, tmp_path, capsys):
    path = str(tmp_path / "loops.sock")
    loop.enable_metrics(socket=path, watchdog_s=LIMIT_S)
    loop.call_soon(wait_in_c, log.came["wait_in_c"])
    iterate()
    assert cli.main(["top", path, "--once"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"[1-9]\d* reported as blocked", out)
    assert re.search(
        r"or more, wait_in_c, .* in\s+the\s+garbage\s+collector", out
    )
    assert cli.main(["top", path, "--once", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["loops"]
    names = [one["name"] for one in shown["blocked"]]
    assert names.count("wait_in_c") == 1


# -- beginning and end --------------------------------------------------------


def test_closing_the_loop_ends_the_thread(watched):
    assert len(threads()) == 1
    assert threads()[0].daemon
    watched.close()
    assert not threads()


def test_a_loop_that_is_collected_ends_the_thread(loop_factory):
    loop = loop_factory()
    loop.itself = loop
    loop.enable_metrics(watchdog_s=60)
    gone = weakref.ref(loop)
    del loop
    with pytest.warns(ResourceWarning):
        gc.collect()
    assert not threads()
    # 3.15 clears weak references after finalizers: the thread may have got
    # the loop once more, and then it takes another collection.
    gc.collect()
    assert gone() is None


def test_the_limit_may_be_changed(loop, iterate, log):
    loop.enable_metrics(watchdog_s=10 * PATIENCE)
    loop.enable_metrics(watchdog_s=LIMIT_S)
    assert len(threads()) == 1
    loop.call_soon(wait_in_c, log.came["wait_in_c"])
    iterate()
    assert len(log.of("wait_in_c")) == 1


@pytest.mark.parametrize("limit", [0, 0.001, -1, float("nan"), float("inf")])
def test_a_bad_limit_is_refused(loop, limit):
    with pytest.raises(ValueError, match=r"a number of seconds from 0\.01"):
        loop.enable_metrics(watchdog_s=limit)
    with pytest.raises(TypeError, match="a number of seconds"):
        loop.enable_metrics(watchdog_s="1")
    assert not threads()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (RuntimeError, "the watchdog cannot start: why"),
        (MemoryError, "why"),
        (KeyboardInterrupt, "why"),
    ],
)
def test_a_thread_that_cannot_start_leaves_nothing(
    loop, monkeypatch, kind, message
):
    def start(thread):
        raise kind("why")

    before = list(gc.callbacks)
    with monkeypatch.context() as patches:
        patches.setattr(threading.Thread, "start", start)
        with pytest.raises(kind, match=message):
            loop.enable_metrics(watchdog_s=60)
    assert gc.callbacks == before
    loop.enable_metrics(watchdog_s=60)
    assert len(threads()) == 1


def test_a_report_may_close_another_loop(watched, loop_factory, log, iterate):
    """The thread that reports does not wait for itself."""
    other = loop_factory()
    other.enable_metrics(watchdog_s=60)

    def close(record):
        other.close()
        return True

    log.addFilter(close)
    watched.call_soon(wait_in_c, log.came["wait_in_c"])
    iterate()
    assert other.is_closed()
    assert len(threads()) == 1
