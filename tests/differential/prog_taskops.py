"""What programs without links do: callbacks, futures and tasks in one order.

All of it happens in iterations of the loop alone, so the strand "world" of
its trace is one total order.  Futures, tasks and handles are named by number,
as links are.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

from prog_ends import RAISED, Provoked

VALUE: contextvars.ContextVar[int] = contextvars.ContextVar("value", default=0)


def outcome(future: asyncio.Future[Any]) -> str:
    """Return what became of a future."""
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    exc = future.exception()
    return repr(future.result()) if exc is None else named(exc)


def named(exc: BaseException) -> str:
    """Return an exception's type, of a group all of them."""
    if isinstance(exc, BaseExceptionGroup):
        return f"[{', '.join(map(named, exc.exceptions))}]"
    return type(exc).__name__


class TaskOps:
    """Part of a World, whose attributes it uses."""

    def start_task_ops(self) -> None:
        self.calls: list[Any] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.done_callbacks: list[Callable[..., None]] = []
        self.jobs: list[asyncio.Task[Any]] = []
        self.past = self.loop.time()
        self.stopped = self.abandoned = False

    def note(self, text: str) -> None:
        """Add a line, with what the context says."""
        if not self.closed:  # else in the order of the GC
            self.log(f"{text} v{VALUE.get()}")

    # -- callbacks ----------------------------------------------------------

    def op_mark(self) -> None:
        running = asyncio._get_running_loop() is self.loop
        inside = asyncio.current_task(self.loop) is not None
        count = len(asyncio.all_tasks(self.loop))
        self.note(f"mark {running} {inside} {count}")

    def op_var(self, value: int) -> None:
        VALUE.set(value)

    def op_stop(self) -> None:
        self.stopped = True
        self.loop.stop()

    def op_abandon(self) -> None:
        """Leave the loop for good, to be closed as it is."""
        self.stopped = self.abandoned = True
        self.loop.stop()

    def op_call(self, how: str, ops: list[Any]) -> None:
        """Have a callback run: soon, or by a timer that was due before."""
        args = (self.on_call, f"call {len(self.calls)}", ops)
        args += tuple(range(9)) if "own" in how else ()
        words = {"context": contextvars.copy_context()} if "own" in how else {}
        if "due" in how:
            self.past += -0.002 if "earlier" in how else 1e-6
            handle = self.loop.call_at(self.past, *args, **words)
        elif "safe" in how:
            handle = self.loop.call_soon_threadsafe(*args, **words)
        else:
            handle = self.loop.call_soon(*args, **words)
        self.watch(handle)
        self.calls.append(handle)

    def on_call(self, label: str, ops: list[Any], *_more: int) -> None:
        self.note(label)
        self.run_ops(ops)

    def op_cancel_call(self, number: int) -> None:
        if self.calls:
            handle = self.calls[number % len(self.calls)]
            before = handle.cancelled()
            handle.cancel()
            self.note(f"handle {before} {handle.cancelled()}")

    # -- futures ------------------------------------------------------------

    def op_future(self) -> None:
        self.futures.append(self.loop.create_future())
        self.watch(self.futures[-1])

    def future(self, number: int) -> asyncio.Future[Any]:
        if not self.futures:
            self.op_future()
        return self.futures[number % len(self.futures)]

    def op_settle(self, number: int, how: str) -> None:
        future = self.future(number)
        if how == "cancel":
            self.note(f"cancel {future.cancel()}")
        elif how == "result":
            future.set_result(number)
        else:
            future.set_exception(RAISED[how](how))

    def op_tell(self, number: int, ops: list[Any]) -> None:
        """Have a callback run when a future is done."""
        label = f"done {len(self.done_callbacks)}"

        def callback(done: asyncio.Future[Any]) -> None:
            self.note(f"{label} {outcome(done)}")
            self.run_ops(ops)

        self.done_callbacks.append(callback)
        self.future(number).add_done_callback(callback)

    def op_untell(self, number: int, which: int) -> None:
        if self.done_callbacks:
            callback = self.done_callbacks[which % len(self.done_callbacks)]
            count = self.future(number).remove_done_callback(callback)
            self.note(f"removed {count}")

    # -- tasks --------------------------------------------------------------

    def op_job(self, script: list[Any]) -> None:
        label = f"job {len(self.jobs)}"
        task = self.loop.create_task(Job(self, label).run(script))
        task.add_done_callback(
            lambda done: self.note(f"{label} ended {outcome(done)}")
        )
        self.watch(task)
        self.jobs.append(task)

    def op_cancel_job(self, number: int) -> None:
        if self.jobs:
            self.note(f"cancel {self.jobs[number % len(self.jobs)].cancel()}")

    async def finish_task_ops(self) -> None:
        for _ in range(20):  # some swallow it, and go on
            if all(job.done() for job in self.jobs):
                break
            for job in self.jobs:
                job.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
        await self.loop.shutdown_asyncgens()
        if self.jobs or self.futures:
            left = map(outcome, [*self.futures, *self.jobs])
            self.note(f"left {[*left]}")

    def leave_task_ops(self) -> None:
        for things in (
            self.calls,
            self.futures,
            self.done_callbacks,
            self.jobs,
        ):
            things.clear()  # type: ignore[attr-defined]


