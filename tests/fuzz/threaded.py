"""Public calls of one loop's objects, by several threads, without a GIL.

`python tests/fuzz/threaded.py --seconds 120` makes cases at random.  In each,
the loop's thread opens transports and runs iterations, while other threads
call methods and read attributes of the same objects.  They do so only during a
run: between two runs only one thread at a time may use a loop's transports.
What must hold is that the process lives, that no call raises SystemError, and
that each case ends.
Under ThreadSanitizer, no report may appear either.

libFuzzer has no part in it: it knows one thread, and coverage finds no race.
A failure names the seed of its case and the last call of each thread.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import mmap
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent), str(HERE.parent / "unit")]

import fuzz_calls  # noqa: E402
from harness import Tape, note  # noqa: E402

#: Bytes of a thread's tape: it makes some 300 calls.
TAPE_BYTES = 3000
#: Threads beside the loop's.
THREADS = 2
#: Transports and servers that are open before the threads begin.
OPENED = 6
#: Seconds after which a case counts as one that hangs.
HANG_S = 60
#: Cases that one process runs.
BATCH = 50
#: Bytes for the name of a thread's last call.
NAME_BYTES = 64
#: Steps of the other threads in a run.
STEPS_OF_RUN = 8
#: Methods that would end a run under the other threads' calls.
LEFT_OUT = {"close", "stop"}


class SharedTape(Tape):
    """A tape of which several threads may read: callbacks run in any."""

    def byte(self) -> int:
        """Return the next byte."""
        at = self.at
        self.at = at + 1
        return self.data[at] if at < len(self.data) else 0


class SharedCase(fuzz_calls.Case):
    """A case in whose runs other threads make calls."""

    def __init__(self, tape: Tape) -> None:
        super().__init__(tape)
        self.condition = threading.Condition()
        self.workers = self.allowed = self.inside = 0
        self.over = False
        self.thread = threading.get_ident()

    def begin_step(self) -> bool:
        """Wait for a run, in another thread; False after the last one."""
        with self.condition:
            self.condition.wait_for(lambda: self.allowed or self.over)
            if self.over:
                return False
            self.allowed -= 1
            self.inside += 1
            return True

    def end_step(self) -> None:
        """End a step of another thread."""
        with self.condition:
            self.inside -= 1

    def end_worker(self) -> None:
        """Be one thread fewer."""
        with self.condition:
            self.workers -= 1

    def run(self) -> None:
        """Run the loop until the other threads have made their steps."""
        if threading.get_ident() != self.thread or self.loop.is_running():
            return  # a callback in a run does the case's next steps
        self.loop.call_soon(self.begin_steps)
        self.loop.run_forever()

    def begin_steps(self) -> None:
        """Let the other threads make their steps, in the run."""
        with self.condition:
            self.allowed = STEPS_OF_RUN
            self.condition.notify_all()
        self.iterate()

    def waits(self) -> bool:
        """Whether the other threads still make the steps of this run."""
        with self.condition:
            if not self.workers:
                self.allowed = 0
            return self.allowed + self.inside > 0

    def iterate(self) -> None:
        """Go on with the run, or end it."""
        if self.waits():
            self.loop.call_soon(self.iterate)
        else:
            self.loop.stop()

    def end_workers(self) -> None:
        """Run until the other threads have made all their steps.

        As in step() any exception is right: a report of a callback leaves the
        run if the callback's repr() raises.
        """
        while self.workers and not self.loop.is_closed():
            try:
                self.run()
            except SystemError:
                raise
            except fuzz_calls.ALLOWED as exc:
                note("raised", type(exc))

    def end_runs(self) -> None:
        """End the other threads."""
        with self.condition:
            self.over = True
            self.condition.notify_all()

    def arguments(self, method: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return arguments for a method."""
        refuse_end(method)
        return super().arguments(method)


def refuse_end(method: Any) -> None:
    """Raise ValueError for a call that would end the run."""
    name = getattr(method, "__name__", "")
    owner = getattr(method, "__self__", None)
    if name in LEFT_OUT and isinstance(owner, asyncio.AbstractEventLoop):
        raise ValueError("only the case itself ends a run")


