"""A pytest plugin: CPython's own test.test_asyncio on one kind of loop.

    python -m pytest -c tests/conformance/pytest.ini --pyargs test.test_asyncio

The tests make their loops by asyncio's own names.  For fastloop those names
are given other values before a module is imported; for asyncio only the record
of which loops ran is added.  pytest-timeout fails a test that hangs, and
pytest-xdist (``-n 2``) one that crashes.  The results are for ``table.py``.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.selector_events
import asyncio.unix_events
import contextlib
import functools
import gc
import importlib
import inspect
import json
import platform
import signal
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import left_out
import pytest

OUT = Path(__file__).resolve().parents[2] / "build" / "conformance"
PACKAGE = "test.test_asyncio."
COLUMNS = "passed failed skipped left_out not_run other none"
#: They make a BaseEventLoop for want of any loop: here they get a whole one.
#: (Elsewhere the name is a base class, or its methods are called unbound.)
ANY_LOOP = ("test_base_events", "test_pep492", "test_runners")


class Record:
    """Which loops the current test made and ran."""

    #: asyncio's class that is in question in a test's module, if one is.
    own: type | None = None

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.own_ran = self.own_made = self.other = False

    def verdict(self) -> str:
        if self.own_ran:
            return "ran"
        if self.other:
            return "other"
        return "made" if self.own_made else "none"


RECORD = Record()


def watch_asyncio_loops(test_loop: type) -> None:
    """Note asyncio's loops: those of class ``RECORD.own`` are in question.

    The suite's own ``test_loop`` never is, nor one of selector_events' base
    class, which has no sendfile of the system.
    """
    base = asyncio.base_events.BaseEventLoop
    bare = asyncio.selector_events.BaseSelectorEventLoop

    def is_own(loop: Any) -> bool:
        if isinstance(loop, test_loop) or type(loop) is bare:
            return False
        return RECORD.own is not None and isinstance(loop, RECORD.own)

    init, hook = base.__init__, base._asyncgen_firstiter_hook

    def noted_init(self: Any, *args: Any, **kwargs: Any) -> None:
        if is_own(self):
            RECORD.own_made = True
        else:
            RECORD.other = True
        init(self, *args, **kwargs)

    def noted_run(self: Any) -> Any:
        if is_own(self):
            RECORD.own_ran = True
        else:
            RECORD.other = True
        return hook.__get__(self)

    base.__init__ = noted_init
    # Each run asks for it once it has begun.
    base._asyncgen_firstiter_hook = property(noted_run)


def fastloop_class() -> type:
    """Return fastloop's Loop with SelectorEventLoop's signature, noted."""
    import fastloop

    hook = asyncio.BaseEventLoop.__dict__["_asyncgen_firstiter_hook"]

    class Loop(fastloop.Loop):
        def __init__(self, selector: Any = None) -> None:
            RECORD.own_made = True
            if selector is not None:
                selector.close()
            super().__init__()

        #: Tests set mocks, which stand for no wait here.
        _selector: Any = functools.cached_property(
            fastloop.Loop._selector.fget  # type: ignore[attr-defined]
        )

        @property
        def _asyncgen_firstiter_hook(self) -> Any:
            RECORD.own_ran = True
            return hook.__get__(self)

    Loop.__qualname__ = "Loop"
    Loop.__module__ = "fastloop"
    return Loop


def put_in_place(patch: pytest.MonkeyPatch, theirs: type, ours: type) -> None:
    """Give asyncio's names for its class this value."""
    unix = asyncio.unix_events
    for module in (asyncio, unix, asyncio.base_events):
        for name, value in list(vars(module).items()):
            if value is theirs:
                patch.setattr(module, name, ours)
    for value in vars(unix).values():
        if inspect.isclass(value) and vars(value).get("_loop_factory"):
            patch.setattr(value, "_loop_factory", ours)


