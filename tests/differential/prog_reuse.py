"""What programs do that close an fd by hand: the next file gets its number.

fastloop notes which file an epoll registration belongs to: the next file's
bytes are its own, and a callback left on the closed fd is not called for it.
asyncio does not, so it is no model here.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import time
from typing import Any

from prog_ends import Link
from prog_peer import PATIENCE

#: What `prog_judge` knows these invariants by.
NEXT_FILE = "the next file of a number"
#: Above the numbers of all links.
HIGH = 500
#: How many calls of the closed file's callbacks are allowed: a reader's and a
#: writer's, of an event that epoll reported before.
CALLS_ON_THE_WAY = 2
#: Pipes' file objects, whose finalizers would close the next file's number.
KEPT: list[Any] = []


class Successor(asyncio.Protocol):
    """A socket with the number of a closed fd, its peer, and its user."""

    def __init__(self, world: Any, link: Link, user: str) -> None:
        self.world, self.link, self.user = world, link, user
        near, far = socket.socketpair()
        self.far = socket.socket(
            fileno=fcntl.fcntl(far, fcntl.F_DUPFD_CLOEXEC, HIGH)
        )
        far.close()
        near.setblocking(False)
        self.far.setblocking(False)
        self.near = near
        self.received = b""
        self.sent = b""
        #: Of the closed file's transport: an event that epoll reported before
        #: has it write once more, as on asyncio.
        self.backlog_bytes = 0
        self.failed = False
        self.transport: Any = None
        self.task: asyncio.Task[None] | None = None

    def replace(self, fd: int) -> None:
        """Close the fd, and have the socket in its place."""
        os.dup2(self.near.fileno(), fd, inheritable=False)
        self.near.close()
        self.near = socket.socket(fileno=fd)
        self.near.setblocking(False)

    def begin(self) -> None:
        loop = self.world.loop
        if self.user == "reader":
            loop.add_reader(self.near, self.on_readable)
            self.far.send(b"in")
        elif self.user == "writer":
            loop.add_writer(self.near, self.on_writable)
            self.far.send(b"in")
        else:
            self.task = loop.create_task(self.connect())

    async def connect(self) -> None:
        loop = self.world.loop
        try:
            if self.user == "pipe":
                await loop.connect_read_pipe(lambda: self, self.near)
            else:
                await loop.create_connection(lambda: self, sock=self.near)
                self.transport.write(b"out")
                self.sent = b"out"
            # Not before: an event on its way would have the closed file's
            # user read that, as with asyncio.
            self.far.send(b"in")
        except Exception:
            self.failed = True

    # -- what the user is called for -------------------------------------

    def on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.received += self.near.recv(100)

    def on_writable(self) -> None:
        self.world.loop.remove_writer(self.near)
        self.sent = b"out"
        self.near.send(self.sent)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: BaseException | None) -> None:
        self.failed = self.failed or exc is not None

    # -- the end ----------------------------------------------------------

    async def finish(self) -> None:
        if self.task is not None:
            await asyncio.wait([self.task], timeout=1)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not (self.failed or self.is_done()):
            await asyncio.sleep(0.001)
        if not self.failed:
            with contextlib.suppress(OSError):
                self.judge()
        loop = self.world.loop
        if self.transport is not None:
            self.transport.close()
            await asyncio.sleep(0)
        elif self.near.fileno() >= 0:
            loop.remove_reader(self.near)
            loop.remove_writer(self.near)
            with contextlib.suppress(OSError):
                self.near.close()
        self.far.close()

    def is_done(self) -> bool:
        if self.user == "writer":
            return self.sent == b"out"
        return self.received == b"in"

    def judge(self) -> None:
        if self.user == "writer":
            self.on_readable()
            if not self.sent:
                self.problem("the writer is not called")
        if self.received != b"in":
            self.problem(f"{self.user} got {self.received!r}")
        try:
            got = self.far.recv(1 << 20) or b"the end"
        except BlockingIOError:
            got = b""
        if got != self.sent and not self.backlog_bytes:
            self.problem(f"{self.user} sent {self.sent!r}, not {got[:9]!r}")
        if self.link.stale_calls > CALLS_ON_THE_WAY:
            self.problem(f"the closed file's callbacks ran for {self.user}")

    def problem(self, text: str) -> None:
        self.link.problem(f"{NEXT_FILE}: {text}")


class ReuseOps:
    """Part of a World, whose attributes it uses."""

    def start_reuse_ops(self) -> None:
        self.successors: list[Successor] = []

    def op_reuse(self, number: int, which: str, user: str) -> None:
        """Close a link's fd, and give its number to the next file's user."""
        link: Link = self.link(number)
        if link.closed_by_hand or self.other_loops:
            return
        fd = self.take_number(link, which)
        if fd < 0:
            return
        self.loose = link.closed_by_hand = link.reused = True
        successor = Successor(self, link, user)
        if which == "out" and link.kind != "sock":
            successor.backlog_bytes = link.transport.get_write_buffer_size()
        self.successors.append(successor)
        successor.replace(fd)
        try:
            successor.begin()
        except Exception:
            successor.failed = True  # as where a transport has the number
            raise

    def take_number(self, link: Link, which: str) -> int:
        """Return the number of a link's fd, which is to be another file's."""
        if link.kind == "sock":
            if link.sock is None or link.reading or link.busy:
                return -1
            link.number = -1
            sock, link.sock = link.sock, None
            return sock.detach()
        if link.net not in ("pipe", "pty"):
            return -1
        transport = link.read_pipe if which == "in" else link.transport
        if transport is None or transport.is_closing():
            return -1
        file = transport.get_extra_info("pipe")
        KEPT.append(file)
        return int(file.fileno())

    async def finish_reuse_ops(self) -> None:
        for successor in self.successors:
            await successor.finish()
        self.successors.clear()