class Worker(fuzz_calls.Case):
    """A thread beside the loop's; it shares the case's loop and pool."""

    def __init__(self, case: SharedCase, tape: Tape, name: Any) -> None:
        self.__dict__.update(case.__dict__)
        self.case, self.tape, self.name = case, tape, name
        self.focus = case.tape.data[-1]

    def thing(self) -> Any:
        """Return an object of the extension's, mostly the same one."""
        pool = self.case.pool
        ours = [one for one in pool if fuzz_calls._is_ours(type(one))]
        if self.tape.byte() % 4:
            return ours[self.focus % len(ours)]
        return self.tape.pick(ours)

    def keep(self, result: Any) -> None:
        """Drop a result; no coroutine begins in this thread."""
        if asyncio.iscoroutine(result):
            result.close()

    def step(self) -> None:
        """Call a method or read an attribute; any exception is right."""
        try:
            kind = self.tape.byte() % 16
            if kind > 4:
                self.call()
            elif kind == 4:
                self.record(self.loop, "slow_callback_duration")
                self.loop.slow_callback_duration = self.tape.byte() / 1e4
            else:
                thing = self.thing()
                name = self.tape.pick(dir(type(thing)))
                self.record(thing, name)
                getattr(thing, name)
        except SystemError:
            raise
        except fuzz_calls.ALLOWED:
            pass

    def arguments(self, method: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return arguments, and record the call."""
        refuse_end(method)
        found = super().arguments(method)
        owner = getattr(method, "__self__", None)
        self.record(owner, getattr(method, "__name__", ""))
        return found

    def record(self, owner: Any, name: str) -> None:
        """Record the call; the parent process reads it after a crash."""
        text = f"{type(owner).__name__}.{name}".encode()
        self.name[:] = text[:NAME_BYTES].ljust(NAME_BYTES)

    def run_all(self, failures: list[BaseException]) -> None:
        """Be the thread."""
        try:
            while self.tape and self.case.begin_step():
                try:
                    self.step()
                finally:
                    self.case.end_step()
        except BaseException as exc:
            failures.append(exc)
        finally:
            self.case.end_worker()


def run_case(seed: int, names: list[Any]) -> None:
    """Run one case."""
    chance = random.Random(seed)
    case = SharedCase(SharedTape(chance.randbytes(TAPE_BYTES)))
    for _ in range(OPENED):
        case.open()
    case.run()
    case.run()
    failures: list[BaseException] = []
    threads = []
    for name in names:
        worker = Worker(case, SharedTape(chance.randbytes(TAPE_BYTES)), name)
        threads.append(
            threading.Thread(target=worker.run_all, args=(failures,))
        )
    case.workers = len(threads)
    for thread in threads:
        thread.start()
    try:
        while case.tape:
            case.step()
        case.end_workers()
    finally:
        case.end_runs()
    for thread in threads:
        thread.join()
    case.finish()
    if failures:
        raise failures[0]


def child(file: BinaryIO, first: int, count: int) -> None:
    """Run cases; the file is shared with the parent."""
    # A KeyboardInterrupt in a finalizer of another thread is delivered to the
    # main one as Ctrl-C; there it would end the case at any instruction.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    fuzz_calls.start()
    # One that leaves a run would do so under the other threads' calls.
    fuzz_calls.Interrupt = RuntimeError
    # Without SystemError: the rest comes from finalizers of the input's own.
    sys.unraisablehook = lambda info: None
    faulthandler.enable()
    shared = mmap.mmap(file.fileno(), NAME_BYTES * (THREADS + 1))
    slots = memoryview(shared)
    names = [
        slots[at * NAME_BYTES : (at + 1) * NAME_BYTES]
        for at in range(THREADS + 1)
    ]
    for seed in range(first, first + count):
        names[0][:] = str(seed).encode().ljust(NAME_BYTES)
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        run_case(seed, names[1:])
    faulthandler.cancel_dump_traceback_later()


def run_batch(first: int, count: int) -> bool:
    """Run cases in a process of their own; say what it found."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(NAME_BYTES * (THREADS + 1))
        command = [sys.executable, __file__, "--child", file.name]
        done = subprocess.run(
            [*command, "--seed", str(first), "--count", str(count)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode == 0:
            return True
        data = file.read().decode(errors="replace")
    print("\n".join(done.stderr.splitlines()[-50:]))
    print(f"threaded: exit status {done.returncode} at seed", *data.split())
    return False


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="tests/fuzz/threaded.py")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=random.getrandbits(30))
    parser.add_argument("--count", type=int)
    parser.add_argument("--child", metavar="FILE")
    options = parser.parse_args()
    if options.child:
        with open(options.child, "r+b") as file:
            child(file, options.seed, options.count)
        return 0
    if options.count:
        return 0 if run_batch(options.seed, options.count) else 1
    until = time.monotonic() + options.seconds
    seed, well = options.seed, True
    while time.monotonic() < until and well:
        well = run_batch(seed, BATCH)
        seed += BATCH
    print(f"threaded: {seed - options.seed} cases from {options.seed}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
