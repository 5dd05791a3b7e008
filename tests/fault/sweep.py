"""Runs the corpus of generated programs again and again, one call failing.

    sweep.py [--most N] [--seed N] [--kinds KIND,...] [PROGRAM...]
    sweep.py --only NAME:SKIP:COUNT:ERRNO PROGRAM

Each program (a number, of differential/corpus.txt) runs once to see which
function the extension calls, and from where.  Of each such place `--most`
calls are drawn, and a program runs with one of them failing, by each errno it
may give.  Every run is a fork.  The invariants of generated programs judge it:
all of them after what a system may answer at any time (`--harmless`: those
answers alone), else those that hold for a connection that broke.  No process
may crash or hang, no byte be wrong, no protocol be called twice or after the
end, no error be lost, no descriptor and none of fastloop's objects stay.

Kinds: `system` (system calls), `memory` (malloc and its like),
`python` (functions of CPython that the extension calls raise MemoryError),
`cut` (short reads and writes throughout, some of which would block),
`lasting` (what fails once fails the next times as well).
"""

from __future__ import annotations

import argparse
import errno
import gc
import json
import random
import re
import sys
import tempfile
import time
from asyncio import constants
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = map(str, (TESTS / "differential", TESTS, TESTS.parent))

import fault_shim  # noqa: E402
import prog_corpus  # noqa: E402
import prog_ends  # noqa: E402
import prog_judge  # noqa: E402
import prog_pool  # noqa: E402
import prog_world  # noqa: E402
import programs  # noqa: E402
from builds import SANITIZED  # noqa: E402
from fault_shim import BOTH, SHORT  # noqa: E402

import fastloop  # noqa: E402

#: Seconds for a program that may end by a failure, and by waiting then.
PATIENCE = 60.0 if SANITIZED else 3.0
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
KINDS = ("system", "memory", "python", "cut", "lasting")
MEMORY = {"malloc", "calloc", "realloc", "aligned_alloc", "mmap"}
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
    "getsockname": {errno.ENOBUFS},
    "poll": {errno.EINTR},
    "setsockopt": {errno.EINVAL, errno.ENOMEM},
} | {
    name: {errno.EAGAIN, errno.EINTR, SHORT}
    for name, codes in ERRNOS.items()
    if codes.startswith("EAGAIN EINTR") and name != "accept4"
}
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


def failures(name: str) -> list[tuple[int, int]]:
    """Return how many calls of a function may fail, and by which errno."""
    words = ERRNOS.get(name, "").split()
    if kind_of(name) == "python":
        words = ["ENOMEM"]
    codes = [(1, SHORT if w == "0" else getattr(errno, w)) for w in words]
    if name in LASTING:
        codes.append((LONG, getattr(errno, LASTING[name])))
    return codes


#: What a failing call excuses: its error arrives; a callback that is lost,
#: which was reported; a connection that ended.
EXCUSED = (
    "the driver failed: |left the loop by (OSError|MemoryError)|MemoryError"
    "|connection_lost was not called|end does not end|were sent|overtook one"
    "|bytes, A wrote"  # a pipe's write() may raise behind its first part
)
#: And if that ends the program: what it had opened stays.
STOPPED = "the driver failed|left the loop|the program does not end"
LOSES = re.compile("'(os_close|fork)'")
#: Strands of a trace, one of which has the error then.
TOLD = {"reports", "unraisable", "wild"}


def objects() -> Counter[str]:
    """Count what is alive of fastloop's objects."""
    kinds = (type(one) for one in gc.get_objects())
    own = (kind for kind in kinds if kind.__module__.startswith("fastloop"))
    names = Counter(kind.__qualname__ for kind in own)
    del names["RegisteredDescriptors"]  # a loop's, made when it is looked at
    return names


def clean_run(program: Any) -> tuple[str, str]:
    """Return the calls of a run in which nothing fails, what is wrong with it
    (asyncio's is, too), and what is alive after it.
    """
    prog_world.run_once(fastloop.new_event_loop)
    before = len(fault_shim.logged(SHIM))
    wrong, _ = prog_world.run_program(fastloop.new_event_loop, program)
    calls = fault_shim.logged(SHIM)[before:]
    gc.collect()
    known = list(map(prog_judge.kind_of, wrong))
    return "", json.dumps([calls, known, objects()])


def arm(point: Point) -> None:
    name, skip, count, code = point
    if name == "cut":
        SHIM.fault_cut(BOTH, skip, count, code)
    else:
        SHIM.fault_arm(name.encode(), skip, count, code)


