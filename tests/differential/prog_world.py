"""Runs one program on one loop: its life from the first link to the last look.

A program is data: links and steps.  A step is ``(iterations, operations)``:
its operations run in one callback of the loop, and the next step begins that
many iterations later, or when all has come to rest if *iterations* is
negative.  An operation is a tuple of a name and arguments; it is the method
``op_<name>`` here, or ``co_<name>`` where a task does it.  Links, tasks and
timers are named by number, modulo how many there are, so that whatever is left
of a program is a program.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import prog_pool
from prog_datagrams import DatagramOps
from prog_ends import Link, Provoked, around, kind_of
from prog_links import helper, open_link, renew_helpers
from prog_loopops import LoopOps
from prog_peer import PATIENCE
from prog_reuse import ReuseOps
from prog_streamops import StreamOps
from prog_tape import Program
from prog_taskops import TaskOps
from prog_transportops import TransportOps

#: Seconds after which a program hangs.
HANG = 4 * PATIENCE


class Hung(SystemExit):
    """Leaves the loop for good."""


class World(
    TransportOps,
    StreamOps,
    LoopOps,
    DatagramOps,
    TaskOps,
    ReuseOps,
):
    """One program on one loop."""

    def __init__(self, loop: Any, program: Program) -> None:
        self.loop = loop
        self.program = program
        self.links: list[Link] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.trace: dict[str, list[str]] = {}
        self.problems: list[str] = []
        self.activity = 0
        self.done_ops = self.nested = 0
        self.moment = 0  # which of the loop's callbacks this is
        self.iteration = 0  # of the driver's, about one of the loop's each
        self.writes: list[tuple[Link, int]] = []
        self.refs: list[weakref.ref[Any]] = []
        self.pending: list[threading.Event] = []
        self.tapes: list[threading.Event] = []
        self.stalls: dict[int, int] = {}  # how many operations tapes wait for
        self.keep: list[Any] = []
        self.fds: list[int] = []
        self.files: list[int] = []  # those that a sendfile reads
        self.loose = False  # the program closed descriptors by hand
        self.exited = False  # a callback left the loop by a BaseException
        self.wild = False  # its trace is a matter of chance
        self.closed = False
        self.leaving = False
        self.start_loop_ops()
        self.start_datagram_ops()
        self.start_task_ops()
        self.start_reuse_ops()

    def __repr__(self) -> str:
        return "World"

    def log(self, text: str, strand: str = "world") -> None:
        self.trace.setdefault(strand, []).append(text)
        self.activity += 1

    def problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def watch(self, thing: Any) -> None:
        """Have it be gone when the program is over."""
        with contextlib.suppress(TypeError):
            self.refs.append(weakref.ref(thing))

    # -- operations ---------------------------------------------------------

    def run_ops(self, ops: list[Any]) -> None:
        if not self.nested:
            self.moment += 1
        self.nested += 1
        try:
            for op in ops:
                self.do(op)
        finally:
            self.nested -= 1

    def do(self, op: tuple[Any, ...]) -> None:
        """Do one operation; what it raises by itself is its answer."""
        name, *args = op
        self.done_ops += 1
        try:
            getattr(self, f"op_{name}")(*args)
        except BaseException as exc:
            if isinstance(exc, (Provoked, Hung)):
                raise
            self.log(f"{name} raised {type(exc).__name__}", self.strand(args))
        self.look_for_overtaking()

    def strand(self, args: Any) -> str:
        if args and isinstance(args[0], int) and self.links:
            return f"link {args[0] % len(self.links)}"
        return "world"

    def link(self, number: int) -> Link:
        return self.links[number % len(self.links)]

    def callback(self, ops: list[Any]) -> None:
        """Be a callback of the loop."""
        if self.closed:
            self.problem("a callback ran after the loop was closed")
        self.activity += 1
        if text := around():
            self.log("callback" + text)
        self.run_ops(ops)

    def on_report(self, loop: Any, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        kind = "" if exc is None else type(exc).__name__
        if isinstance(exc, ConnectionError):
            kind = "ConnectionError"
        for link in self.links:
            if context.get("transport") is not None or isinstance(
                exc, Provoked
            ):
                link.rough = True
        text = str(context.get("message", "")).split("\n")[0]
        if "never retrieved" in text or "destroyed" in text:
            return
        self.log(f"report {kind}{around(exc)}", "reports")
        if not self.links:
            self.log(f"report {words_of(text)} {sorted(context)}")

    # -- the course ---------------------------------------------------------

    async def settle(self) -> None:
        """Wait until nothing happens any more."""
        naps = quiet = 0
        for _ in range(300):
            before = self.progress()
            await self.iterate(3)
            if self.progress() != before:
                continue
            await asyncio.sleep(0.0008)
            naps += 1
            quiet = quiet + 1 if self.progress() == before else 0
            # asyncio reads a file by jobs of the executor, which take longer.
            enough = quiet >= (8 if self.files else 1)
            if enough and self.is_idle() or naps == 60:
                break

    def progress(self) -> tuple[int, ...]:
        """Return what changes while something happens."""
        places = [os.lseek(file, 0, os.SEEK_CUR) for file in self.files]
        return self.activity, *places

    async def iterate(self, count: int) -> None:
        for _ in range(count):
            self.iteration += 1
            await asyncio.sleep(0)

    def is_idle(self) -> bool:
        """Whether no timer is due, and tapes wait for operations if at all."""
        running = sum(not tape.is_set() for tape in self.tapes)
        stalls = list(self.stalls.values())
        stalled = sum(least > self.done_ops for least in stalls)
        return not self.timers and running <= stalled

    async def drive(self) -> None:
        """Connect, run the steps, bring all to an end."""
        for number, link in enumerate(self.program.links):
            self.links.append(Link(self, number, *link))
            try:
                await asyncio.wait_for(open_link(self.links[-1]), PATIENCE)
            except TimeoutError:
                # No loop tells the waiter of a connection_made that exits.
                self.loose = self.loose or self.exited
                raise
        for number, tape in enumerate(self.program.tapes):
            if tape and self.links:
                run = functools.partial(self.run_tape, number, tape)
                self.tapes.append(helper(number + 16).submit(run))
        for iterations, ops in self.program.steps:
            self.loop.call_soon(self.callback, ops)
            if iterations < 0:
                await self.settle()
            await self.iterate(iterations)
        self.leaving = True
        await self.settle()
        await self.finish()

    def run_tape(self, number: int, tape: list[Any]) -> None:
        """Do what end B's tape says, in a thread of its own."""
        peer = self.link(number).peer
        until = time.monotonic() + PATIENCE
        for op in tape:
            if op[0] == "stall":
                self.stalls[number] = op[1]
                while (
                    self.done_ops < op[1]
                    and not self.leaving
                    and time.monotonic() < until
                ):
                    time.sleep(0.0003)
                del self.stalls[number]
            else:
                peer.do(op)
                if peer.gone:
                    self.link(number).log("cut off among writes")
            self.activity += 1

    async def finish(self) -> None:
        """Bring every link to an orderly end, where it had none."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=PATIENCE)
        await self.finish_task_ops()
        await self.finish_reuse_ops()
        await self.finish_loop_ops()
        jobs = []
        for link in self.links:
            half = bool(link.conf.get("half")) and not link.secure
            job = functools.partial(link.peer.finish, half)
            jobs.append(helper(link.index).submit(job))
        await asyncio.gather(*map(self.finish_link, self.links))
        begin = time.monotonic()
        while not all(job.is_set() for job in jobs):
            await asyncio.sleep(0.0005)
            for link in self.links:
                rough = self.loose or link.rough or link.transport is None
                limit = 0.01 if rough else PATIENCE
                if time.monotonic() > begin + limit:
                    link.peer.stop = True

    async def finish_link(self, link: Link) -> None:
        if link.kind in ("sock", "reader"):
            await self.finish_socket(link)
            return
        if link.transport is None:
            return
        for transport in (link.transport, link.read_pipe):
            with contextlib.suppress(Exception):
                transport.resume_reading()
        expects = not (link.closed or link.rough or link.lost or self.loose)
        # Of data without a reader, A does not know how much it is.
        limit = 0.1 if link.gap else PATIENCE
        try:
            async with asyncio.timeout(limit):
                if link.reader is not None and expects:
                    await self.read_on(link)
                elif expects:
                    await self.wait_until(
                        link,
                        lambda: (
                            link.received >= link.peer.wanted
                            or link.has_ended()
                        ),
                    )
        except TimeoutError:
            link.unread = link.unread or link.gap
            if not (self.excused(link) or link.gap):
                self.problem(
                    f"link {link.index}: A has {link.received} of "
                    f"{link.peer.wanted} bytes and waits for more"
                )
        if expects:
            await self.see_end(link)
        link.wanted = min(link.wanted, link.peer.wanted)
        for transport in (link.transport, link.read_pipe):
            if transport is not None:
                with contextlib.suppress(Exception):
                    transport.close()
        link.closed = True
        judged = not (self.loose or link.net == "pty" or link.rough)
        try:
            async with asyncio.timeout(PATIENCE if judged else 0.1):
                await self.wait_until(link, lambda: gone(link))
        except TimeoutError:
            if judged and not (self.loose or link.rough):
                self.problem(f"link {link.index}: A's end does not end")
            link.rough = True  # what a terminal had not taken yet is lost
            with contextlib.suppress(Exception):
                link.transport.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self.wait_until(link, lambda: gone(link))

    async def see_end(self, link: Link) -> None:
        """Wait for the end that B has sent; when it is seen is the loop's."""
        if link.reader is None and link.peer.broken == "ended":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self.wait_until(link, link.has_ended)

    def excused(self, link: Link) -> bool:
        return bool(
            link.rough or self.loose or link.peer.broken or link.peer.gone
        )

    async def read_on(self, link: Link) -> None:
        """Read a stream to its end, as far as its peer has written."""
        try:
            while link.received < link.peer.wanted:
                data = await link.reader.read(65536)
                if not data:
                    break
                link.take(data)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError):
                raise
            link.log(f"reading on: {kind_of(exc)}")
            link.rough = True

    async def wait_until(self, link: Link, test: Callable[[], bool]) -> None:
        link.changed = asyncio.Event()
        while not test():
            link.changed.clear()
            waiting = link.changed.wait()
            # Not all that is waited for is reported.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(waiting, 0.002)
        link.changed = None

    # -- judging ------------------------------------------------------------

    def judge_links(self) -> None:
        """See whether what arrived is what was written."""
        for link in self.links:
            peer = link.peer
            peer.do(("recv", 1 << 22))
            for text in peer.problems:
                if not self.loose:
                    link.problem(text)
            if peer.received > link.written and not self.loose:
                link.problem(
                    f"B got {peer.received} bytes, A wrote {link.written}"
                )
            lost = link.lost
            counted = link.kind in ("plain", "buffered") and link.made
            if counted and not lost and link.transport is not None:
                if not (self.loose or link.untold):
                    link.problem("connection_lost was not called")
            if self.excused(link) and peer.broken != "ended":
                continue
            if link.rough or self.loose or peer.gone:
                continue
            if peer.wanted > link.wanted:
                # What comes to a closed socket breaks the connection.
                link.unread, link.settled = True, False
            if link.required > peer.received and not link.unread:
                link.problem(
                    f"B got {peer.received} of {link.required} bytes, "
                    f"then {peer.ended}"
                )
            if link.secure and link.own_end:
                continue  # data may have come behind it, an error in asyncio
            is_told = link.settled or not (link.unread or link.many_reads)
            if is_told and not link.late:
                all_here = peer.received == link.written
                self.log(f"B has all: {all_here}", f"link {link.index}")


