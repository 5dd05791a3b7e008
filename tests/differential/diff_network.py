"""Connections, servers, datagrams, watchers and processes for programs.

Each end of a connection is a strand.  How the bytes of a stream fall into
calls of ``data_received`` is the kernel's business: an end checks that what it
gets is what its peer wrote, counts, and writes the count down where it is
determined: at the end of a step, at the end of the stream, at the loss.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from typing import Any

from diff_ends import End, Protocols, RawEnd, piece
from diff_machine import STRAND, Machine, named, plain

#: Bytes the kernel holds for a connection, each way: more waits in the loop.
KERNEL_BYTES = 32 * 1024


class Connection:
    """Two ends, either of which may be a bare socket."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ends: list[Any] = []


def shrink(sock: Any) -> None:
    """Make what the kernel takes small, and the same everywhere.

    Not TCP's receive window: smaller than a segment, it stalls the sender.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)


class Network(Machine):
    """A machine that knows of sockets."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, world: str, patience: int = 1
    ) -> None:
        super().__init__(loop, world, patience)
        self.ends: list[Any] = []
        self.connections = 0
        self.servers: list[Any] = []
        self.ready: list[asyncio.Future[None]] = []
        self.addresses: dict[int, Any] = {}
        self.accepting: list[Any] = []
        self.lock = asyncio.Lock()
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        self.nudge: socket.socket | None = None
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.endpoints: list[Any] = []
        self.background: set[asyncio.Task[Any]] = set()

    def release(self) -> None:
        super().release()
        if self.folder is not None:
            self.folder.cleanup()
        for end in self.ends:
            end.release()
        if self.nudge is not None:
            self.nudge.close()
            self.nudged.close()
        for pair in self.pairs:
            pair[0].close()
            pair[1].close()
        for each in (self.ends, self.pairs, self.servers, self.endpoints):
            each.clear()
        self.accepting.clear()
        self.ready.clear()
        self.background.clear()

    def path(self, name: str) -> str:
        """Return where a Unix socket can be."""
        if self.folder is None:
            self.folder = tempfile.TemporaryDirectory(prefix="fl-diff-")
        return f"{self.folder.name}/{name}"

    def look_now(self) -> None:
        """Have the loop look at its descriptors in the next turn.

        It cannot know that the program itself sent something.
        """
        if self.nudge is None:
            self.nudge, self.nudged = socket.socketpair()
        self.loop.remove_reader(self.nudge)
        self.loop.add_reader(self.nudge, int)

    def expects(self) -> bool:
        return any(end.expects() for end in self.ends)

    def after_step(self) -> None:
        for end in self.ends:
            end.after_step()

    async def finish(self) -> None:
        for server in self.servers:
            if server is not None:
                server.close()
        for end in self.ends:
            end.finish()
        for endpoint in self.endpoints:
            if endpoint.transport is not None:
                endpoint.transport.abort()
        if self.nudge is not None:
            self.loop.remove_reader(self.nudge)
        for left, right in self.pairs:
            for sock in (left, right):
                if sock.fileno() >= 0:
                    self.loop.remove_reader(sock)
                    self.loop.remove_writer(sock)
        await self.settle()
        for task in self.background:
            task.cancel()
        await self.settle()
        self.after_step()
        await super().finish()

    def spawn(self, name: str, coro: Any) -> None:
        """Run a coroutine that the step waits for, in a strand of its own."""

        async def whole() -> None:
            STRAND.set(name)
            try:
                await coro
            except asyncio.CancelledError:
                self.log("cancelled")
                raise
            except Exception as exc:
                self.log(f"failed: {plain(named(exc))}")
            finally:
                self.arrived()

        self.remote |= not name.startswith("c")
        self.outstanding += 1
        task = self.loop.create_task(whole())
        self.background.add(task)

    # -- connections --------------------------------------------------------

    def new_end(self, name: str, conf: Any) -> Any:
        kind = conf[0]
        end = RawEnd(self, name) if kind == "raw" else End(self, name, conf)
        self.ends.append(end)
        return end

    def new_ends(self, a: Any, b: Any) -> tuple[Any, Any]:
        self.connections += 1
        name = f"c{self.connections}"
        left = self.new_end(f"{name}.a", a)
        right = self.new_end(f"{name}.b", b)
        left.peer, right.peer = right, left
        return left, right

    def do_pair(self, a: Any, b: Any) -> None:
        """Connect two ends by a pair of Unix sockets."""
        left, right = self.new_ends(a, b)

        async def attach(end: Any, sock: socket.socket, how: str) -> None:
            shrink(sock)
            if isinstance(end, RawEnd):
                end.attach(sock)
                return
            # No program has the socket: fastloop may hold writes to it.
            getattr(self.loop, "_private_socks", set()).add(sock)
            method = getattr(self.loop, how)
            transport, _ = await method(end.factory, sock=sock)
            end.opened(transport)

        async def both() -> None:
            one, two = socket.socketpair()
            await attach(left, one, "create_unix_connection")
            await attach(right, two, "connect_accepted_socket")

        self.spawn(f"{left.name} open", both())

    def do_serve(self, kind: str) -> None:
        """Start a server whose connections come with their ends."""
        number = len(self.servers)
        self.servers.append(None)
        self.ready.append(self.loop.create_future())

        def factory() -> Any:
            return self.accepting.pop(0).factory()

        async def serve() -> None:
            if kind == "unix":
                path = self.path(str(number))
                server = await self.loop.create_unix_server(factory, path)
                address: Any = path
            else:
                self.remote = True
                server = await self.loop.create_server(factory, "127.0.0.1", 0)
                address = server.sockets[0].getsockname()
            for sock in server.sockets:
                shrink(sock)
            self.addresses[number] = address
            self.servers[number] = server
            self.ready[number].set_result(None)
            self.log(f"serving {server.is_serving()}")

        self.spawn(f"server {number}", serve())

    def do_connect(self, number: int, a: Any, b: Any) -> None:
        """Connect to a server of ours, one connection at a time."""
        if not self.servers:
            self.do_serve("tcp" if number % 2 else "unix")
        left, right = self.new_ends(a, b)
        at = number % len(self.servers)

        async def connect() -> None:
            async with self.lock:
                await self.ready[at]
                self.accepting.append(right)
                try:
                    await self.reach(self.addresses[at], left, right)
                finally:
                    if right in self.accepting:
                        self.accepting.remove(right)

        self.spawn(f"{left.name} open", connect())

    async def reach(self, address: Any, left: Any, right: Any) -> None:
        unix = isinstance(address, str)
        if isinstance(left, RawEnd):
            sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
            shrink(sock)
            try:
                sock.connect(address)
            except BaseException:
                sock.close()
                raise
            left.attach(sock)
        elif unix:
            transport, _ = await self.loop.create_unix_connection(
                left.factory, address
            )
            left.opened(transport)
        else:
            transport, _ = await self.loop.create_connection(
                left.factory, *address
            )
            left.opened(transport)
        await right.made

    def do_server_close(self, number: int) -> None:
        if self.servers:
            server = self.servers[number % len(self.servers)]
            if server is not None:
                server.close()
                self.log(f"closed, serving {server.is_serving()}")

    def do_server_look(self, number: int) -> None:
        if self.servers:
            server = self.servers[number % len(self.servers)]
            if server is not None:
                count = len(server.sockets)
                self.log(f"server {server.is_serving()} {count}")

    def do_server_wait(self, number: int) -> None:
        """Wait, outside of any step, for a server to be closed."""
        if not self.servers:
            return
        at = number % len(self.servers)
        server = self.servers[at]
        if server is None:
            return

        async def wait() -> None:
            STRAND.set(f"server {at} wait {self.number()}")
            await server.wait_closed()
            self.log("closed")

        self.background.add(self.loop.create_task(wait()))

    def do_on(self, number: int, op: Any) -> None:
        """Do something to one end."""
        if self.ends:
            self.ends[number % len(self.ends)].act(op)

    # -- readers and writers of plain sockets -------------------------------

    def some_pair(self, number: int) -> tuple[int, Any]:
        if not self.pairs:
            pair = socket.socketpair()
            for sock in pair:
                sock.setblocking(False)
            self.pairs.append(pair)
        at = number % len(self.pairs)
        return at, self.pairs[at]

    def do_reader(self, number: int, count: int, ops: list[Any]) -> None:
        """Watch for bytes; take one each time, so many times."""
        at, (sock, _) = self.some_pair(number)
        name = f"pair {at} reader"
        left = [count]

        def readable() -> None:
            with contextlib.suppress(BlockingIOError):
                self.log(f"read {sock.recv(1)!r}")
            left[0] -= 1
            if left[0] <= 0:
                self.log(f"off {self.loop.remove_reader(sock)}")
            for op in ops:
                self.do(op)

        with self.strand(name):
            self.loop.add_reader(sock, readable)

    def do_reader_off(self, number: int) -> None:
        at, (sock, _) = self.some_pair(number)
        with self.strand(f"pair {at} reader"):
            self.log(f"removed {self.loop.remove_reader(sock)}")

    def do_writer(self, number: int, count: int, ops: list[Any]) -> None:
        """Watch for writability; so many times."""
        at, (sock, _) = self.some_pair(number)
        left = [count]
        self.outstanding += 1

        def writable() -> None:
            self.log("writable")
            left[0] -= 1
            if left[0] == 0:
                self.log(f"off {self.loop.remove_writer(sock)}")
                self.arrived()
            for op in ops:
                self.do(op)

        with self.strand(f"pair {at} writer {self.number()}"):
            if self.loop.remove_writer(sock):
                self.arrived()
            self.loop.add_writer(sock, writable)

    def do_feed(self, number: int, count: int) -> None:
        """Send bytes to a watched socket."""
        _, (_, sock) = self.some_pair(number)
        with contextlib.suppress(BlockingIOError):
            sock.send(b"x" * count)

    # -- datagrams ----------------------------------------------------------

    def do_datagrams(self, connected: bool, ops: list[Any]) -> None:
        """Open an endpoint and one that knows it."""
        self.connections += 1
        name = f"d{self.connections}"
        one = Protocols.Datagram(self, f"{name}.a", ops)
        two = Protocols.Datagram(self, f"{name}.b", ops)
        self.endpoints += [one, two]

        async def both() -> None:
            create = self.loop.create_datagram_endpoint
            await create(lambda: one, local_addr=("127.0.0.1", 0))
            address = one.transport.get_extra_info("sockname")
            if connected:
                await create(lambda: two, remote_addr=address)
            else:
                await create(lambda: two, local_addr=("127.0.0.1", 0))
                two.target = address
            one.target = two.transport.get_extra_info("sockname")

        self.spawn(f"{name} open", both())

    def do_datagram(self, number: int, op: Any) -> None:
        if self.endpoints:
            self.endpoints[number % len(self.endpoints)].act(op)

    # -- processes ----------------------------------------------------------

    def do_process(self, command: str, data: int) -> None:
        """Run a shell command to its end, with so many bytes of input."""
        name = f"process {self.number()}"

        async def run() -> None:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_shell(
                command, stdin=pipe, stdout=pipe, stderr=pipe
            )
            out, err = await process.communicate(piece(0, data))
            self.log(f"{process.returncode} {len(out)} {err!r}")

        self.spawn(name, run())

    # -- reader and writer --------------------------------------------------

    def do_streams(self, number: int, a: list[Any], b: list[Any]) -> None:
        """Run two scripts at the ends of a connection, to its end."""
        from diff_ends import talk

        self.connections += 1
        name = f"s{self.connections}"

        async def serve(reader: Any, writer: Any) -> None:
            STRAND.set(f"{name}.b")
            await talk(self, reader, writer, b)
            self.arrived()

        async def both() -> None:
            self.outstanding += 1
            if number % 2:
                server = await asyncio.start_server(serve, "127.0.0.1", 0)
                address = server.sockets[0].getsockname()
                streams = await asyncio.open_connection(*address)
            else:
                path = self.path(name)
                server = await asyncio.start_unix_server(serve, path)
                streams = await asyncio.open_unix_connection(path)
            await talk(self, *streams, a)
            server.close()
            await server.wait_closed()

        self.spawn(f"{name}.a", both())