class Conformance:
    """The loop in question under the tests, and what became of each."""

    def __init__(self, kind: str) -> None:
        self.tests: dict[str, list[str]] = {}
        self.left_out: list[str] = []
        self.wrong = left_out.mistakes()
        utils = importlib.import_module(f"{PACKAGE}utils")
        self.base = asyncio.base_events.BaseEventLoop
        self.own = asyncio.unix_events._UnixSelectorEventLoop
        self.ours: type | None = None
        watch_asyncio_loops(utils.TestLoop)
        if kind == "fastloop":
            self.ours = fastloop_class()
            put_in_place(pytest.MonkeyPatch(), self.own, self.ours)

    @contextlib.contextmanager
    def placed(self, module: str) -> Iterator[None]:
        """Within this, the loop of a module's tests is in its place."""
        is_any = module.removeprefix(PACKAGE) in ANY_LOOP
        with pytest.MonkeyPatch.context() as patch:
            if self.ours is None:
                RECORD.own = self.base if is_any else self.own
            elif is_any:
                put_in_place(patch, self.base, self.ours)
            yield

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: Any) -> Any:
        with self.placed(getattr(collector, "path", Path()).stem):
            return (yield)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:  # a module of Windows, or one that is broken
            name = Path(report.nodeid).stem
            self.tests[name] = [report.outcome, "none"]

    def pytest_collection_finish(self) -> None:
        gc.freeze()  # tests collect often, and pytest has many objects

    def pytest_collection_modifyitems(self, config: Any, items: Any) -> None:
        """Leave out what left_out.toml names, and check that list."""
        named = {name_of(item): item for item in items}
        cases = {name: it.cls(it.name) for name, it in named.items()}
        away, self.wrong[len(self.wrong) :] = left_out.divide(cases)
        self.left_out = sorted(away)
        config.hook.pytest_deselected(items=[named[name] for name in away])
        items[:] = [it for name, it in named.items() if name not in away]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        RECORD.clear()
        with self.placed(item.module.__name__):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: Any) -> Any:
        report = yield
        # xdist sends it on.
        report.user_properties = [(name_of(item), RECORD.verdict())]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name, loop = (report.user_properties or [(report.nodeid, "none")])[-1]
        outcome = "passed" if hasattr(report, "wasxfail") else report.outcome
        # pytest passes a test whose subtest has failed.
        failed = self.tests.get(name, [""])[0] == "failed"
        if outcome != "passed" or (report.when == "call" and not failed):
            self.tests[name] = [outcome, loop]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take what a worker has left out: all of them find the same."""
        found = getattr(node, "workeroutput", {}).get("conformance")
        self.left_out, self.wrong = found or (self.left_out, self.wrong)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["conformance"] = self.left_out, self.wrong
        elif self.wrong:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        column = {"ran": "passed", "made": "not_run"}
        counts = dict.fromkeys(COLUMNS.split(), 0)
        for outcome, loop in self.tests.values():
            is_ok = outcome == "passed"
            counts[column.get(loop, loop) if is_ok else outcome] += 1
        counts["left_out"] = len(self.left_out)
        found = {"version": version(), "counts": counts, "wrong": self.wrong}
        found |= {"left_out": self.left_out, "tests": self.tests}
        for line in self.wrong:
            terminalreporter.write_line(f"left_out.toml: {line}")
        words = ", ".join(f"{n} {what}" for what, n in counts.items())
        terminalreporter.write_line(f"{version()}: {words}")
        if name := terminalreporter.config.getoption("--result"):
            OUT.mkdir(parents=True, exist_ok=True)
            (OUT / f"{name}.json").write_text(json.dumps(found, indent=1))


def name_of(item: Any) -> str:
    module = item.module.__name__.removeprefix(PACKAGE)
    return f"{module}.{item.cls.__name__}.{item.name}"


def version() -> str:
    """Return this interpreter's exact version, with a t without a GIL."""
    free = sysconfig.get_config_var("Py_GIL_DISABLED")
    return platform.python_version() + ("t" if free else "")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kind", default="fastloop", help="or asyncio")
    parser.addoption("--result", help="its name in build/conformance")


def pytest_configure(config: pytest.Config) -> None:
    # A shell's background jobs ignore it, and tests interrupt themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    plugin = Conformance(config.getoption("--kind"))
    config.pluginmanager.register(plugin, "conformance")
