"""Operations with signals: handlers of the loop and handlers of Python.

A program sends a signal itself, or a thread sends it while the loop waits.  A
gap is the time between two runs.  The system ignores these signals by default.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import threading
import time
from typing import Any

from prog_links import helper

#: By this prefix `prog_judge` recognizes problems of signals.
A_SIGNAL = "a signal"
SIGNALS = (signal.SIGWINCH, signal.SIGURG)
#: The index of the thread that sends; links have smaller ones.
SENDER = 42
#: Seconds by which a handler of a signal must have run.
SOON = 1.0
#: How often a handler does something; later it only counts.
DOES = 2
WEIGHTS = {
    "on_sig": 4,
    "py_sig": 3,
    "off_sig": 2,
    "kill_sig": 6,
    "late_sig": 4,
    "gap": 2,
}
GAPS = ["kill", "kill", "other", "wakeup", "nothing"]
RAISED = ["boom", "exit", "interrupt", "os"]


class SignalOps:
    """Part of a World, whose attributes it uses."""

    def start_signal_ops(self) -> None:
        self.signalled = False  # the program has operations of these
        self.loops_handler: dict[int, int] = {}  # of each signal, its serial
        self.python_has: set[int] = set()  # signals with a handler of Python's
        self.had_loops_handler = False
        self.handlers = 0
        self.handled = dict.fromkeys(SIGNALS, 0)
        #: Signals that the loop's handler is still to be called for.
        self.owed: set[int] = set()
        #: Signals whose handler was replaced while one was pending.  Which
        #: handler runs depends on when the loop reads its signal pipe.
        self.ambiguous: set[int] = set()
        self.other_runs = False
        self.sending = False
        self.late: list[asyncio.Future[None]] = []
        self.gaps: list[tuple[str, int]] = []
        self.wakeup: tuple[socket.socket, socket.socket] | None = None
        self.bytes_due = 0  # at the other end of it

    def choose_signal(self, which: int) -> int:
        """Return one of SIGNALS; note that the program uses signals."""
        self.signalled = True
        return SIGNALS[which % len(SIGNALS)]

    def tell(self, number: int, text: str) -> None:
        self.log(text, f"signal {number}")

    # -- handlers -------------------------------------------------------------

    def op_on_sig(self, which: int, ops: list[Any]) -> None:
        number = self.choose_signal(which)
        if self.other_runs:
            return  # the other loop may hold an earlier signal
        if number in self.owed:
            self.ambiguous.add(number)
        self.handlers += 1
        what = [ops] * DOES
        self.loop.add_signal_handler(
            number, self.on_signal, number, self.handlers, what
        )
        self.loops_handler[number] = self.handlers
        self.had_loops_handler = True
        self.python_has.discard(number)
        self.owed.discard(number)

    def on_signal(self, number: int, serial: int, what: list[Any]) -> None:
        self.handled[number] += 1
        shown = "" if number in self.ambiguous else f" {serial}"
        self.tell(number, f"the loop's handler{shown}")
        if self.loops_handler.get(number) == serial:
            self.owed.discard(number)
        self.callback(what.pop() if what else [])

    def op_off_sig(self, which: int) -> None:
        number = self.choose_signal(which)
        removed = self.loop.remove_signal_handler(number)
        self.tell(number, f"removed {removed}")
        if removed != (self.loops_handler.pop(number, None) is not None):
            self.problem(f"{A_SIGNAL}'s handler: removed is {removed}")
        if removed:
            self.python_has.discard(number)
        self.owed.discard(number)

    def op_py_sig(self, which: int, ops: list[Any]) -> None:
        number = self.choose_signal(which)
        self.handlers += 1
        serial, what = self.handlers, [ops] * DOES

        def handler(number: int, frame: Any) -> None:
            self.handled[number] += 1
            if not self.sending:
                return  # a thread has sent it, and this may be anywhere
            self.tell(number, f"Python's handler {serial}")
            self.run_ops(what.pop() if what else [])

        signal.signal(number, handler)
        self.python_has.add(number)

    # -- signals --------------------------------------------------------------

    def op_kill_sig(self, which: int) -> None:
        """Send a signal: Python's handler runs before this returns."""
        number = self.choose_signal(which)
        if number in self.loops_handler:
            self.owed.add(number)
        if self.wakeup and number in self.python_has:
            self.bytes_due += 1
        before, sent_before = self.handled[number], self.sending
        self.sending = True
        try:
            signal.raise_signal(number)
        finally:
            self.sending = sent_before
            if number in self.python_has and self.handled[number] == before:
                self.problem(f"{A_SIGNAL}'s Python handler did not run")

    def op_late_sig(self, which: int) -> None:
        """Have a thread send a signal while the loop waits."""
        number = self.choose_signal(which)
        if self.late:
            return
        main = threading.get_ident()
        done = self.loop.create_future()
        self.late.append(done)

        def state() -> Any:
            return self.loops_handler.get(number), number in self.python_has

        def send() -> None:
            time.sleep(0.001)
            has, before = state(), self.handled[number]
            if self.wakeup and has[1]:
                self.bytes_due += 1
            signal.pthread_kill(main, number)
            until = time.monotonic() + SOON
            while any(has) and has == state():
                if self.handled[number] != before:
                    break
                if time.monotonic() > until:
                    self.problem(f"{A_SIGNAL} woke no loop that waits")
                    break
                time.sleep(0.0002)
            with contextlib.suppress(RuntimeError):  # it may be closed
                self.loop.call_soon_threadsafe(set_done, done)

        helper(SENDER).submit(send)

    async def wait_for_signals(self, ops: list[Any]) -> None:
        """Be woken by nothing but a signal, where one is to come."""
        if any(name == "late_sig" for name, *_ in ops):
            await self.iterate(1)
        while self.late:
            done = self.late[0]
            await asyncio.wait([done], timeout=2 * SOON)
            self.late.remove(done)

    def judge_signals(self) -> None:
        """At rest, report each handler that was not called for a signal."""
        for number in self.owed:
            self.problem(f"{A_SIGNAL}'s handler was not called")
            self.tell(number, "is owed")
        self.owed.clear()

    # -- between runs ---------------------------------------------------------

    def op_gap(self, what: str, which: int) -> None:
        """Interrupt the run, and have something happen before the next."""
        self.choose_signal(which)
        self.gaps.append((what, which))
        self.stopped = True
        self.loop.stop()

    def fill_gaps(self) -> None:
        while self.gaps:
            what, which = self.gaps.pop(0)
            if what == "other":
                self.run_another(which)
            elif what == "kill":
                self.kill_quietly(which)
            elif what == "wakeup" and not (self.loops_handler or self.wakeup):
                # Not later: asyncio's loop would lose its own.
                self.wakeup = socket.socketpair()
                for end in self.wakeup:
                    end.setblocking(False)
                fd = self.wakeup[1].fileno()
                signal.set_wakeup_fd(fd, warn_on_full_buffer=False)

    def kill_quietly(self, which: int) -> None:
        """Send a signal outside of a run; a handler's exception is its own."""
        try:
            self.op_kill_sig(which)
        except BaseException as exc:
            self.log(f"between runs {type(exc).__name__}")

    def run_another(self, which: int) -> None:
        """Run a second loop, which gets a signal."""
        other = type(self.loop)()
        other.call_soon(self.kill_quietly, which)
        other.call_soon(other.stop)
        self.other_runs = True
        other.run_forever()
        self.other_runs = False
        other.close()

    # -- the end --------------------------------------------------------------

    def end_signal_ops(self) -> None:
        """Remove the handlers; the loop is not closed yet."""
        if not self.signalled:
            return
        for number in SIGNALS:
            self.loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    def leave_signal_ops(self) -> None:
        """Look at the wakeup fd, when the loop is closed."""
        left = signal.set_wakeup_fd(-1)
        if self.wakeup is None:
            if left != -1:
                self.problem(f"{A_SIGNAL}'s wakeup fd stays set")
            return
        near, far = self.wakeup
        # asyncio does not restore it behind its own; the program may have
        # closed it, where it closes fds by hand.
        if not (self.had_loops_handler or self.signals or self.loose):
            if left != far.fileno():
                self.problem(f"{A_SIGNAL}'s wakeup fd is not restored")
            with contextlib.suppress(BlockingIOError):
                self.bytes_due -= len(near.recv(1 << 16))
            if self.bytes_due:
                self.problem(f"{A_SIGNAL}'s byte: {self.bytes_due} are due")
        for end in self.wakeup:
            with contextlib.suppress(OSError):
                end.close()