def words_of(text: str) -> str:
    """Return a report's text without what differs from run to run."""
    return re.sub(r"0x\w+|\bat /\S+:\d+|<(Future|Task) [^>]*>", "", text)


def gone(link: Link) -> bool:
    """Whether no more calls are due for a closed transport."""
    if link.lost or link.untold:
        return True
    if link.kind in ("plain", "buffered"):
        return not link.made
    if link.rough:
        return True
    # The standard library's protocol tells its writer.
    try:
        protocol = link.transport.get_protocol()
    except AttributeError:  # asyncio's TLS transport has let go of it
        return True
    closed = getattr(protocol, "_closed", None)
    return closed is None or closed.done()


def run_driver(world: World) -> None:
    """Run a world's course to its end, whatever leaves the loop meanwhile."""
    loop = world.loop
    guard = loop.call_later(HANG, hung, world)
    task = loop.create_task(world.drive())
    for _ in range(40):
        if task.done():
            break
        try:
            loop.run_until_complete(task)
        except Hung:
            break
        except BaseException as exc:
            if task.done() or world.abandoned:
                break
            if world.stopped and isinstance(exc, RuntimeError):
                continue
            world.log(f"left the loop by {type(exc).__name__}", "reports")
            world.exited = True
            if not isinstance(exc, Provoked):
                world.problem(f"left the loop by {exc!r}")
    guard.cancel()
    if task.done() and not task.cancelled() and task.exception():
        exc = task.exception()
        if not (world.loose or isinstance(exc, Provoked)):
            world.problem(f"the driver failed: {exc!r}")
    elif not (task.done() or world.abandoned):
        world.problem("the program does not end")


