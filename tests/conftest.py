"""Fixtures every test of the loop stands on.

asyncio's own loop is the oracle: a behaviour test takes ``loop`` (or
``loop_factory``) and so runs twice, on asyncio and on fastloop, with one
body.  What a test must leave behind is checked here, once, for all:
descriptors, pending tasks, the running loop, the wake-up descriptor, the
async-generator hooks, reports to the exception handler and error records of
the asyncio logger.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from builds import FREE_THREADED
from patience import PATIENCE

Factory = Callable[[], asyncio.AbstractEventLoop]

TOP = pathlib.Path(__file__).resolve().parents[1]
KINDS = ("asyncio", "fastloop")

_FD_DIR = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


def open_fds() -> dict[int, str]:
    """Return the open descriptors and what each one is."""
    found = {}
    for name in os.listdir(_FD_DIR):
        with contextlib.suppress(OSError):
            found[int(name)] = os.readlink(f"{_FD_DIR}/{name}")
    return found


def factory_of(kind: str) -> Factory:
    """Return the callable that makes a loop of this kind."""
    if kind == "asyncio":
        return asyncio.SelectorEventLoop
    import fastloop

    return fastloop.new_event_loop


def pytest_configure(config: pytest.Config) -> None:
    """Name the marks, so that a misspelt one is an error."""
    if not (TOP / "pyproject.toml").is_file():
        raise pytest.UsageError(
            "tests/ does not run alone: it needs the checkout or sdist around "
            "it (pytest's options and marks are in its pyproject.toml, and "
            "tests read src/, docs/ and tools/), with fastloop installed"
        )
    # A shell's background job ignores two of them, what nohup starts the
    # third, and so would every child.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    config.addinivalue_line(
        "markers", "reports: the test provokes reports to exception handlers"
    )
    config.addinivalue_line(
        "markers", "leaves_tasks: the test leaves tasks pending on purpose"
    )
    config.addinivalue_line(
        "markers", "keeps_fds: the test opens descriptors that stay open"
    )
    config.addinivalue_line(
        "markers",
        "asyncio_needs_gil(reason): asyncio's loop fails it without a GIL",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(name: str, obj: Any) -> None:
    """Give a test that is a coroutine function what runs it."""
    if name.startswith("test_") and inspect.iscoroutinefunction(obj):
        pytest.mark.usefixtures("run")(obj)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function on its ``loop``."""
    test, given = pyfuncitem.obj, pyfuncitem.funcargs
    if not inspect.iscoroutinefunction(test):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    given["run"](test(**{name: given[name] for name in names}))
    return True


def skip_what_is_here() -> None:
    """Make the collection after each test cheap: it skips what is here now."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    """Skip what collecting the tests made."""
    skip_what_is_here()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Skip what a module's tests left: pytest keeps a report of each.

    Not in a fixture: what its test still uses would never be collected.
    """
    done = yield
    if nextitem is None or nextitem.path != item.path:
        skip_what_is_here()
    return done


@pytest.fixture(params=KINDS)
def loop_kind(request: pytest.FixtureRequest) -> str:
    """Return which loop this run of the test is about."""
    kind: str = request.param
    mark = request.node.get_closest_marker("asyncio_needs_gil")
    if mark and kind == "asyncio" and FREE_THREADED:
        pytest.skip(f"asyncio without a GIL: {mark.args[0]}")
    return kind


def _allows(request: pytest.FixtureRequest, mark: str) -> bool:
    return request.node.get_closest_marker(mark) is not None


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


#: Whether nothing ran since the last collection.  Without a GIL each takes 20
#: ms and more, three quarters of the time of all tests.
_collected = False


def _collect() -> None:
    global _collected
    if not _collected:
        gc.collect()
        _collected = True


def pytest_runtest_call() -> None:
    """A test makes garbage."""
    global _collected
    _collected = False


