"""Runs scenarios again and again, one call failing each time.

    sweep.py [--most N] [--seed N] [--kinds KIND,...] [SCENARIO...]
    sweep.py --only NAME:SKIP:COUNT:ERRNO SCENARIO

A scenario (scenarios.py) runs once to count what the extension calls, then
once for each of those calls with that one failing, by each errno it may give.
Every run is a fork of this process, which is warm, so there are hundreds a
second.  A run must end by itself, with its result or an exception or a report;
then the loop works still, and closes, and there are no more descriptors and no
more of fastloop's objects than after a run in which nothing fails.  Errors
that are reported are the call's own, or the reset that follows of it, and what
a system may answer at any time is not noticed at all (`--harmless`: those
answers alone).

Kinds: `system` (system calls), `memory` (malloc and its like),
`python` (functions of CPython that the extension calls raise MemoryError),
`cut` (short reads and writes throughout, some of which would block),
`lasting` (what fails once fails the next times as well).
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import errno
import faulthandler
import gc
import itertools
import json
import logging
import os
import random
import select
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
import traceback
import warnings
from asyncio import constants
from pathlib import Path
from typing import Any

import fault_shim
import scenario_tools
import scenarios
from fault_shim import BOTH, SHORT

import fastloop

#: Seconds after which a run counts as hanging: it takes milliseconds.
PATIENCE = float(os.environ.get("FASTLOOP_SWEEP_PATIENCE", "15"))
#: Seconds that a scenario may go on after something was reported.
GRACE = 0.3
ACCEPT_PAUSE = 0.02

MOVED = "EAGAIN EINTR ECONNRESET ETIMEDOUT ENOMEM"
SENT = "EAGAIN EINTR EPIPE ECONNRESET ENOBUFS ENOMEM"
#: By which errno each function may fail; 0 is a short read or write.
ERRNOS = {
    "accept4": "EAGAIN EINTR ECONNABORTED EMFILE ENFILE ENOBUFS ENOMEM EPERM",
    "aligned_alloc": "ENOMEM",
    "calloc": "ENOMEM",
    "close": "EINTR EIO",
    "dup3": "EBUSY EINTR",
    "epoll_create1": "EMFILE ENOMEM",
    "epoll_ctl": "ENOMEM ENOSPC EPERM",
    "epoll_ctl_mod": "ENOMEM",
    "epoll_wait": "EINTR",
    "eventfd": "EMFILE ENFILE ENOMEM",
    "fcntl": "EBADF EINTR",
    "fstat64": "ENOMEM",
    "getpeername": "ENOTCONN ENOBUFS",
    "getsockname": "ENOBUFS",
    "getsockopt": "ENOBUFS",
    "ioctl": "EINVAL ENOTTY",
    "malloc": "ENOMEM",
    "mmap": "ENOMEM",
    "poll": "EINTR ENOMEM",
    "ppoll": "EINTR ENOMEM",
    # Of a counter, which is read and written whole.
    "read": "EAGAIN EINTR",
    "realloc": "ENOMEM",
    "pthread_create": "EAGAIN EINVAL",
    "recv": MOVED + " 0",
    "recvfrom": MOVED,
    "recvmmsg": MOVED + " 0",
    "recvmsg": MOVED + " 0",
    "send": SENT + " 0",
    "sendmsg": SENT + " 0",
    "sendto": SENT + " EPERM",
    "setsockopt": "EINVAL ENOMEM",
    "shutdown": "ENOTCONN ENOBUFS",
    "uv_cond_init": "ENOMEM",
    "uv_mutex_init": "ENOMEM",
    "write": "EAGAIN EINTR",
    "writev": SENT + " 0",
}
#: Counted, and not made to fail.
WHOLE = {
    # None fails for what it is given.
    "clock_gettime",
}
KINDS = ("system", "memory", "python", "cut", "lasting")
MEMORY = {"malloc", "calloc", "realloc", "aligned_alloc", "mmap"}
ALLOWED = (OSError, MemoryError, EOFError)
#: What fails for long once it fails: again and again, by this errno.
LASTING = {
    "epoll_ctl": "ENOMEM",
    "epoll_ctl_mod": "ENOMEM",
    "recvmmsg": "ENOMEM",
    "send": "EAGAIN",
    "sendto": "EAGAIN",
}
#: So many calls.
LONG = 30
#: Nothing fails: every read and write moves so many bytes at most, and one in
#: so many would block.
CUTS = [
    ("cut", size, again, errno.EAGAIN)
    for size in (1, 3, 1000)
    for again in (0, 2, 3)
]
#: What a system may answer at any time: an application does not notice.
HARMLESS = {
    "accept4": {errno.EAGAIN, errno.EINTR, errno.ECONNABORTED},
    "cut": {errno.EAGAIN},
    "epoll_wait": {errno.EINTR},
    "getpeername": {errno.ENOTCONN, errno.ENOBUFS},
    "getsockname": {errno.ENOBUFS},
    "poll": {errno.EINTR},
    "ppoll": {errno.EINTR},
    "setsockopt": {errno.EINVAL, errno.ENOMEM},
} | {
    name: {errno.EAGAIN, errno.EINTR, SHORT}
    for name, codes in ERRNOS.items()
    if codes.startswith("EAGAIN EINTR") and name != "accept4"
}
#: What the other end of a connection gets.
CONSEQUENCES = (errno.ECONNRESET, errno.EPIPE)
#: A function, the calls before, those that fail, and by which errno.
Point = tuple[str, int, int, int]


def kind_of(name: str) -> str:
    if name == "cut":
        return "cut"
    if name.startswith(("Py", "_Py")):
        return "python"
    return "memory" if name in MEMORY else "system"


def is_harmless(point: Point) -> bool:
    name, _, count, code = point
    return count != LONG and code in HARMLESS.get(name, ())


def is_another(exc: BaseException, point: Point) -> bool:
    """Whether it is an error of the system that the call has not led to."""
    name, _, _, code = point
    return (
        kind_of(name) == "system"
        and isinstance(exc, OSError)
        and not isinstance(exc, (ssl.SSLError, socket.gaierror))
        and exc.errno not in (None, code, *CONSEQUENCES)
    )


def points_of(calls: dict[str, int], kinds: set[str]) -> list[Point]:
    """Return each way in which one call of a run may fail."""
    found = []
    for name, count in calls.items():
        kind = kind_of(name)
        if name in WHOLE or kind not in kinds:
            continue
        words = ERRNOS[name] if kind in ("system", "memory") else "ENOMEM"
        codes = [
            SHORT if word == "0" else getattr(errno, word)
            for word in words.split()
        ]
        found += itertools.product([name], range(count), [1], codes)
        if name in LASTING and "lasting" in kinds:
            code = getattr(errno, LASTING[name])
            found += [(name, skip, LONG, code) for skip in range(count)]
    return found + CUTS if "cut" in kinds else found


def descriptors() -> collections.Counter[str]:
    """Return how many descriptors are open of which kind."""
    found = collections.Counter[str]()
    for name in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one of this folder
        found[path.partition(":[")[0]] += 1
    return found


def objects() -> collections.Counter[str]:
    """Count what is alive of fastloop's objects and the scenarios'."""
    names = collections.Counter[str]()
    for one in gc.get_objects():
        kind = type(one)
        if kind.__module__.startswith(("fastloop", "scenario")):
            names[kind.__qualname__] += 1
    return names


class Run:
    """One run of a scenario in a child, and what became of it."""

    def __init__(self, scenario: Any) -> None:
        self.scenario = scenario
        self.reports: list[str] = []
        self.raised: list[BaseException] = []
        self.loop: Any = None
        self.main: Any = None
        self.running = False
        self.ending: list[Any] = []
        self.hits = 0

    def report(self, text: str) -> None:
        """Note a report; what does not end by itself now is ended."""
        self.reports.append(text)
        if self.running and not self.ending:
            self.ending.append(None)
            self.loop.call_soon_threadsafe(self.later, self.end)

    def hang(self) -> None:
        """Say where everything waits; the dump of the stack comes then."""
        where = fault_shim.line_of(*fault_shim.place(SHIM))
        print("hangs after a failure of", where, flush=True)
        for task in asyncio.all_tasks(self.loop):
            task.print_stack(limit=4)

    def later(self, action: Any) -> None:
        self.ending.append(self.loop.call_later(GRACE, action))

    def end(self) -> None:
        if self.main is not None:
            self.main.cancel()
        # A task whose step was lost does not end by that.
        self.later(self.loop.stop)

    def handle(self, loop: Any, context: dict[str, Any]) -> None:
        self.report(f"{context.get('message')}: {context.get('exception')!r}")

    def watch_reports(self) -> None:
        """Have logged errors and unraisable ones count as reported."""
        handler = logging.Handler()
        handler.emit = (  # type: ignore[method-assign]
            lambda record: self.report(record.getMessage())
        )
        logging.getLogger().handlers[:] = [handler]
        threading.excepthook = lambda args: self.report(
            f"in a thread: {args.exc_value!r}"
        )
        sys.unraisablehook = lambda args: self.report(
            f"unraisable {args.exc_value!r} in {args.object!r}"
        )

    def attempt(self, what: Any, *args: Any) -> Any:
        """Do it, and once more if it is this that fails."""
        for _ in range(2):
            try:
                return what(*args)
            except (*ALLOWED, asyncio.CancelledError) as exc:
                self.raised.append(exc)
                self.disarm()
        raise RuntimeError(f"{what} fails twice") from self.raised[-1]

    def until(self, what: Any) -> None:
        """Run a coroutine to its end, or to that of a grace after a report."""
        self.ending = []
        self.running = True
        try:
            self.loop.run_until_complete(self.body(what))
        except (asyncio.CancelledError, RuntimeError):
            if not self.ending:
                raise
        finally:
            self.running = False
            self.main = None
            for handle in filter(None, self.ending):
                handle.cancel()

    async def body(self, what: Any) -> None:
        self.main = asyncio.current_task()
        await what()

    def disarm(self) -> None:
        """Let nothing fail any more."""
        self.hits += SHIM.fault_hits()
        SHIM.fault_arm(b"", 0, 0, 0)
        SHIM.fault_cut(0, 0, 0, 0)

    def play(self) -> None:
        """Run the scenario on a loop of its own, and close that."""
        self.loop = self.attempt(fastloop.new_event_loop)
        self.loop.set_exception_handler(self.handle)
        hang = self.attempt(self.loop.call_later, PATIENCE / 2, self.hang)
        try:
            self.until(self.scenario)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, AssertionError) and is_scenarios(exc):
                raise
            self.raised.append(exc)
        # What asyncio.Runner does at its end.
        self.attempt(self.cancel_tasks)
        self.attempt(self.until, self.loop.shutdown_asyncgens)
        self.disarm()
        # Not swept yet: where a step of this is lost the loop is sometimes
        # alive after the run.
        self.attempt(self.until, self.loop.shutdown_default_executor)
        hang.cancel()
        # A run that failed after its future was done has left asyncio's stop.
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        done = self.loop.run_until_complete(asyncio.sleep(0.0002, 5))
        assert done == 5
        for task in asyncio.all_tasks(self.loop):
            # Its step was lost.  If GC closes the coroutine, and its frame has
            # the last reference to the task, CPython closes it once more
            # inside of that, and crashes.
            with contextlib.suppress(Exception):
                task.get_coro().close()
        self.loop.close()

    def cancel_tasks(self) -> None:
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.until(lambda: asyncio.wait(tasks, timeout=2 * GRACE))

    def judge(self, point: Point | None) -> str:
        """Return what is wrong with how the run ended, or nothing."""
        reported = [*self.reports, *scenario_tools.reported]
        if (
            point is not None
            and is_harmless(point)
            and (reported or self.raised)
        ):
            return "noticed"
        for exc in [*self.raised, *scenario_tools.reported]:
            for one in flat(exc):
                if point is not None and is_another(one, point):
                    return f"another error than that of the call: {one!r}"
        for exc in self.raised:
            for one in flat(exc):
                if isinstance(one, (scenario_tools.Early, EOFError)):
                    if not reported and not any(
                        isinstance(other, (OSError, MemoryError))
                        for other in self.raised
                    ):
                        return f"an end that nothing reported: {one!r}"
                elif isinstance(one, TimeoutError) and not one.errno:
                    return "a time-out"
                elif isinstance(one, asyncio.CancelledError):
                    if not reported and len(self.raised) < 2:
                        return "cancelled by nobody"
                # An application of which a callback was not called, which was
                # reported, may fail in any way.
                elif isinstance(one, SystemError) or (
                    not isinstance(one, ALLOWED) and not self.reports
                ):
                    return f"not an error of a failing call: {one!r}"
        return ""


def is_scenarios(exc: AssertionError) -> bool:
    """Whether a scenario's own check failed, and not one in asyncio."""
    place = traceback.extract_tb(exc.__traceback__)[-1].filename
    return Path(place).name.startswith("scenario")


