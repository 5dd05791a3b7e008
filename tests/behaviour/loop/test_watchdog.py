"""The watchdog: a callback that blocks is reported while it blocks.

asyncio has no counterpart, so these run on fastloop alone.  A callback that
blocks waits for the report itself, so that no test depends on a time.
"""

import asyncio
import ctypes
import gc
import logging
import re
import threading
import time
import weakref
from collections import defaultdict

import pytest
from builds import HAS_GIL
from patience import PATIENCE

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
        one
        for one in loop._fastloop_watchdog.recent
        if one.name.endswith(name)
    ]
    return found


def threads():
    return [one for one in threading.enumerate() if one.name == THREAD]


def wait_in_c(came):
    """Block in C code that has released the GIL."""
    assert came.wait(PATIENCE)


def sleep_in_c(came):
    """Block in time.sleep()."""
    while not came.is_set():
        time.sleep(LIMIT_S)


def compute(came):
    """Block in Python code."""
    while not came.is_set():
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


async def test_a_loop_that_waits_is_not_reported(watched, looks):
    """No count grows while the loop is in a poll."""

    def look_until_idle():
        looks.wait(3)
        while any(busy for busy, _ in looks.found[-3:]):
            looks.wait(1)
        return looks.found[-3:]

    last = await watched.run_in_executor(None, look_until_idle)
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


# -- the garbage collector ----------------------------------------------------


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


# -- beginning and end --------------------------------------------------------


def test_closing_the_loop_ends_the_thread(loop):
    """Collections are timed only while it runs."""
    before = list(gc.callbacks)
    loop.enable_metrics()
    assert gc.callbacks == before
    loop.enable_metrics(watchdog_s=60)
    assert len(gc.callbacks) == len(before) + 1
    (thread,) = threads()
    assert thread.daemon
    loop.close()
    assert gc.callbacks == before
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


def test_a_socket_that_fails_starts_no_thread(loop, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", f"{tmp_path}/none")
    with pytest.raises(OSError):
        loop.enable_metrics(socket=True, watchdog_s=60)
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