def set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


# -- by chance --------------------------------------------------------------


def add_signals(seed: int, links: list[Any], steps: list[Any]) -> None:
    """Add steps with signals to some programs."""
    rng = random.Random(f"signals {seed}")
    if rng.randrange(100) >= 8:
        return
    writable = [n for n, link in enumerate(links) if link[2] != "sock"]

    def inner() -> list[Any]:
        which = rng.randrange(2)
        made = rng.choice(
            [
                [],
                [("soon", [])],
                [("raise", rng.choice(RAISED))],
                [("kill_sig", which)],
                [("off_sig", which)],
                [("on_sig", which, [])],
                [("py_sig", which, [])],
                [("gap", rng.choice(GAPS), which)],
            ]
        )
        if writable and rng.randrange(3) == 0:
            made.append(("write", rng.choice(writable), rng.choice([1, 999])))
        return made

    def one() -> Any:
        name = rng.choices(*zip(*WEIGHTS.items(), strict=True))[0]
        which = rng.randrange(2)
        if name in ("on_sig", "py_sig"):
            return (name, which, inner())
        if name == "gap":
            return (name, rng.choice(GAPS), which)
        return (name, which)

    for _ in range(rng.randint(2, 6)):
        at = rng.randrange(len(steps) + 1)
        ops = [one() for _ in range(rng.randint(1, 3))]
        steps.insert(at, (rng.choice([-1, -1, -1, 0, 1]), ops))
