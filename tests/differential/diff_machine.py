"""Runs a generated program on one event loop and writes down what it saw.

A program is data: steps, each a list of operations, each a tuple of a name
and arguments.  ``Machine.do`` looks the name up as the method ``do_<name>``,
``Script`` does the same for what a coroutine does.  Objects are named by
number, modulo how many there are, so that every program means something.

What makes two runs of a program comparable:

1. A line of the trace belongs to a strand.  What happens in turns of the loop
   alone is the strand "main", in one total order.  What another thread, the
   kernel or a peer sets off is a strand of its own; strands are not ordered
   among each other.
2. A step begins when all the last one set off has come to rest.
3. Time comes in slots (``Clock``): a timer has a slot to itself, and a run in
   which a slot found the last one still busy is void, to be run again.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from diff_clock import Clock

#: Turns in which all chains of callbacks of a step come to their end.
TURNS = 14
#: More turns than any loop makes without a look at its descriptors.
TURNS_WITH_A_LOOK = 40
#: Milliseconds that bytes may take to cross the kernel.
MOST_WAITS = 50
#: Seconds after which a program counts as hung.
HANG = 8.0

STRAND: contextvars.ContextVar[str] = contextvars.ContextVar(
    "strand", default="main"
)
VALUE: contextvars.ContextVar[int] = contextvars.ContextVar("value", default=0)


class Provoked:
    """What the programs themselves raise: never taken for an answer."""

    strand: str | None = None


class Boom(Provoked, ValueError):
    pass


class Broken(Provoked, OSError):
    pass


class Exit(Provoked, SystemExit):
    pass


class Interrupt(Provoked, KeyboardInterrupt):
    pass


class Cancelled(Provoked, asyncio.CancelledError):
    pass


class Late(Provoked, TimeoutError):
    pass


class Generator(Provoked, GeneratorExit):
    pass


class Base(Provoked, BaseException):
    pass


KINDS: dict[str, type[BaseException]] = {
    "boom": Boom,
    "os": Broken,
    "exit": Exit,
    "interrupt": Interrupt,
    "cancelled": Cancelled,
    "timeout": Late,
    "generator": Generator,
    "base": Base,
}


def plain(text: str) -> str:
    """Return a text without what differs from run to run."""
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    text = re.sub(r"<(Future|Task) [^>]*>", r"<\1>", text)
    text = re.sub(r"(127\.0\.0\.1', )\d+", r"\1N", text)
    text = re.sub(r"fl-diff-\w+", "FOLDER", text)
    text = re.sub(r"fd=-?\d+", "fd=", text)
    text = re.sub(r"\bat /\S+:\d+", "at FILE", text)
    text = re.sub(r"Task-\d+", "Task-N", text)
    return re.sub(r"name='[^']*'", "name=", text)


def named(exc: BaseException | None) -> str:
    """Return an exception's type and text."""
    if exc is None:
        return "None"
    if isinstance(exc, BaseExceptionGroup):
        inner = ", ".join(named(one) for one in exc.exceptions)
        return f"{type(exc).__name__}[{inner}]"
    return plain(f"{type(exc).__name__}({exc})")


def outcome(future: asyncio.Future[Any]) -> str:
    """Return what became of a future."""
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    exc = future.exception()
    return named(exc) if exc is not None else repr(future.result())


class Timer:
    """A timer of the program, and whether it is still to come."""

    def __init__(self, machine: Machine, when: float) -> None:
        self.machine = machine
        self.when = when
        self.waiting = True
        machine.outstanding += 1

    def __repr__(self) -> str:
        return "Timer"

    def over(self) -> None:
        if self.waiting:
            self.waiting = False
            self.machine.arrived()


