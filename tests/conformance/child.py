"""Runs one module of the interpreter's test.test_asyncio on one kind of loop.

    python child.py KIND MODULE RESULTS --only|--but FILE

It is started by ``run.py``, a process for each module: what a test breaks or
leaves behind stays here, and a test that hangs or crashes takes nothing else
along.  Each test's outcome is a line of JSON in RESULTS, written when the
test begins and when it ends: the last one that only began is the one that
hung.

The tests make their loops by asyncio's own names.  For fastloop those names
are given other values before the module is imported; for asyncio only the
record of which loops ran is added.  ``--only`` names a file with one test id
a line; without it all tests run.
"""

from __future__ import annotations

import asyncio
import asyncio.base_events
import asyncio.selector_events
import asyncio.unix_events
import faulthandler
import functools
import importlib
import inspect
import json
import os
import signal
import sys
import unittest
from pathlib import Path
from typing import IO, Any

import left_out

#: Seconds that one test may take; a slow machine may need more.
LIMIT = float(os.environ.get("PYTEST_TIMEOUT", "120"))
PACKAGE = "test.test_asyncio."
#: They make a BaseEventLoop for want of any loop: here they get a whole one.
#: (Elsewhere the name is a base class, or its methods are called unbound.)
ANY_LOOP = ("test_base_events", "test_pep492", "test_runners")


class Record:
    """Which loops the current test made and ran."""

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


def watch_asyncio_loops(own: type | None, test_loop: type) -> None:
    """Note asyncio's loops: those of class ``own`` are the ones in question.

    ``own`` is None when none is.  The suite's own ``test_loop`` never is, nor
    one of selector_events' base class, which has no sendfile of the system.
    """
    base = asyncio.base_events.BaseEventLoop
    bare = asyncio.selector_events.BaseSelectorEventLoop

    def is_own(loop: Any) -> bool:
        if own is None or isinstance(loop, test_loop) or type(loop) is bare:
            return False
        return isinstance(loop, own)

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


def put_in_place(theirs: type, ours: type) -> None:
    """Give asyncio's names for its class this value."""
    unix = asyncio.unix_events
    for module in (asyncio, unix, asyncio.base_events):
        for name, value in list(vars(module).items()):
            if value is theirs:
                setattr(module, name, ours)
    for value in vars(unix).values():
        if inspect.isclass(value) and vars(value).get("_loop_factory"):
            value._loop_factory = ours


class Result(unittest.TextTestResult):
    """Writes what happens to each test as it happens."""

    out: IO[str]
    current: unittest.TestCase | None = None

    def note(self, test: unittest.TestCase, **what: Any) -> None:
        name = test.id().removeprefix(PACKAGE)
        print(json.dumps({"test": name, **what}), file=self.out, flush=True)

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().startTest(test)
        RECORD.clear()
        self.current = test
        self.outcome: tuple[str, str] = ("passed", "")
        self.note(test, began=True)
        faulthandler.dump_traceback_later(LIMIT, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        if self.current is None:  # 3.12.1 began no test that it skipped
            super().stopTest(test)
            return
        faulthandler.cancel_dump_traceback_later()
        outcome, detail = self.outcome
        self.note(
            test,
            outcome=outcome,
            detail=detail,
            loop=RECORD.verdict(),
        )
        self.current = None
        super().stopTest(test)

    def failed(self, test: Any, err: Any) -> None:
        text = self._exc_info_to_string(err, test)
        if self.current is not None:
            self.outcome = ("failed", text)
        else:  # a class's or module's set-up
            self.note(test, outcome="failed", detail=text, loop="none")

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self.failed(test, err)

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self.failed(test, err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.failed(test, err)

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        if self.current is None:  # a class, or see stopTest
            self.note(test, outcome="skipped", detail=reason, loop="none")
        elif self.outcome[0] == "passed":
            self.outcome = ("skipped", reason)

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
        super().addUnexpectedSuccess(test)
        self.outcome = ("failed", "an expected failure that passed")


def load(module: str, option: str, listed: set[str]) -> list[Any]:
    """Return the module's tests, or those of them that are asked for."""
    found = importlib.import_module(PACKAGE + module)
    tests = flat(unittest.defaultTestLoader.loadTestsFromModule(found))
    return [t for t in tests if (name_of(t) in listed) == (option == "--only")]


def flat(suite: Any) -> list[unittest.TestCase]:
    if isinstance(suite, unittest.TestCase):
        return [suite]
    return [test for part in suite for test in flat(part)]


def name_of(test: unittest.TestCase) -> str:
    return test.id().removeprefix(PACKAGE)


def prepare(kind: str, module: str) -> None:
    """Put the loop in question under the module's tests."""
    own = asyncio.unix_events._UnixSelectorEventLoop
    base = asyncio.base_events.BaseEventLoop
    utils = importlib.import_module(PACKAGE + "utils")
    if kind == "asyncio":
        own = base if module in ANY_LOOP else own
        watch_asyncio_loops(own, utils.TestLoop)
        return
    ours = fastloop_class()
    watch_asyncio_loops(None, utils.TestLoop)
    put_in_place(own, ours)
    if module in ANY_LOOP:
        put_in_place(base, ours)


def main() -> int:
    kind, module, results, option, path = sys.argv[1:]
    listed = set(Path(path).read_text().split())
    faulthandler.enable()
    # A shell's background jobs ignore it, and tests interrupt themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(results, "a") as out:
        try:
            prepare(kind, module)
            tests = load(module, option, listed)
        except unittest.SkipTest as exc:
            line = {"test": module, "outcome": "skipped", "detail": str(exc)}
            print(json.dumps({**line, "loop": "none"}), file=out)
            return 0
        away, wrong = left_out.divide({name_of(t): t for t in tests})
        if option == "--but":
            line = {"left_out": sorted(away), "wrong": wrong}
            print(json.dumps(line), file=out, flush=True)
        Result.out = out
        suite = unittest.TestSuite(t for t in tests if name_of(t) not in away)
        runner = unittest.TextTestRunner(resultclass=Result, verbosity=2)
        runner.run(suite)
    return 0


if __name__ == "__main__":
    sys.exit(main())
