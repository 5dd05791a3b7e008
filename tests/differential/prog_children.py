"""Processes that programs start: cat, between two pipes of the loop's.

What a callback wrote to a connection before it starts a process, or sends it a
signal, is on its way by then: the process may be the one that needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from prog_ends import Provoked
from prog_peer import PATIENCE

PATTERN = bytes(range(251)) * 4000


class Look:
    """A name of a folder that looks when it is used."""

    def __init__(self, world: Any, event: str) -> None:
        self.world, self.event = world, event

    def __fspath__(self) -> str:
        self.world.look_for_overtaking(self.event)
        return "/"


class Child(asyncio.SubprocessProtocol):
    """One process, whatever becomes of it."""

    def __init__(self, world: Any, number: int) -> None:
        self.world, self.number = world, number
        self.transport: Any = None
        self.fed = self.got = 0
        self.lost_pipes: list[int] = []
        self.exits = self.lost = 0
        self.rough = False  # it was not left to end by itself

    def problem(self, text: str) -> None:
        self.world.problem(f"child {self.number}: {text}")

    # -- events -------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.world.watch(transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        at = self.got % 251
        right = fd == 1 and data == PATTERN[at : at + len(data)]
        # A pipe may get the number of an fd that the program closed by hand.
        if not (right or self.world.loose):
            self.problem(f"{len(data)} wrong bytes at {self.got}")
        self.got += len(data)
        self.world.activity += 1

    def pipe_connection_lost(self, fd: int, exc: Any) -> None:
        self.lost_pipes.append(fd)

    def process_exited(self) -> None:
        self.exits += 1

    def connection_lost(self, exc: Any) -> None:
        self.lost += 1
        self.world.activity += 1

    # -- what the program does ----------------------------------------------

    async def run(self, before: list[Any], script: list[Any]) -> None:
        """Write to connections, start the process, do a script with it."""
        self.do(before)
        start = self.world.loop.subprocess_exec
        look = Look(self.world, "a process was started")
        try:
            await start(lambda: self, "cat", cwd=look, stderr=None)
        except BaseException as exc:
            self.rough = True
            if isinstance(exc, Exception) and not self.world.loose:
                self.problem(f"it was not started: {exc!r}")
            raise
        for name, *args in script:
            if self.lost or self.transport is None:
                break
            try:
                await getattr(self, f"do_{name}")(*args)
            except Exception as exc:
                self.problem(f"{name} raised {exc!r}")

    def do(self, ops: list[Any]) -> None:
        self.world.moment += 1
        for op in ops:
            with contextlib.suppress(Provoked):
                self.world.do(op)

    def stdin(self) -> Any:
        return self.transport.get_pipe_transport(0)

    async def do_turn(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def do_feed(self, *sizes: int) -> None:
        for size in sizes:
            if self.stdin().is_closing():
                break
            at = self.fed % 251
            size = min(size, len(PATTERN) - 251)
            self.stdin().write(PATTERN[at : at + size])
            self.fed += size

    async def do_end(self) -> None:
        self.stdin().close()

    async def do_signal(self, number: int, before: list[Any]) -> None:
        """Write to connections when it is a matter of chance, then kill."""
        self.world.wild = self.world.wild or bool(before)
        self.do(before)
        self.rough = True
        with contextlib.suppress(ProcessLookupError):
            self.transport.send_signal(number)

    async def do_close(self) -> None:
        self.rough = True
        self.transport.close()

    # -- its end ------------------------------------------------------------

    async def finish(self) -> None:
        """See that a process that is left alone ends, and says so once."""
        if self.transport is None:
            if self.rough:  # it was cancelled, and ends behind our back
                await asyncio.sleep(0.03)
            return
        self.stdin().close()
        until = time.monotonic() + PATIENCE
        while not self.lost and time.monotonic() < until:
            await asyncio.sleep(0.0005)
        code = self.transport.get_returncode()
        calls = (sorted(self.lost_pipes), self.exits, self.lost)
        if calls != ([0, 1], 1, 1) and not self.world.loose:
            self.problem(f"its end was reported as {calls}")
        excused = self.rough or self.world.loose
        if not excused and (code, self.got) != (0, self.fed):
            self.problem(f"code {code}, {self.got} of {self.fed} bytes")
        self.transport.close()
        self.transport = None


class ChildOps:
    """Part of a World, whose attributes it uses."""

    def start_child_ops(self) -> None:
        self.children: list[Child] = []

    def op_child(self, before: list[Any], script: list[Any]) -> None:
        if not self.leaving:
            child = Child(self, len(self.children))
            self.children.append(child)
            task = self.loop.create_task(child.run(before, script))
            self.tasks.append(task)

    async def finish_child_ops(self) -> None:
        for child in self.children:
            await child.finish()
        self.children.clear()
