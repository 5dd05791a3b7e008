"""What programs do with the loop itself: timers, threads, signals, others."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import threading
import time
from typing import Any

from prog_links import helper
from prog_peer import PATIENCE

#: Seconds by which two timers differ for certain, whichever clock is asked.
APART = 0.006
#: Seconds of lateness that nothing explains.
LATE = 0.05


def used() -> float:
    """Return the seconds this process ran, or its thread would have."""
    with open("/proc/thread-self/schedstat") as file:
        waited = int(file.read().split()[1])
    return time.process_time() + waited / 1e9


class LoopOps:
    """Part of a World, whose attributes it uses."""

    def start_loop_ops(self) -> None:
        #: Of each: when it is due at the earliest, at the latest, and used().
        self.timers: dict[int, tuple[float, float, float]] = {}
        self.handles: list[Any] = []
        self.serial = 0
        self.slept = 0.0  # by operations that keep the loop busy
        self.executed = False
        self.jobs_given = 0
        self.jobs_run: list[int] = []
        self.futures_of_jobs: list[tuple[int, str, Any]] = []
        self.signals = False
        self.other_loops: list[Any] = []  # an event each, set when closed

    # -- timers -------------------------------------------------------------

    def op_later(self, milliseconds: int, busy: int, ops: list[Any]) -> None:
        """Set a timer that keeps the loop busy, then does something.

        The time is not asked of the loop, which may remember what it said.
        """
        self.serial += 1
        serial = self.serial
        delay = milliseconds / 1000
        before = used() + self.slept
        due = time.monotonic() + delay
        self.handles.append(
            self.loop.call_later(delay, self.on_timer, serial, busy, ops)
        )
        self.timers[serial] = (due, time.monotonic() + delay, before)

    def on_timer(self, serial: int, busy: int, ops: list[Any]) -> None:
        due, _, before = self.timers.pop(serial)
        now = time.monotonic()
        if now < due - 0.0015:
            self.problem(f"a timer is early by {due - now:.4f} s")
        if now - due - (used() + self.slept - before) > LATE:
            self.problem("a timer is late for no reason")
        for other, (_, when, _) in self.timers.items():
            if other < serial and when < due - APART:
                self.problem("a timer overtook one that was due before")
        if busy:
            self.spend(busy / 1000)
        self.callback(ops)

    def spend(self, seconds: float) -> None:
        """Keep the loop from going on, which takes no processor."""
        begin = time.monotonic()
        time.sleep(seconds)
        self.slept += time.monotonic() - begin

    def op_time(self) -> None:
        self.loop.time()

    def op_cancel_timer(self, number: int) -> None:
        if self.timers:
            serial = sorted(self.timers)[number % len(self.timers)]
            del self.timers[serial]
            self.handles[serial - 1].cancel()

    def op_soon(self, ops: list[Any]) -> None:
        self.loop.call_soon(self.callback, ops)

    # -- other threads, signals, processes ----------------------------------

    def op_thread(self, ops: list[Any]) -> None:
        """Have another thread call back."""

        def call() -> None:
            with contextlib.suppress(RuntimeError):  # it may be closed
                self.loop.call_soon_threadsafe(self.callback, ops)

        self.tapes.append(helper(40).submit(call))

    def op_executor(self, ops: list[Any]) -> None:
        """Have a worker's result call back, but not in the call itself.

        asyncio's future of a job done by then is done too from 3.14 on.
        """
        self.executed = True
        called = threading.Event()
        future = self.loop.run_in_executor(None, called.wait)
        future.add_done_callback(lambda done: self.callback(ops))
        called.set()
        self.keep.append(future)

    def op_jobs(self, hows: list[str]) -> None:
        """Give the executor jobs at once; some fail, some are cancelled."""
        self.executed = True
        for how in hows:
            self.jobs_given += 1
            job = functools.partial(self.do_job, self.jobs_given, how)
            future = self.loop.run_in_executor(None, job)
            if how == "cancel" and not future.cancel():
                how = "plain"  # it is done: see op_executor
            self.futures_of_jobs.append((self.jobs_given, how, future))

    def do_job(self, number: int, how: str) -> int:
        """Be what a worker runs."""
        self.jobs_run.append(number)
        if how == "raise":
            raise ArithmeticError(number)
        return number

    def judge_jobs(self) -> None:
        """See that each job ran once, or not where it was cancelled."""
        for number, how, future in self.futures_of_jobs:
            runs = self.jobs_run.count(number)
            if how == "cancel":
                right = runs < 2 and future.cancelled()
            elif how == "raise":
                right = runs == 1 and repr(number) in repr(future.exception())
            else:
                right = runs == 1 and future.result() == number
            if not right:
                self.problem(f"job {number} ran {runs} times: {future!r}")
        self.futures_of_jobs.clear()

    def op_signal(self, ops: list[Any]) -> None:
        if any(link.closed_by_hand for link in self.links):
            return  # the loop's socket for it may get that link's fd
        self.signals = True
        self.loop.add_signal_handler(signal.SIGUSR1, self.callback, ops)
        os.kill(os.getpid(), signal.SIGUSR1)

    def op_other_loop(self, ops: list[Any]) -> None:
        """Have a second loop, in another thread, call the first.

        Not in a program that closes fds by hand: one closed twice may be the
        second loop's, which then ends or sleeps for ever.
        """
        if self.loose:
            return
        make = type(self.loop)

        def run() -> None:
            other = make()
            other.set_exception_handler(lambda loop, told: None)
            other.call_soon(self.loop.call_soon_threadsafe, self.callback, ops)
            other.call_soon(other.stop)
            other.run_forever()
            other.close()

        closed = helper(41).submit(run)
        self.other_loops.append(closed)
        self.tapes.append(closed)

    async def finish_loop_ops(self) -> None:
        self.timers.clear()
        for handle in self.handles:
            handle.cancel()
        if self.executed:
            await self.loop.shutdown_default_executor()
            self.judge_jobs()

    def end_loop_ops(self) -> None:
        for closed in self.other_loops:
            if not closed.wait(PATIENCE):
                self.problem("another loop is not closed")
                break  # the rest are behind it, in the same thread
        if self.signals:
            self.loop.remove_signal_handler(signal.SIGUSR1)