def hung(world: World) -> None:
    """Leave the loop for good: something never became idle."""
    raise Hung


@functools.cache
def run_once(make_loop: Callable[[], Any]) -> None:
    """Run a loop: libuv opens fds in a process's first run, and keeps them."""
    loop = make_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def run_program(
    make_loop: Callable[[], Any], program: Program
) -> tuple[list[str], dict[str, list[str]]]:
    """Run a program on a loop; return what is wrong, and the trace."""
    module = getattr(make_loop, "__module__", "")
    ours = module.partition(".")[0] == "fastloop"
    prog_pool.say_alive("fastloop" if ours else "asyncio")
    renew_helpers()
    run_once(make_loop)
    before = set(os.listdir("/proc/self/fd"))
    old = {name: os.environ.get(name) for name in program.env}
    os.environ.update(program.env)
    loop = make_loop()
    for name, value in old.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    world = World(loop, program)
    loop.set_exception_handler(world.on_report)
    loop.set_debug(program.debug)
    loop.slow_callback_duration = HANG
    unraisable: list[str] = []
    hook = sys.unraisablehook
    sys.unraisablehook = lambda args: unraisable.append(
        type(args.exc_value).__name__
    )
    try:
        with world.watching_files():
            run_driver(world)
        world.end_loop_ops()
        loop.close()
        world.closed = True
        world.judge_links()
        trace, problems = world.trace, world.problems
        leave(world)
        if ours and has_dict(loop):
            problems.append("the loop has a __dict__")
        refs, loose, wild = world.refs, world.loose, world.wild
        del loop, world
        gc.collect()
    finally:
        sys.unraisablehook = hook
    kept = [type(thing).__name__ for ref in refs if (thing := ref())]
    if kept:
        problems.append(f"something keeps {sorted(set(kept))}")
    after = set(os.listdir("/proc/self/fd"))
    if after != before and not loose:
        problems.append(f"{len(after) - len(before)} descriptors left")
    for name in after - before:
        with contextlib.suppress(OSError):
            os.close(int(name))
    if loose or wild:
        trace = {"wild": []}
    elif unraisable:
        trace["unraisable"] = sorted(unraisable)
    return problems, trace


def has_dict(loop: Any) -> bool:
    """Whether it has one by now: vars() makes it.

    With one CPython no longer specializes calls of the loop's methods, and
    calls from C look each method up there first.
    """
    found = gc.get_referents(loop)
    return any(each is vars(loop) for each in found)


def leave(world: World) -> None:
    """Close and let go of all that the program itself has."""
    for link in world.links:
        link.over = True
        # A descriptor that was closed by hand may have been any of these.
        with contextlib.suppress(OSError):
            link.peer.do_close()
        with contextlib.suppress(OSError):
            if link.sock is not None:
                link.sock.close()
        link.transport = link.reader = link.writer = link.sock = None
        link.read_pipe = None
        link.react.clear()
    for fd in world.fds:
        with contextlib.suppress(OSError):
            os.close(fd)
    world.keep.clear()
    world.tasks.clear()
    world.leave_task_ops()
    world.writes.clear()
