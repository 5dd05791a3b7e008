"""`pytest --fastloop`: runs a suite's asyncio tests on fastloop, unchanged.

pytest loads this module in every project that has fastloop installed.  So
without the option it only declares the option; the core and asyncio are
imported only by a run with it.  Such a run uses

- a policy, for asyncio.run, asyncio.new_event_loop, unittest's
  IsolatedAsyncioTestCase and every plugin that gets its loops from asyncio
  (on Python 3.16, which has no policies, asyncio's default class in its
  place);
- pytest-asyncio's own hook, if that version has it, because a suite that
  names its loop factories never uses the policy;
- the options of anyio's backend fixture, because a suite that parametrises it
  may name a loop there.

If no loop was made in all these ways, the run tested nothing on fastloop.  It
fails if the option asked for fastloop.  The ini file asks in each run, also in
one of synchronous tests alone, and so it only warns.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

_MARK = "fastloop(virtual_time=True)"
_MARK_MEANS = (
    "the loops that this test makes have virtual time; False: they have not"
)
_NO_LOOP = (
    "fastloop was asked for, and no test of this run made an event loop on "
    "it. Are its async tests run by pytest-asyncio or anyio? --no-fastloop "
    "turns fastloop off."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the `--fastloop` options and the ini option."""
    group = parser.getgroup("fastloop", "the event loop of async tests")
    group.addoption(
        "--fastloop",
        action="store_true",
        default=None,
        dest="fastloop",
        help="run asyncio tests on fastloop; fail if none made a loop",
    )
    group.addoption(
        "--no-fastloop",
        action="store_false",
        dest="fastloop",
        help="ignore the ini option fastloop",
    )
    group.addoption(
        "--fastloop-virtual-time",
        action="store_true",
        help="as --fastloop, and each loop's clock jumps to its next timer "
        "when nothing else can happen",
    )
    group.addoption(
        "--fastloop-seed",
        type=int,
        metavar="N",
        help="as --fastloop, and each loop draws from N the order of events "
        "that asyncio leaves open",
    )
    parser.addini(
        "fastloop",
        "run asyncio tests on fastloop (as --fastloop does, but a run that "
        "makes no loop only gets a warning)",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start the run's plugin if the option, or else the ini file, says so.

    Raises pytest.UsageError if fastloop's extension cannot be imported.
    """
    config.addinivalue_line("markers", f"{_MARK}: {_MARK_MEANS}")
    asked = config.getoption("fastloop")
    if asked is None:
        asked = (
            config.getoption("fastloop_virtual_time")
            or config.getoption("fastloop_seed") is not None
            or config.getini("fastloop")
        )
    if not asked:
        return
    try:
        import fastloop

        fastloop.new_event_loop  # noqa: B018 (imports the extension)
    except (ImportError, AttributeError) as exc:
        from fastloop._distribution import other_installed

        fault = other_installed() or exc
        raise pytest.UsageError(f"fastloop cannot be used: {fault}") from exc
    run = _FastloopRun(config)
    config.pluginmanager.register(run, "fastloop-run")


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Refuse to run tests that need virtual time on a loop without it.

    Raises pytest.UsageError, also for a mark that is misspelt.
    """
    marked = [item.nodeid for item in items if _wants_virtual_time(item)]
    asked = config.getoption("fastloop")
    is_on = config.pluginmanager.has_plugin("fastloop-run")
    if marked and asked is None and not is_on:
        raise pytest.UsageError(
            f"{marked[0]} is marked {_MARK}: run pytest with --fastloop, or "
            "set fastloop = true in the ini file"
        )


def _wants_virtual_time(item: pytest.Item) -> bool | None:
    """What the test's mark says; None: it has none.

    Raises pytest.UsageError for other arguments.
    """
    mark = item.get_closest_marker("fastloop")
    if mark is None:
        return None
    if mark.args or set(mark.kwargs) != {"virtual_time"}:
        raise pytest.UsageError(
            f"{item.nodeid}: the mark fastloop takes virtual_time=True or "
            "=False, and nothing else"
        )
    return bool(mark.kwargs["virtual_time"])


@contextlib.contextmanager
def _without_deprecations() -> Iterator[None]:
    """Suppress the warnings of policies (3.14 on): the suite uses none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


class _Factory:
    """Makes loops and counts them.

    An object and not a function: as a class's attribute (unittest's
    loop_factory) it must not become a bound method.
    """

    made = 0
    virtual_time = False
    seed: int | None = None

    def __call__(self) -> Any:
        """Make a loop."""
        import fastloop
        from fastloop import testing

        loop: Any
        if self.virtual_time:
            loop = testing.VirtualTimeLoop(seed=self.seed)
        elif self.seed is not None:
            loop = testing.SeededLoop(seed=self.seed)
        else:
            loop = fastloop.new_event_loop()
        self.made += 1
        return loop


def _make_policy(factory: _Factory) -> Any:
    """Return a policy that counts its loops; None if Python has none."""
    import fastloop
    from fastloop import _private

    if _private.DefaultPolicy is object:  # Python 3.16
        return None
    with _without_deprecations():

        class _FastloopPolicy(fastloop.EventLoopPolicy):
            def new_event_loop(self) -> Any:
                return factory()

        return _FastloopPolicy()


class _FastloopRun:
    """The hooks of a run on fastloop."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._factory = _Factory()
        self._virtual_time = bool(config.option.fastloop_virtual_time)
        self._factory.virtual_time = self._virtual_time
        self._factory.seed = config.option.fastloop_seed
        #: Whether a run without a loop fails.
        self._must = bool(config.option.fastloop)
        self._policy = _make_policy(self._factory)
        self._previous_policy: Any = None
        self._made_in_workers = self._made_before = 0
        self._ran = self._loopless = False
        self._patches = pytest.MonkeyPatch()
        if self._policy is None:
            for name in ("asyncio", "asyncio.unix_events"):
                module = sys.modules[name]
                self._patches.setattr(module, "EventLoop", self._factory)
        self._set_policy()

    # -- making loops ------------------------------------------------------

    def _set_policy(self) -> None:
        import asyncio

        if self._policy is None:
            return
        with _without_deprecations():
            found = asyncio.get_event_loop_policy()
            if found is not self._policy:
                self._previous_policy = self._previous_policy or found
                asyncio.set_event_loop_policy(self._policy)

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Give fastloop to a test case that names another loop.

        One that names none (from 3.13 on its loop_factory is None) gets its
        loop from asyncio, which also sets it for asyncio.get_event_loop().
        """
        from unittest import IsolatedAsyncioTestCase as Case

        cls = getattr(item, "cls", None)
        if (
            isinstance(cls, type)
            and issubclass(cls, Case)
            and getattr(cls, "loop_factory", None) not in (None, self._factory)
        ):
            self._patches.setattr(cls, "loop_factory", self._factory)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        """Set the policy again: a collected module may have set its own, as
        uvloop.install() in a conftest.py does.
        """
        self._set_policy()

    @pytest.hookimpl(hookwrapper=True, optionalhook=True)
    def pytest_asyncio_loop_factories(self) -> Iterator[None]:
        """Make each loop that a suite names a fastloop.  The names, and so
        the suite's test ids and marks, stay.
        """
        outcome: Any = yield
        named = outcome.get_result() or ("fastloop",)
        outcome.force_result(dict.fromkeys(named, self._factory))

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Iterator[None]:
        """Change the values of two fixtures, wherever a suite defines them."""
        outcome: Any = yield
        change: Callable[[Any], Any]
        if fixturedef.argname == "anyio_backend":
            change = self._anyio_backend
        elif fixturedef.argname == "event_loop_policy" and self._policy:
            change = self._event_loop_policy
        else:
            return
        cached = fixturedef.cached_result
        if cached is not None and cached[2] is None:
            value = change(cached[0])
            fixturedef.cached_result = (value, cached[1], None)
            outcome.force_result(value)

    def _event_loop_policy(self, found: Any) -> Any:
        """Older pytest-asyncio gets its loops from this fixture alone."""
        return self._policy

    def _anyio_backend(self, backend: Any) -> Any:
        """Remove options that name a loop: without one anyio asks asyncio."""
        if isinstance(backend, str) or backend[0] != "asyncio":
            return backend
        loops = ("loop_factory", "policy", "use_uvloop")
        options = {k: v for k, v in backend[1].items() if k not in loops}
        return backend[0], options

    # -- virtual time ------------------------------------------------------

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Make the loops of a marked test as its mark says."""
        wanted = _wants_virtual_time(item)
        if wanted is not None:
            self._factory.virtual_time = wanted
        self._made_before = self._factory.made
        yield
        self._factory.virtual_time = self._virtual_time

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Fail a marked test that ran on the loop of earlier tests."""
        outcome: Any = yield
        # One that is not asynchronous may need no loop.
        if (
            inspect.iscoroutinefunction(getattr(item, "obj", None))
            and _wants_virtual_time(item) not in (None, self._virtual_time)
            and self._factory.made == self._made_before
            and outcome.excinfo is None
        ):
            outcome.force_exception(
                pytest.fail.Exception(
                    "the mark fastloop(virtual_time=...) needs a loop that is "
                    "made for this test: it made none (a loop of a wider "
                    "scope keeps its clock)",
                    pytrace=False,
                )
            )

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        """Show the seed beside a failure."""
        outcome: Any = yield
        report = outcome.get_result()
        if report.failed and self._factory.seed is not None:
            text = f"--fastloop-seed={self._factory.seed}"
            report.sections.append(("fastloop", text))

    # -- the verdict -------------------------------------------------------

    @property
    def made(self) -> int:
        """The number of loops made by the tests, here and in workers."""
        return self._factory.made + self._made_in_workers

    def pytest_report_header(self) -> str:
        """Name the loop of the run."""
        import fastloop
        from fastloop._environment import is_off

        if is_off():
            return "fastloop: off, by FASTLOOP_DISABLE=loop"
        text = f"fastloop: {fastloop.__version__}, "
        text += f"libuv {fastloop.libuv_version()}"
        if self._virtual_time:
            text += ", virtual time"
        if self._factory.seed is not None:
            text += f", seed {self._factory.seed}"
        return text

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add the loops made by a pytest-xdist worker, unless it crashed."""
        told = getattr(node, "workeroutput", {})
        self._made_in_workers += told.get("fastloop_made", 0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that a test ran: some were only collected, or set up."""
        self._ran |= report.when == "call"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run that ran tests and made no loop, if it was asked to."""
        worker = getattr(self._config, "workeroutput", None)
        if worker is not None:
            worker["fastloop_made"] = self.made
            return
        if self.made == 0 and self._ran:
            self._loopless = True
            if session.exitstatus == pytest.ExitCode.OK and self._must:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say that the run made no loop, or how many."""
        from fastloop.cli.commands import wrapped

        if self._loopless:
            colour = {"red" if self._must else "yellow": True}
            terminalreporter.section("fastloop", **colour, bold=True)
            terminalreporter.write_line(wrapped(_NO_LOOP), **colour)
        elif terminalreporter.verbosity >= 0:
            loops = "1 loop" if self.made == 1 else f"{self.made} loops"
            terminalreporter.write_line(f"fastloop: {loops} made")

    def pytest_unconfigure(self) -> None:
        """Restore the policy and the patched attributes."""
        self._patches.undo()
        if self._previous_policy is not None:
            asyncio = sys.modules["asyncio"]
            with _without_deprecations():
                asyncio.set_event_loop_policy(self._previous_policy)