class Ordered(dict[Any, None]):
    """A set that keeps its order."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class Job:
    """What a task runs: ``do_NAME`` here, or an operation of the world."""

    def __init__(self, world: Any, label: str) -> None:
        self.world, self.label = world, label
        self.children = 0

    async def run(self, script: list[Any]) -> str:
        for name, *args in script:
            if self.world.closed:
                break  # the GC closes the coroutine
            method = getattr(self, f"do_{name}", None)
            if method is None:
                self.world.do((name, *args))
                continue
            try:
                await method(*args)
            except BaseException as exc:
                self.world.note(f"{self.label} {name}: {named(exc)}")
                if isinstance(exc, (Provoked, asyncio.CancelledError)) or (
                    not isinstance(exc, Exception)
                ):
                    raise
            else:
                self.world.note(f"{self.label} {name}")
        return self.label

    def child(self, script: list[Any]) -> Any:
        self.children += 1
        return Job(self.world, f"{self.label}.{self.children}").run(script)

    async def do_turn(self, delay: float) -> None:
        await asyncio.sleep(delay)

    async def do_wait(self, number: int) -> None:
        await self.world.future(number)

    async def do_shield(self, number: int) -> None:
        await asyncio.shield(self.world.future(number))

    async def do_wait_for(self, number: int) -> None:
        await asyncio.wait_for(self.world.future(number), 0)

    async def do_timeout(self, script: list[Any]) -> None:
        async with asyncio.timeout(-1):
            await self.child(script)

    async def do_gather(self, quiet: bool, *scripts: list[Any]) -> None:
        jobs = map(self.child, scripts)
        done = await asyncio.gather(*jobs, return_exceptions=quiet)
        self.world.note(f"{self.label} {len(done)} gathered")

    async def do_group(self, *scripts: list[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            # It cancels in the order of a set, which follows addresses.
            group._tasks = Ordered()
            for script in scripts:
                group.create_task(self.child(script))

    async def do_first(self, how: str, *scripts: list[Any]) -> None:
        make = self.world.loop.create_task
        tasks = [make(self.child(script)) for script in scripts]
        done, _ = await asyncio.wait(tasks, return_when=how)
        self.world.note(f"{self.label} {len(done)} of {len(tasks)}")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def do_try(self, script: list[Any], after: list[Any]) -> None:
        try:
            await self.child(script)
        except (Exception, asyncio.CancelledError) as exc:
            self.world.note(f"{self.label} caught {named(exc)}")
        finally:
            await self.child(after)

    async def do_items(self, count: int, script: list[Any]) -> None:
        """Take some items of an async generator and drop it."""

        async def generate() -> Any:
            try:
                yield 0
                await self.child(script)
                yield 1
            finally:
                self.world.note(f"{self.label} generator ends")
                await asyncio.sleep(0)
                self.world.note(f"{self.label} generator ended")

        generator = generate()
        for _ in range(count):
            await anext(generator, None)
        del generator