def _settle(factory: Factory) -> None:
    """Bring what is kept between loops to the same state each time."""
    _collect()
    loop = factory()
    loop.run_until_complete(asyncio.sleep(1e-4))
    loop.close()


@pytest.fixture
def loop_factory(
    request: pytest.FixtureRequest, loop_kind: str
) -> Iterator[Factory]:
    """Return a callable that makes loops; check what the test leaves.

    The test closes the loops it makes.
    """
    factory = factory_of(loop_kind)
    errors = _Errors()
    logger = logging.getLogger("asyncio")
    _settle(factory)
    fds = open_fds()
    hooks = sys.get_asyncgen_hooks()
    logger.addHandler(errors)
    yield factory
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    _settle(factory)
    logger.removeHandler(errors)
    wakeup = signal.set_wakeup_fd(-1)
    after = open_fds()
    assert running is None, "a loop still counts as running"
    assert wakeup == -1, "the signal wake-up descriptor was not restored"
    assert sys.get_asyncgen_hooks() == hooks, "async-generator hooks stay set"
    if len(after) > len(fds):
        gc.collect()  # what the first collection has only finalized
        after = open_fds()
    leaked = len(after) - len(fds)
    if leaked > 0 and not _allows(request, "keeps_fds"):
        new = {n: w for n, w in after.items() if fds.get(n) != w}
        pytest.fail(f"leaked {leaked} descriptors among {new}")
    if errors.texts and not _may_report(request):
        pytest.fail("logged by asyncio: " + "\n".join(errors.texts))


def _may_report(request: pytest.FixtureRequest) -> bool:
    return _allows(request, "reports") or "reports" in request.fixturenames


@pytest.fixture
def reports() -> list[dict[str, Any]]:
    """Return the contexts ``loop``'s exception handler has been given."""
    return []


@pytest.fixture
def loop(
    request: pytest.FixtureRequest,
    loop_factory: Factory,
) -> Iterator[asyncio.AbstractEventLoop]:
    """Return a fresh loop; close it and check that nothing is left."""
    fixture = "reports" in request.fixturenames
    seen: list[dict[str, Any]] = (
        request.getfixturevalue("reports") if fixture else []
    )
    loop = loop_factory()
    loop.set_exception_handler(lambda _loop, context: seen.append(context))
    yield loop
    pending = asyncio.all_tasks(loop)
    if not loop.is_closed():
        _finish(loop, pending)
        loop.close()
    del loop
    if pending and not _allows(request, "leaves_tasks"):
        pytest.fail(f"tasks left pending: {pending}")
    del pending
    _collect()
    if seen and not _may_report(request):
        pytest.fail(f"reports to the exception handler: {seen}")


def _finish(
    loop: asyncio.AbstractEventLoop, pending: set[asyncio.Task[Any]]
) -> None:
    """Let callbacks, threads, generators and left-over tasks come to rest."""
    for task in pending:
        task.cancel()
    if pending:
        loop.run_until_complete(
            asyncio.gather(*pending, return_exceptions=True)
        )
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())


@pytest.fixture
def run(
    request: pytest.FixtureRequest,
    loop: asyncio.AbstractEventLoop,
) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Return a function that runs a coroutine on ``loop`` to its result.

    A coroutine that takes a third of a test's time limit is cancelled and
    TimeoutError raised.
    """
    ini = request.config.getini("timeout")
    limit = float(os.environ.get("PYTEST_TIMEOUT") or ini)

    def run(coro: Coroutine[Any, Any, Any]) -> Any:
        return loop.run_until_complete(asyncio.wait_for(coro, limit / 3))

    return run


@pytest.fixture
def in_thread() -> Iterator[Callable[..., threading.Thread]]:
    """Return a function that starts a thread, joined after the test."""
    threads: list[threading.Thread] = []

    def start(target: Callable[..., Any], *args: Any) -> threading.Thread:
        thread = threading.Thread(target=target, args=args)
        thread.start()
        threads.append(thread)
        return thread

    yield start
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), f"{thread} does not end"
