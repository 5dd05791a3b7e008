"""What the coroutines of a generated program do.

A script is a list of statements, run in order.  It ends with its list, with
``return`` or with an exception; cancellation is written down wherever it
comes out.
"""

from __future__ import annotations

import asyncio
from typing import Any

from diff_machine import KINDS, Machine, Provoked, named, outcome


class Returned(Exception):
    """Leaves a script with its value."""


class Ordered(dict[Any, None]):
    """A set that keeps its order."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class Script:
    """A coroutine of the program."""

    def __init__(self, machine: Machine, label: str, index: int) -> None:
        self.machine = machine
        self.label = label
        self.index = index  # of the task this belongs to
        self.inner = 0

    async def run(self, script: list[Any]) -> Any:
        self.machine.log(f"{self.label} begins")
        try:
            await self.block(script)
        except Returned as value:
            return value.args[0]
        except BaseException as exc:
            self.machine.log(f"{self.label} leaves by {named(exc)}")
            raise
        return self.label

    async def block(self, script: list[Any]) -> None:
        for statement in script:
            await self.one(statement)

    async def one(self, statement: Any) -> None:
        name, *args = statement
        method = getattr(self, f"do_{name}", None)
        if method is None:
            self.machine.do(statement)
            return
        try:
            await method(*args)
        except BaseException as exc:
            ours = isinstance(
                exc, (Provoked, Returned, asyncio.CancelledError)
            )
            self.machine.log(f"{self.label} {name}: {named(exc)}")
            if ours or not isinstance(exc, Exception):
                raise
            return
        self.machine.log(f"{self.label} {name}")

    def child(self, script: list[Any]) -> Any:
        self.inner += 1
        label = f"{self.label}.{self.inner}"
        return Script(self.machine, label, self.index).run(script)

    async def do_return(self, value: int) -> None:
        raise Returned(value)

    async def do_throw(self, kind: str) -> None:
        raise KINDS[kind](kind)

    async def do_turn(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
            self.machine.log(f"{self.label} turn")

    async def do_sleep(self, slots: int) -> None:
        if slots <= 0:
            await asyncio.sleep(-1)
            return
        with self.machine.expecting():
            await asyncio.sleep(self.machine.clock.delay(slots))

    async def do_wait(self, number: int) -> None:
        result = await self.machine.some_future(number)
        self.machine.log(f"{self.label} got {result}")

    async def do_join(self, number: int) -> None:
        # An older task: no circle of tasks that wait for each other.
        tasks = self.machine.tasks[: self.index]
        if tasks:
            result = await tasks[number % len(tasks)]
            self.machine.log(f"{self.label} joined {result}")

    async def do_shield(self, number: int) -> None:
        await asyncio.shield(self.machine.some_future(number))

    async def do_shield_script(self, script: list[Any]) -> None:
        await asyncio.shield(self.child(script))

    async def do_wait_for(self, slots: int, number: int) -> None:
        """Wait for a future, so many slots at most."""
        future = self.machine.some_future(number)
        if slots <= 0:
            await asyncio.wait_for(future, 0)
            return
        with self.machine.expecting():
            await asyncio.wait_for(future, self.machine.clock.delay(slots))

    async def do_wait_for_script(self, slots: int, script: list[Any]) -> None:
        with self.machine.expecting():
            delay = self.machine.clock.delay(slots) if slots > 0 else 0
            await asyncio.wait_for(self.child(script), delay)

    async def do_timeout(self, slots: int, script: list[Any]) -> None:
        with self.machine.expecting():
            delay = self.machine.clock.delay(slots) if slots > 0 else -1
            async with asyncio.timeout(delay):
                await self.block(script)

    async def do_gather(self, scripts: list[Any], quiet: bool) -> None:
        done = await asyncio.gather(
            *map(self.child, scripts), return_exceptions=quiet
        )
        shown = [
            named(one) if isinstance(one, BaseException) else one
            for one in done
        ]
        self.machine.log(f"{self.label} gathered {shown}")

    async def do_group(self, scripts: list[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            # It cancels in the order of a set, which follows addresses.
            group._tasks = Ordered()
            for script in scripts:
                group.create_task(self.child(script))

    async def do_first(self, scripts: list[Any], how: str) -> None:
        loop = self.machine.loop
        tasks = [loop.create_task(self.child(one)) for one in scripts]
        done, pending = await asyncio.wait(tasks, return_when=how)
        self.machine.log(f"{self.label} {len(done)} of {len(tasks)}")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.machine.log(f"{self.label} {[outcome(one) for one in tasks]}")

    async def do_try(self, script: list[Any], after: list[Any]) -> None:
        """Swallow what a block raises, then go on; cancellation too."""
        try:
            await self.block(script)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, Returned):
                raise
            self.machine.log(f"{self.label} caught {named(exc)}")
        await self.block(after)

    async def do_finally(self, script: list[Any], after: list[Any]) -> None:
        try:
            await self.block(script)
        finally:
            self.machine.log(f"{self.label} finally")
            await self.block(after)

    async def do_agen(self, script: list[Any], items: int) -> None:
        """Take some items of an async generator and drop it."""
        label = self.label

        async def generate() -> Any:
            try:
                yield 0
                await self.block(script)
                yield 1
                yield 2
            finally:
                self.machine.log(f"{label} generator ends")
                await asyncio.sleep(0)
                self.machine.log(f"{label} generator ended")

        generator = generate()
        for _ in range(items):
            self.machine.log(f"{label} item {await anext(generator, None)}")
        del generator

    async def do_queue(self, items: int, size: int) -> None:
        """Pass items from one coroutine to another."""
        queue: asyncio.Queue[int] = asyncio.Queue(size)

        async def put() -> None:
            for item in range(items):
                await queue.put(item)
                self.machine.log(f"{self.label} put {item}")

        async def get() -> None:
            for _ in range(items):
                self.machine.log(f"{self.label} get {await queue.get()}")

        await asyncio.gather(put(), get())

    async def do_lock(self, script: list[Any]) -> None:
        """Run two coroutines that want one lock."""
        lock = asyncio.Lock()

        async def inside(number: int) -> None:
            async with lock:
                self.machine.log(f"{self.label} locked {number}")
                await asyncio.sleep(0)

        await asyncio.gather(inside(1), inside(2), self.child(script))