class Machine:
    """One program on one loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, world: str, patience: int = 1
    ) -> None:
        self.loop = loop
        self.world = world
        self.clock = Clock(loop, patience)
        self.most_waits = MOST_WAITS * patience
        self.trace: dict[str, list[str]] = {}
        self.counts: dict[str, int] = {}
        self.handles: list[Any] = []
        self.timers: dict[int, Timer] = {}
        self.futures: list[asyncio.Future[Any]] = []
        self.callbacks: list[Callable[..., None]] = []
        self.tasks: list[asyncio.Future[Any]] = []
        self.threads: list[threading.Thread] = []
        self.outstanding = 0
        self.idle: asyncio.Future[None] | None = None
        # Whether something needs a moment to arrive: TCP, a process.
        self.remote = False
        self.activity = 0
        self.signals: set[int] = set()
        self.closers: list[Callable[[], None]] = []
        self.released = False

    def __repr__(self) -> str:
        return "Machine"

    # -- the trace ----------------------------------------------------------

    def log(self, text: str, strand: str | None = None) -> None:
        """Add a line to the strand of the code that runs."""
        name = STRAND.get() if strand is None else strand
        if self.released:
            name = "collected"
        value = 0 if name == "collected" else VALUE.get()
        self.trace.setdefault(name, []).append(
            f"{text} v{value}" if value else text
        )
        self.activity += 1

    def number(self) -> int:
        """Return the next number of this strand, for a label."""
        name = STRAND.get()
        self.counts[name] = self.counts.get(name, 0) + 1
        return self.counts[name]

    @contextmanager
    def strand(self, name: str) -> Iterator[None]:
        """Write to another strand for a while."""
        token = STRAND.set(name)
        try:
            yield
        finally:
            STRAND.reset(token)

    def on_report(self, loop: Any, context: dict[str, Any]) -> None:
        """Write down what the loop's exception handler is told."""
        keys = ",".join(sorted(context))
        exc = named(context.get("exception"))
        message = plain(str(context.get("message")))
        strand = getattr(context.get("exception"), "strand", None)
        if "never retrieved" in message or "destroyed" in message:
            strand = "collected"  # when that is, references decide
        elif sys.version_info < (3, 12):
            # Whose context the handler runs in is 3.12's to say.
            strand = strand or "reports"
            VALUE.set(0)
        self.log(f"report {message!r} {exc} {keys}", strand)

    # -- waiting until all is at rest ---------------------------------------

    def arrived(self) -> None:
        """Note that something that was outstanding has come."""
        self.outstanding -= 1
        if self.outstanding == 0 and self.idle and not self.idle.done():
            self.idle.set_result(None)

    @contextmanager
    def expecting(self) -> Iterator[None]:
        self.outstanding += 1
        try:
            yield
        finally:
            self.arrived()

    async def settle(self) -> None:
        """Wait until nothing happens any more."""
        turns = TURNS if self.world == "loop" else TURNS_WITH_A_LOOK
        while True:
            before = self.activity
            for _ in range(turns):
                await asyncio.sleep(0)
            if self.outstanding:
                self.idle = self.loop.create_future()
                await self.idle
                self.idle = None
                continue
            waited = 0
            while self.remote and (not waited or self.expects()):
                await asyncio.sleep(0.001)
                waited += 1
                if waited == self.most_waits:
                    break
            if before == self.activity:
                return

    def expects(self) -> bool:
        """Whether something is sure to come, if not when."""
        return False

    async def drive(self, steps: list[Any]) -> None:
        """Run the steps, one after the other."""
        for number, ops in enumerate(steps):
            self.clock.begin()
            self.log(f"step {number}")
            self.loop.call_soon(self.body, f"step {number}", ops)
            await self.settle()
            self.after_step()

    def after_step(self) -> None:
        """Write down what is to be seen between two steps."""

    # -- operations ---------------------------------------------------------

    def body(self, label: str, ops: list[Any]) -> None:
        """Be a callback that does some operations."""
        self.log(f"run {label}")
        for op in ops:
            self.do(op)

    def do(self, op: Any) -> None:
        """Do one operation; what it raises by itself is its answer."""
        name, *args = op
        try:
            getattr(self, f"do_{name}")(*args)
        except BaseException as exc:
            if isinstance(exc, Provoked):
                raise
            self.log(f"{name} raised {named(exc)}")

    def do_log(self) -> None:
        running = asyncio._get_running_loop() is self.loop
        self.log(f"log running={running}")

    def do_var(self, value: int) -> None:
        VALUE.set(value)
        self.log("var")

    def do_raise(self, kind: str) -> None:
        self.log(f"raise {kind}")
        exc: Any = KINDS[kind](kind)
        exc.strand = STRAND.get()
        raise exc

    def do_stop(self) -> None:
        self.log("stop")
        self.loop.stop()

    def do_soon(self, ops: list[Any], own: bool = False) -> None:
        label = f"soon {self.number()}"
        context = contextvars.copy_context() if own else None
        handle = self.loop.call_soon(self.body, label, ops, context=context)
        self.handles.append(handle)

    def do_soon_safe(self, ops: list[Any]) -> None:
        label = f"safe {self.number()}"
        self.handles.append(
            self.loop.call_soon_threadsafe(self.body, label, ops)
        )

    def do_soon_dropped(self, ops: list[Any]) -> None:
        self.loop.call_soon(self.body, f"dropped {self.number()}", ops)

    def do_later(self, slots: int, ops: list[Any], soon: bool = False) -> None:
        label = f"timer {self.number()}"
        when = self.clock.when(self.clock.take(slots))
        timer = Timer(self, when)
        args = (timer, label, ops)
        if soon and slots <= 0:
            # Whole seconds: that one comes before the other is no matter of
            # how soon it was asked for.
            handle = self.loop.call_later(slots, self.on_timer, *args)
        else:
            handle = self.loop.call_at(when, self.on_timer, *args)
        self.timers[len(self.handles)] = timer
        self.handles.append(handle)

    def do_timers(self, several: list[int]) -> None:
        """Have several timers wait at once, most of them out of order."""
        for slots in several:
            self.do_later(slots, [])

    def on_timer(self, timer: Timer, label: str, ops: list[Any]) -> None:
        if self.loop.time() < timer.when - 2e-9:
            self.log("timer is early")
        timer.over()
        self.body(label, ops)

    def do_cancel(self, number: int) -> None:
        if not self.handles:
            return
        at = number % len(self.handles)
        handle = self.handles[at]
        timer = self.timers.get(at)
        if timer is not None:
            timer.over()
        before = handle.cancelled()
        handle.cancel()
        self.log(f"cancel handle {at} {before}->{handle.cancelled()}")

    def do_look(self, number: int) -> None:
        """Look at a handle from outside."""
        if self.handles:
            at = number % len(self.handles)
            handle = self.handles[at]
            callback = getattr(handle, "_callback", "none")
            name = getattr(callback, "__name__", callback)
            self.log(f"handle {at} {handle.cancelled()} {name}")

    # -- futures ------------------------------------------------------------

    def do_future(self) -> None:
        self.futures.append(self.loop.create_future())

    def some_future(self, number: int) -> asyncio.Future[Any]:
        if not self.futures:
            self.do_future()
        return self.futures[number % len(self.futures)]

    def do_callback(self, number: int, ops: list[Any]) -> None:
        future = self.some_future(number)
        label = f"done {self.number()}"

        def callback(done: asyncio.Future[Any]) -> None:
            self.log(f"{label} sees {outcome(done)}")
            self.body(label, ops)

        self.callbacks.append(callback)
        future.add_done_callback(callback)

    def do_callback_off(self, number: int, which: int) -> None:
        if self.callbacks:
            callback = self.callbacks[which % len(self.callbacks)]
            count = self.some_future(number).remove_done_callback(callback)
            self.log(f"removed {count}")

    def do_result(self, number: int, value: int) -> None:
        self.some_future(number).set_result(value)

    def do_fail(self, number: int, kind: str) -> None:
        self.some_future(number).set_exception(KINDS[kind](kind))

    def do_cancel_future(self, number: int) -> None:
        self.log(f"cancel future {self.some_future(number).cancel()}")

    # -- tasks --------------------------------------------------------------

    def start(self, script: list[Any], name: str = "task") -> None:
        label = f"{name} {self.number()}"
        task = self.loop.create_task(self.script(label, script), name=label)
        task.add_done_callback(
            lambda done: self.log(f"{label} ended {outcome(done)}")
        )
        self.tasks.append(task)

    def do_task(self, script: list[Any]) -> None:
        self.start(script)

    def do_cancel_task(self, number: int) -> None:
        if self.tasks:
            at = number % len(self.tasks)
            self.log(f"cancel task {at} {self.tasks[at].cancel()}")

    def do_current(self) -> None:
        tasks = len(asyncio.all_tasks(self.loop))
        inside = asyncio.current_task(self.loop) is not None
        self.log(f"{tasks} tasks, in one: {inside}")

    def script(
        self, label: str, script: list[Any]
    ) -> Coroutine[Any, Any, Any]:
        from diff_scripts import Script

        return Script(self, label, len(self.tasks)).run(script)

    # -- other threads, signals ---------------------------------------------

    def do_thread(self, bodies: list[Any]) -> None:
        """Call from another thread, once for each body, in their order."""
        name = f"thread {self.number()}"

        def called(at: int, ops: list[Any]) -> None:
            self.log(f"call {at}")
            STRAND.set(f"{name} call {at}")
            if at == len(bodies) - 1:
                self.arrived()
            self.body("call", ops)

        def target() -> None:
            STRAND.set(name)
            for at, ops in enumerate(bodies):
                with suppress(RuntimeError):  # the loop may be closed
                    self.loop.call_soon_threadsafe(called, at, ops)

        self.outstanding += bool(bodies)
        thread = threading.Thread(target=target)
        self.threads.append(thread)
        thread.start()

    def do_executor(self, kind: str, ops: list[Any]) -> None:
        """Run a call in the default executor, then a body."""
        name = f"executor {self.number()}"

        gate = threading.Event()

        def work(value: int) -> int:
            gate.wait()  # until it was cancelled, if it is
            if kind == "boom":
                raise Boom("job")
            return value + 1

        def done(future: asyncio.Future[int]) -> None:
            self.arrived()
            self.log(f"job {outcome(future)}")
            self.body("job", ops)

        self.outstanding += 1
        with self.strand(name):
            future = self.loop.run_in_executor(None, work, 41)
            future.add_done_callback(done)
        if kind == "cancel":
            self.log(f"cancel job {future.cancel()}", name)
        gate.set()

    def do_signal(self, ops: list[Any]) -> None:
        """Handle a signal that is sent at once."""
        name = f"signal {self.number()}"
        number = signal.SIGUSR1 if len(self.signals) else signal.SIGUSR2
        if number in self.signals:
            return
        self.signals.add(number)
        self.outstanding += 1

        def handler() -> None:
            self.log(f"removed {self.loop.remove_signal_handler(number)}")
            self.signals.discard(number)
            self.arrived()
            self.body("signal", ops)

        with self.strand(name):
            self.loop.add_signal_handler(number, handler)
        os.kill(os.getpid(), number)

    # -- the end ------------------------------------------------------------

    async def finish(self) -> None:
        """End the program in good order."""
        for close in self.closers:
            close()
        for _ in range(20):  # some swallow it, and go on
            self.clock.begin()
            waiting = [task for task in self.tasks if not task.done()]
            for task in waiting:
                task.cancel()
            await self.settle()
            if not waiting:
                break
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()

    def release(self) -> None:
        """Let go of all objects, so that the collector sees them."""
        self.released = True
        self.handles.clear()
        self.timers.clear()
        self.futures.clear()
        self.callbacks.clear()
        self.tasks.clear()
        self.closers.clear()
        self.idle = None

    def last_look(self) -> None:
        """Write down the state everything was left in."""
        for at, future in enumerate([*self.futures, *self.tasks]):
            self.log(f"left {at}: {outcome(future)}", "left")
        for at, handle in enumerate(self.handles):
            self.log(f"handle {at}: {handle.cancelled()}", "left")

    def use_closed(self) -> None:
        """Ask a closed loop for what it can no longer do."""
        never = self.body, "never", []
        for name, args in (
            ("call_soon", never),
            ("call_soon_threadsafe", never),
            ("call_later", (0, *never)),
            ("call_at", (0, *never)),
            ("run_in_executor", (None, *never)),
            ("run_forever", ()),
            ("stop", ()),
            ("close", ()),
            ("is_running", ()),
        ):
            try:
                result = getattr(self.loop, name)(*args)
            except Exception as exc:
                result = named(exc)
            self.log(f"closed {name}: {result}", "closed")
        for handle in self.handles:
            handle.cancel()