def play(program: Any, point: Point, clean: Any) -> tuple[str, str]:
    """Run a program with a call failing; return what is wrong, and where."""
    known, alive = clean
    # What waits is lost where a program closes the descriptor itself, or where
    # a forked child writes and ends.
    rough = not is_harmless(point) or bool(LOSES.search(repr(program)))
    if rough:
        prog_world.HANG = PATIENCE
    begin = prog_ends.Link.__init__

    def __init__(self: Any, *args: Any) -> None:
        begin(self, *args)
        self.rough = rough  # as one that its program has broken

    prog_ends.Link.__init__ = __init__  # type: ignore[method-assign]
    prog_world.run_once(fastloop.new_event_loop)
    arm(point)
    try:
        wrong, trace = prog_world.run_program(fastloop.new_event_loop, program)
    except (OSError, MemoryError):  # a loop could not be made
        return "", ""
    where = fault_shim.place(SHIM) if SHIM.fault_hits() else ("", 0)
    SHIM.fault_arm(b"", 0, 0, 0)
    SHIM.fault_cut(0, 0, 0, 0)
    wrong = [one for one in wrong if prog_judge.kind_of(one) not in known]
    if rough:
        if "another loop is not closed" in wrong:
            return "", ""  # its stop() was lost, and so was its thread
        excused = EXCUSED
        if any(re.search(STOPPED, one) for one in wrong):
            excused += "|descriptors left"
            alive["TimerHandle"] = 99  # of time-outs in tasks that nobody ends
            if kind_of(point[0]) != "system" and TOLD & trace.keys():
                excused += "|the program does not end"
        wrong = [one for one in wrong if not re.search(excused, one)]
    gc.collect()
    if kept := objects() - Counter(alive):
        wrong.append(f"alive: {dict(kept)}")
    return ("invariant", json.dumps([wrong, where])) if wrong else ("", "")


def points(options: argparse.Namespace) -> Iterator[tuple[int, Point, Any]]:
    """Yield a program, a call of it that fails, and how its clean run ended.

    Each place that calls a function is there, by `--most` of its calls.
    """
    corpus = prog_corpus.kept()
    numbers = options.programs or range(len(corpus))
    chance = random.Random(options.seed)
    kinds = set(options.kinds.split(","))
    clean = {}
    calls: dict[Any, list[tuple[int, int]]] = {}
    for result in sorted(
        prog_pool.run_all(
            iter(numbers), lambda number: clean_run(corpus[number]), 2
        ),
        key=lambda result: result.seed,
    ):
        log, *clean[result.seed] = json.loads(result.text)
        seen = Counter[str]()
        for name, place in log:
            calls.setdefault((name, place), []).append(
                (result.seed, seen[name])
            )
            seen[name] += 1
    found = [
        (name, places, count, code)
        for (name, _), places in calls.items()
        for count, code in failures(name)
        if ("lasting" if count == LONG else kind_of(name)) in kinds
    ]
    for name, skip, count, code in CUTS if "cut" in kinds else ():
        found.append((name, [(n, skip) for n in numbers], count, code))
    for name, places, count, code in found:
        if options.harmless and not is_harmless((name, 0, count, code)):
            continue
        some = chance.sample(places, min(len(places), options.most))
        for number, skip in some:
            yield number, (name, skip, count, code), clean[number]


def main() -> int:
    global SHIM
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--most", type=int, default=4, help="calls of each place")
    add("--seed", type=programs.seed_of, default=0)
    add("--jobs", type=int, default=2)
    add("--kinds", default=",".join(KINDS))
    add("--only", help="NAME:SKIP:COUNT:ERRNO")
    add("--harmless", action="store_true")
    add("programs", nargs="*", type=int)
    options = parser.parse_args()
    SHIM = fault_shim.SHIM
    if SHIM is None:
        with tempfile.TemporaryDirectory() as folder:
            SHIM = fault_shim.load(fault_shim.build(Path(folder)))
    constants.ACCEPT_RETRY_DELAY = 0.02
    prog_pool.LIFE = 1  # a process for each run
    todo = list(points(options))
    if options.only:
        name, skip, count, word = options.only.split(":")
        code = SHORT if word == "0" else getattr(errno, word)
        number, _, clean = todo[0]
        todo = [(number, (name, int(skip), int(count), code), clean)]
    counts, began = Counter[str](), time.time()

    def run(at: int) -> tuple[str, str]:
        number, point, clean = todo[at]
        return play(prog_corpus.kept()[number], point, clean)

    for result in prog_pool.run_all(iter(range(len(todo))), run, options.jobs):
        at = result.seed
        number, (name, skip, count, code), _ = todo[at]
        counts[kind_of(name)] += 1
        if result.kind == "invariant":  # by chance, on a busy machine?
            result = prog_pool.run_one(lambda _, at=at: run(at))
        if not result.kind:
            continue
        word = errno.errorcode.get(code, "0")
        text, where = result.text, ""
        if result.kind == "invariant":
            text, place = json.loads(result.text)
            where = fault_shim.line_of(*place) if place[0] else ""
        print(f"FOUND {number} {name}:{skip}:{count}:{word}: {text} {where}")
        counts["FOUND"] += 1
    print(dict(counts), f"{time.time() - began:.1f} s\ntotal", counts["FOUND"])
    return counts["FOUND"] != 0


if __name__ == "__main__":
    SHIM: Any
    sys.exit(main())
