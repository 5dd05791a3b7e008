"""`pytest --fastloop`: runs a suite's asyncio tests on fastloop, unchanged.

pytest loads this module in every project that has fastloop installed, so
without the option it only declares the option.  ``docs/testing.md`` says what
a run with it does, and when it fails.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

_Kind = tuple[dict[str, Any] | None, bool]

_MARK = "fastloop(virtual_time=True)"
_MARK_MEANS = (
    "this test has virtual time; False: it has not.  Also start, end, idle_s "
    "and patience_s, as fastloop.testing.VirtualTimeLoop"
)
_SETTINGS = ("virtual_time", "start", "end", "idle_s", "patience_s")
_TIMES = (
    ("--fastloop-idle-s", 0.001, "a virtual clock jumps after S idle seconds"),
    ("--fastloop-patience-s", 10.0, "and waits S seconds for who is at work"),
)
_NO_LOOP = (
    "fastloop was asked for, and no test of this run made an event loop on "
    "it. Are its async tests run by pytest-asyncio or anyio? --no-fastloop "
    "turns fastloop off."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the `--fastloop` options and the ini option."""
    add = parser.getgroup(
        "fastloop", "the event loop of async tests"
    ).addoption
    add(
        "--fastloop",
        action=argparse.BooleanOptionalAction,
        help="run asyncio tests on fastloop, and fail if none made a loop; "
        "--no-fastloop ignores the ini option",
    )
    add(
        "--fastloop-virtual-time",
        action="store_true",
        help="as --fastloop, and each loop's clock jumps to its next timer "
        "when nothing else can happen",
    )
    for name, default, text in _TIMES:
        add(name, type=float, default=default, metavar="S", help=text)
    add(
        "--fastloop-seed",
        type=int,
        metavar="N",
        help="as --fastloop, and each loop shuffles by N the events whose "
        "order asyncio leaves open",
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
        from fastloop._loop._environment import other_installed

        fault = other_installed() or exc
        raise pytest.UsageError(f"fastloop cannot be used: {fault}") from exc
    run = _FastloopRun(config) if fastloop.is_native else _AsyncioRun(config)
    config.pluginmanager.register(run, "fastloop-run")


@pytest.hookimpl(trylast=True)  # -k, -m and --deselect choose before
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Refuse to run tests that need virtual time on a loop without it.

    Raises pytest.UsageError, also for a mark that is misspelt.
    """
    marked = [item.nodeid for item in items if _marked(item)]
    is_on = config.pluginmanager.has_plugin("fastloop-run")
    off_by_default = config.getoption("fastloop") is None and not is_on
    if marked and off_by_default and not config.option.collectonly:
        raise pytest.UsageError(
            f"{marked[0]} is marked {_MARK}: run pytest with --fastloop, or "
            "set fastloop = true in the ini file"
        )


def _marked(item: pytest.Item) -> dict[str, Any]:
    """What the test's marks say, each setting by the closest; {}: it has none.

    Raises pytest.UsageError for other arguments.
    """
    said: dict[str, Any] = {}
    for mark in reversed([*item.iter_markers("fastloop")]):
        if mark.args or not mark.kwargs.keys() <= {*_SETTINGS}:
            raise pytest.UsageError(
                f"{item.nodeid}: the mark fastloop takes "
                f"{', '.join(_SETTINGS)}, by their names, and nothing else"
            )
        said |= {"virtual_time": True, **mark.kwargs}
    return said


def _class_for_looptime(settings: dict[str, Any]) -> Any:
    """Return loops whose virtual time looptime's plugin turns on and off."""
    from fastloop.testing import VirtualTimeLoop

    theirs: Any = sys.modules["looptime"].LoopTimeEventLoop

    class LooptimeLoop(VirtualTimeLoop, theirs):  # type: ignore[misc]
        _asked: dict[str, Any] = {}

        @property
        def looptime_on(self) -> bool:
            return self._follows_since is None

        def setup_looptime(
            self,
            start: float | None = None,
            end: float | None = None,
            idle_timeout: float | None = None,
            **not_needed: object,
        ) -> None:
            said = {"start": start, "end": end, "patience_s": idle_timeout}
            self._asked = {k: v for k, v in said.items() if v is not None}

        @contextlib.contextmanager
        def looptime_enabled(self) -> Iterator[None]:
            was_on = self.looptime_on
            clock, self._asked = settings | self._asked, {}
            self._go_by(clock)
            try:
                yield
            finally:
                self._go_by(settings if was_on else None)

    return LooptimeLoop


def _is_default(policy: object) -> bool:
    from fastloop._loop import _private

    return policy is None or type(policy) is _private.DefaultPolicy


def _without_loop(backend: Any) -> Any:
    """Remove options that name a loop: without one anyio asks asyncio."""
    if isinstance(backend, str) or backend[0] != "asyncio":
        return backend
    loops = ("loop_factory", "policy", "use_uvloop")
    options = {k: v for k, v in backend[1].items() if k not in loops}
    return backend[0], options


class _AsyncioRun:
    """The hooks of a run on Windows, where all stays asyncio's."""

    def __init__(self, config: pytest.Config) -> None:
        from fastloop._loop._windows import ABOUT

        self._about = ABOUT
        option = config.option
        if option.fastloop_virtual_time or option.fastloop_seed is not None:
            raise pytest.UsageError(
                f"virtual time and seeds need fastloop's loop: this is {ABOUT}"
            )

    def pytest_report_header(self) -> str:
        return f"fastloop: {self._about}"

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Skip what would wait for real time."""
        why = f"virtual time needs fastloop's loop: this is {self._about}"
        for item in items:
            if _marked(item).get("virtual_time"):
                item.add_marker(pytest.mark.skip(why))


class _Named:
    """A suite's pytest_asyncio_loop_factories: its names, but our loops.

    The names, and so the suite's test ids and marks, stay.
    """

    def __init__(self, own: Any, factory: Callable[[], Any]) -> None:
        self._own, self._factory = own, factory

    def __call__(self, *args: Any) -> Any:
        named = self._own(*args)
        return named and dict.fromkeys(named, self._factory)


class _FastloopRun:
    """The hooks of a run on fastloop, which is also the factory of its loops.

    As a class's attribute (unittest's loop_factory) an object does not become
    a bound method.
    """

    def __init__(self, config: pytest.Config) -> None:
        from fastloop import testing
        from fastloop._loop import _private

        self._config = config
        option = config.option
        self._seed: int | None = option.fastloop_seed
        self._virtual_time = bool(option.fastloop_virtual_time)
        self._virtual_class: Any = testing.VirtualTimeLoop
        self._settings = {
            "idle_s": option.fastloop_idle_s,
            "patience_s": option.fastloop_patience_s,
        }
        #: What loops that tests share are like, and those made now: a clock's
        #: settings (None: real time), and whether it may change.
        clock = self._settings if self._virtual_time else None
        self._shared = self._present = (clock, False)
        #: The loops whose clocks may.
        self._changing: weakref.WeakSet[Any] = weakref.WeakSet()
        #: The number of loops made, and whether a run without one fails.
        self._made, self._must = 0, bool(option.fastloop)
        self._ran = False
        self._patches = pytest.MonkeyPatch()
        policy: Any = _private.DefaultPolicy
        if policy is not object:
            factory = staticmethod(self)
            self._patches.setattr(policy, "_loop_factory", factory)
        else:  # Python 3.16
            for name in ("asyncio", "asyncio.unix_events"):
                self._patches.setattr(sys.modules[name], "EventLoop", self)
        theirs: Any = config.pluginmanager.get_plugin("looptime_plugin")
        if theirs is not None:  # It sets our clocks, and changes no class.
            self._patches.setattr(
                theirs.patchers, "patch_event_loop", lambda loop, **_: loop
            )
            self._virtual_class = _class_for_looptime(self._settings)
        self._set_policy()

    def __call__(self) -> Any:
        import fastloop

        loop: Any
        clock, may_change = self._present
        if clock is not None or may_change:
            loop = self._virtual_class(seed=self._seed)
            loop._go_by(clock)
            if may_change:
                self._changing.add(loop)
        elif self._seed is not None:
            loop = fastloop.testing.SeededLoop(seed=self._seed)
        else:
            loop = fastloop.new_event_loop()
        self._made += 1
        return loop

    def _set_policy(self) -> None:
        """Have asyncio's default policy, whose loops are ours."""
        from fastloop._loop import _private

        if not _is_default(_private.policy()):
            self._patches.setattr(_private.POLICY, None)

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
            and getattr(cls, "loop_factory", None) not in (None, self)
        ):
            self._patches.setattr(cls, "loop_factory", self)

    def pytest_plugin_registered(
        self, manager: pytest.PytestPluginManager
    ) -> None:
        """Give pytest-asyncio our loops by a suite's own hook, if it has one.

        Where another implementation answered, pytest-asyncio would make shared
        loops, and what was set up on them, anew for each test.
        """
        hook = getattr(manager.hook, "pytest_asyncio_loop_factories", None)
        for each in hook.get_hookimpls() if hook is not None else ():
            wraps = each.hookwrapper or getattr(each, "wrapper", False)
            if not wraps and not isinstance(each.function, _Named):
                each.function = _Named(each.function, self)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Iterator[None]:
        """Change the values of two fixtures, wherever a suite defines them."""
        is_own = fixturedef.scope == "function"
        with self._making(self._present if is_own else self._shared):
            outcome: Any = yield
        cached = fixturedef.cached_result
        if cached is None or cached[2] is not None:
            return
        value: Any = cached[0]
        if fixturedef.argname == "anyio_backend":
            value = _without_loop(value)
        elif fixturedef.argname == "event_loop_policy" and not _is_default(
            value
        ):
            # Older pytest-asyncio gets its loops from this fixture alone.
            from fastloop._loop import _private

            value = _private.DefaultPolicy()
        else:
            return
        fixturedef.cached_result = (value, cached[1], None)
        outcome.force_result(value)

    @contextlib.contextmanager
    def _making(self, kind: _Kind) -> Iterator[None]:
        """Make loops of this kind within it."""
        before, self._present = self._present, kind
        yield
        self._present = before

    def _clock_for(self, item: pytest.Item) -> dict[str, Any] | None:
        """The clock of loops that a test makes for itself."""
        mark = item.get_closest_marker("looptime")
        option = self._config.getoption("looptime", None)
        looptime = option is not False and all(mark.args if mark else [option])
        said = {"virtual_time": self._virtual_time or looptime} | _marked(item)
        return self._settings | said if said.pop("virtual_time") else None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note whether some tests have another clock than the others."""
        clock, clocks = self._shared[0], map(self._clock_for, session.items)
        is_mixed = any(each != clock for each in clocks)
        self._shared = self._present = (clock, is_mixed)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Make the test's own loops as its marks say.

        Set the policy again: a module, or a test before, may have set its own,
        as by uvloop.install().
        """
        self._set_policy()
        with self._making((self._clock_for(item), False)):
            yield

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Have shared loops go by the test's clock, while it runs."""
        for loop in [*self._changing]:
            loop._go_by(self._present[0])
        yield
        for loop in [*self._changing]:
            loop._go_by(self._shared[0])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        """Show the seed beside a failure."""
        outcome: Any = yield
        report = outcome.get_result()
        if report.failed and self._seed is not None:
            text = f"--fastloop-seed={self._seed}"
            report.sections.append(("fastloop", text))

    def pytest_report_header(self) -> str:
        import fastloop
        from fastloop._loop._environment import is_off

        is_plain = not self._virtual_time and self._seed is None
        if is_plain and is_off():
            return "fastloop: off, by FASTLOOP_DISABLE=loop"
        text = f"fastloop: {fastloop.__version__}, "
        text += f"libuv {fastloop.libuv_version()}"
        if self._virtual_time:
            text += ", virtual time"
        if self._seed is not None:
            text += f", seed {self._seed}"
        return text

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add the loops made by a pytest-xdist worker, unless it crashed."""
        told = getattr(node, "workeroutput", {})
        self._made += told.get("fastloop_made", 0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that a test ran: some were only collected, or set up."""
        self._ran |= report.when == "call"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run that ran tests and made no loop, if it was asked to."""
        worker = getattr(self._config, "workeroutput", None)
        if worker is not None:
            worker["fastloop_made"] = self._made
            return
        is_ok = session.exitstatus == pytest.ExitCode.OK
        if self._made == 0 and self._ran and is_ok and self._must:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say that the run made no loop, or how many."""
        from fastloop.cli.commands import wrapped

        if self._made == 0 and self._ran:
            colour = {"red" if self._must else "yellow": True}
            terminalreporter.section("fastloop", **colour, bold=True)
            terminalreporter.write_line(wrapped(_NO_LOOP), **colour)
        elif terminalreporter.verbosity >= 0:
            loops = "1 loop" if self._made == 1 else f"{self._made} loops"
            terminalreporter.write_line(f"fastloop: {loops} made")

    def pytest_unconfigure(self) -> None:
        """Restore the policy and the patched attributes."""
        self._patches.undo()
