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

import argparse
import contextlib
import sys
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

_MARK = "fastloop(virtual_time=True)"
_MARK_MEANS = (
    "this test has virtual time; False: it has not.  Also start, end, idle_s "
    "and patience_s, as fastloop.testing.VirtualTimeLoop"
)
_SETTINGS = ("start", "end", "idle_s", "patience_s")
#: The arguments of the marks, by what they are here; "": not needed here.
_MARKS = {
    "fastloop": {name: name for name in ("virtual_time", *_SETTINGS)},
    "looptime": {
        "start": "start",
        "end": "end",
        "idle_timeout": "patience_s",
        "idle_step": "",
        "noop_cycles": "",
        "resolution": "",
    },
}
_NO_LOOP = (
    "fastloop was asked for, and no test of this run made an event loop on "
    "it. Are its async tests run by pytest-asyncio or anyio? --no-fastloop "
    "turns fastloop off."
)


def _seconds(text: str) -> float:
    """Parse an option's value."""
    seconds = float(text)
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(
            f"must be at least 0 seconds, not {text}"
        )
    return seconds


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
        "--fastloop-idle-s",
        type=_seconds,
        metavar="S",
        help="with virtual time: a clock jumps after S s of real time without "
        "an event (0.001)",
    )
    group.addoption(
        "--fastloop-patience-s",
        type=_seconds,
        metavar="S",
        help="with virtual time: a loop waits for S s of real time for a "
        "thread, a child process or a descriptor (10)",
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
    marked = [item.nodeid for item in items if _marked(item, "fastloop")]
    asked = config.getoption("fastloop")
    is_on = config.pluginmanager.has_plugin("fastloop-run")
    if marked and asked is None and not is_on:
        raise pytest.UsageError(
            f"{marked[0]} is marked {_MARK}: run pytest with --fastloop, or "
            "set fastloop = true in the ini file"
        )


def _marked(item: pytest.Item, name: str) -> dict[str, Any]:
    """What the test's marks say, each setting by the closest; {}: it has none.

    Raises pytest.UsageError for other arguments.
    """
    said: dict[str, Any] = {}
    names = _MARKS[name]
    for mark in reversed([*item.iter_markers(name)]):
        is_ours = name == "fastloop"
        if not mark.kwargs.keys() <= names.keys() or (
            is_ours and (mark.args or not mark.kwargs)
        ):
            raise pytest.UsageError(
                f"{item.nodeid}: the mark {name} takes {', '.join(names)}, "
                "by their names, and nothing else"
            )
        if is_ours or not said:
            said["virtual_time"] = True
        if mark.args:
            said["virtual_time"] = bool(mark.args[0])
        said |= {names[key]: value for key, value in mark.kwargs.items()}
    return said


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

    def __init__(self, clock: dict[str, Any] | None, seed: int | None) -> None:
        from fastloop import testing

        self.made = 0
        self.virtual_class: Any = testing.VirtualTimeLoop
        #: The clock of loops: settings of virtual time; None: real time.  The
        #: one is the present test's, the other for loops that tests share.
        self.clock = self.default = clock
        self.seed = seed
        #: Whether the next loop may serve several tests.
        self.is_shared = True
        #: Whether the clocks of those loops have to change from test to test.
        self.is_marked = False
        self.shared: weakref.WeakSet[Any] = weakref.WeakSet()

    def __call__(self) -> Any:
        """Make a loop."""
        import fastloop
        from fastloop import testing

        loop: Any
        clock = self.default if self.is_shared else self.clock
        if clock is not None or (self.is_shared and self.is_marked):
            loop = self.virtual_class(seed=self.seed, **(clock or {}))
            if self.is_shared:
                self.shared.add(loop)
            if clock is None:
                loop._follow_real_time()
        elif self.seed is not None:
            loop = testing.SeededLoop(seed=self.seed)
        else:
            loop = fastloop.new_event_loop()
        self.made += 1
        return loop

    def set_clocks(self, clock: dict[str, Any] | None) -> None:
        """Have the loops that tests share go by this clock."""
        for loop in [*self.shared]:
            if clock is None:
                loop._follow_real_time()
            else:
                loop._set_clock(**({"start": loop.time()} | clock))


def _class_for_looptime() -> Any:
    """Return loops with virtual time that looptime.enabled() takes."""
    from fastloop.testing import VirtualTimeLoop

    theirs: Any = sys.modules["looptime"].LoopTimeEventLoop

    class LooptimeLoop(VirtualTimeLoop, theirs):  # type: ignore[misc]
        @property
        def looptime_on(self) -> bool:
            return self._follows_since is None

        @contextlib.contextmanager
        def looptime_enabled(self) -> Iterator[None]:
            if self.looptime_on:
                yield
                return
            self._set_clock(self.time())
            try:
                yield
            finally:
                self._follow_real_time()

    return LooptimeLoop


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
        option = config.option
        #: --looptime, --no-looptime; None: neither.
        self._looptime = config.getoption("looptime", None)
        self._virtual_time = bool(
            option.fastloop_virtual_time or self._looptime
        )
        asked = {
            "idle_s": option.fastloop_idle_s,
            "patience_s": option.fastloop_patience_s,
        }
        self._settings = {k: v for k, v in asked.items() if v is not None}
        self._factory = _Factory(self._clock({}), option.fastloop_seed)
        self._replace_looptime()
        #: Whether a run without a loop fails.
        self._must = bool(config.option.fastloop)
        self._policy = _make_policy(self._factory)
        self._previous_policy: Any = None
        self._made_in_workers = 0
        self._ran = self._loopless = False
        self._patches = pytest.MonkeyPatch()
        if self._policy is None:
            for name in ("asyncio", "asyncio.unix_events"):
                module = sys.modules[name]
                self._patches.setattr(module, "EventLoop", self._factory)
        self._set_policy()

    def _replace_looptime(self) -> None:
        """Keep looptime from changing our loops, whose clock is another.

        Its marks and options are served; its fixture is kept.  Its loops are
        ours.
        """
        manager = self._config.pluginmanager
        plugin: Any = manager.get_plugin("looptime_plugin")
        if plugin is not None:
            manager.unregister(plugin)
            kept: Any = types.ModuleType("looptime_fixture")
            kept.looptime = getattr(plugin, "looptime", None)
            manager.register(kept)
            self._factory.virtual_class = _class_for_looptime()
        self._config.addinivalue_line(
            "markers", f"looptime: as {_MARK}, where looptime is not in use"
        )

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
        was_shared = self._factory.is_shared
        self._factory.is_shared = fixturedef.scope != "function"
        outcome: Any = yield
        self._factory.is_shared = was_shared
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

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note whether some tests have another clock than the others."""
        marks = ("fastloop", "looptime")
        self._factory.is_marked = any(
            item.get_closest_marker(mark)
            for item in session.items
            for mark in marks
        )

    def _clock(self, said: dict[str, Any]) -> dict[str, Any] | None:
        """The settings of virtual time; None: real time."""
        if not said.get("virtual_time", self._virtual_time):
            return None
        settings = self._settings | {
            name: said[name] for name in _SETTINGS if name in said
        }
        # looptime's may be functions.
        called = {k: v() if callable(v) else v for k, v in settings.items()}
        return {k: v for k, v in called.items() if v is not None}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Make the test's own loops as its marks say."""
        said = _marked(item, "fastloop")
        if not said and self._looptime is not False:
            said = _marked(item, "looptime")
        factory = self._factory
        factory.clock, factory.is_shared = self._clock(said), False
        yield
        factory.clock, factory.is_shared = factory.default, True

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Have shared loops go by the test's clock, while it runs."""
        self._factory.set_clocks(self._factory.clock)
        yield
        self._factory.set_clocks(self._factory.default)

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