def flat(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [one for part in exc.exceptions for one in flat(part)]
    return [exc]


def run_child(scenario: Any, point: Point | None) -> dict[str, Any]:
    """Run a scenario in this process, which is a child; say how it went."""
    faulthandler.enable()
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    scenario_tools.reported.clear()
    run = Run(scenario)
    run.watch_reports()
    open_before = descriptors()
    os.environ["FASTLOOP_DISABLE"] = scenarios.DISABLED.get(
        scenario.__name__, ""
    )
    before = fault_shim.counts(SHIM)
    if point is not None and point[0] == "cut":
        _, size, again, code = point
        SHIM.fault_cut(BOTH, size, again, code)
        scenarios.MUCH = scenarios.MUCH[: size * 3000]
    elif point is not None:
        name, *numbers = point
        SHIM.fault_arm(name.encode(), *numbers)
    wrong = ""
    try:
        run.play()
    except BaseException:
        wrong = traceback.format_exc()
    SHIM.fault_arm(b"", 0, 0, 0)
    after = fault_shim.counts(SHIM)
    wrong = wrong or run.judge(point)
    answer = {
        "wrong": wrong,
        "place": fault_shim.place(SHIM),
        "raised": [repr(exc) for exc in run.raised],
        "reports": run.reports,
        "reported": [repr(exc) for exc in scenario_tools.reported],
        "hits": run.hits,
        "calls": {
            name: after[name][1] - before[name][1]
            for name in after
            if after[name][1] > before[name][1]
        },
    }
    scenario_tools.reported.clear()
    logging.getLogger().handlers.clear()
    # Without source lines: to read one, CPython 3.13 does what UBSan reports.
    sys.unraisablehook = lambda args: print("unraisable", args.exc_value)
    threading.excepthook = threading.__excepthook__
    del run
    # Of an executor whose shutdown was no longer awaited.
    for thread in set(threading.enumerate()) - {threading.current_thread()}:
        thread.join()
    for _ in range(2):
        loop = fastloop.new_event_loop()
        assert loop.run_until_complete(asyncio.sleep(0.0002, 5)) == 5
        loop.close()
        del loop
        gc.collect()
    open_after = descriptors()
    open_after.subtract(open_before)
    answer["left"] = dict(open_after + objects())
    return answer


class Child:
    """A fork of this process in which a scenario runs."""

    def __init__(self, scenario: Any, point: Point | None) -> None:
        self.point = point
        self.began = time.monotonic()
        self.output = tempfile.TemporaryFile()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(self.output.fileno(), 1)
            os.dup2(self.output.fileno(), 2)
            status = 2
            try:
                answer = run_child(scenario, point)
                print("\n" + json.dumps(answer), flush=True)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        self.pidfd = os.pidfd_open(self.pid)

    def finish(self) -> tuple[dict[str, Any], str]:
        """Return the child's answer, and what is wrong with its end."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        self.output.seek(0)
        text = self.output.read().decode(errors="replace")
        self.output.close()
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            answer = json.loads(text.splitlines()[-1])
            return answer, answer["wrong"]
        what = signal.Signals(-code).name if code < 0 else f"status {code}"
        return {}, f"ended by {what}:\n{text[-6000:]}"

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def surplus(answer: dict[str, Any], clean: dict[str, Any]) -> str:
    """Return what a run left that one without a failure does not."""
    more = collections.Counter(answer["left"])
    more.subtract(clean["left"])
    left = {name: count for name, count in more.items() if count > 0}
    return f"left: {left}" if left else ""


def explain(answer: dict[str, Any]) -> str:
    if not answer:
        return ""
    words = ("raised", "reports", "reported")
    return (
        f"at {fault_shim.line_of(*answer['place'])} "
        f"{ {word: answer[word] for word in words} }"
    )


def clean_run(scenario: Any) -> dict[str, Any]:
    """Return the answer of a run in which nothing fails."""
    answer, wrong = Child(scenario, None).finish()
    if wrong or answer["raised"] or answer["reports"]:
        raise SystemExit(
            f"{scenario.__name__} without a failure: {wrong} {answer}"
        )
    return answer


def sweep(
    scenario: Any, points: list[Point], clean: dict[str, Any], jobs: int
) -> tuple[collections.Counter[str], list[str]]:
    """Run the scenario once for each point; return counts and findings."""
    counts = collections.Counter[str]()
    findings: list[str] = []
    live: dict[int, Child] = {}
    waiting = points[::-1]
    poll = select.poll()
    while waiting or live:
        while waiting and len(live) < jobs:
            child = Child(scenario, waiting.pop())
            live[child.pidfd] = child
            poll.register(child.pidfd, select.POLLIN)
        for pidfd, _ in poll.poll(1000):
            child = live.pop(pidfd)
            poll.unregister(pidfd)
            answer, wrong = child.finish()
            assert child.point is not None
            name, skip, count, code = child.point
            counts["lasting" if count == LONG else kind_of(name)] += 1
            if answer and not wrong:
                wrong = surplus(answer, clean)
                counts["hit"] += bool(answer["hits"])
            if wrong:
                word = errno.errorcode.get(code, "0")
                findings.append(
                    f"{scenario.__name__} {name}:{skip}:{count}:{word}: "
                    f"{wrong} {explain(answer)}"
                )
        for child in live.values():
            if time.monotonic() - child.began > PATIENCE + 10:
                child.kill()
    return counts, findings


def warm(scenario: Any) -> None:
    """Import and cache what only a first run does."""
    clean_run(scenario)
    run = Run(scenario)
    os.environ["FASTLOOP_DISABLE"] = scenarios.DISABLED.get(
        scenario.__name__, ""
    )
    run.play()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--only", help="NAME:SKIP:COUNT:ERRNO")
    parser.add_argument("--functions", default="", help="these alone")
    parser.add_argument("--harmless", action="store_true")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    global SHIM
    SHIM = fault_shim.SHIM
    if SHIM is None:
        with tempfile.TemporaryDirectory() as folder:
            SHIM = fault_shim.load(fault_shim.build(Path(folder)))
    warnings.simplefilter("ignore")
    constants.ACCEPT_RETRY_DELAY = ACCEPT_PAUSE
    kinds = set(options.kinds.split(","))
    bad = 0
    for scenario in scenarios.SCENARIOS:
        if options.names and scenario.__name__ not in options.names:
            continue
        warm(scenario)
        gc.collect()
        gc.freeze()
        clean = clean_run(scenario)
        began = time.monotonic()
        if options.only:
            name, skip, count, word = options.only.split(":")
            code = SHORT if word == "0" else getattr(errno, word)
            point = name, int(skip), int(count), code
            answer, wrong = Child(scenario, point).finish()
            print(wrong or surplus(answer, clean), explain(answer))
            continue
        calls = clean["calls"]
        if options.functions:
            wanted = options.functions.split(",")
            calls = {name: calls.get(name, 0) for name in wanted}
        left_out = scenarios.LEFT_OUT.get(scenario.__name__)
        points = points_of(calls, kinds - {left_out})
        if options.harmless:
            points = [point for point in points if is_harmless(point)]
        if options.functions and not points:
            parser.error(f"{scenario.__name__}: no call of {wanted} can fail")
        if 0 < options.most < len(points):
            points = random.Random(options.seed).sample(points, options.most)
        counts, findings = sweep(scenario, points, clean, options.jobs)
        bad += len(findings)
        print(
            f"{scenario.__name__}: {dict(counts)} "
            f"{time.monotonic() - began:.1f} s",
            flush=True,
        )
        for finding in findings:
            print("FOUND", finding, flush=True)
    print("total", bad)
    return bad != 0


if __name__ == "__main__":
    SHIM: Any
    sys.exit(main())
