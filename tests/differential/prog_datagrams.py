"""What programs do with datagrams."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
import socket
import time
from typing import Any

from prog_ends import around
from prog_peer import BLOCK, PATIENCE

Address = Any
#: Nets whose datagrams are never lost.
SURE = ("unix", "unix-to")
#: Of "many"; a mutated program may ask for as many as it has bytes elsewhere.
MOST_AT_ONCE = 300
#: From two to the power of 16 on, no IPv4 packet has the room.
SIZES = [0, 1, 10, 1000, 1400, 9000, 30_000, 70_000]


def draw_datagrams(rng: random.Random) -> tuple[Any, ...]:
    """Draw an endpoint and what is done with it."""
    net = rng.choice(["udp", "udp-to", "udp6", "unix", "unix-to", "unix"])
    conf: dict[str, Any] = {}
    if rng.random() < 0.3:
        conf["buffer"] = rng.choice([2048, 16_384, 262_144])
    if rng.random() < 0.3:
        conf["react"] = rng.choice(["raise", "close", "abort", "answer"])
    ops: list[Any] = []
    for _ in range(rng.randint(1, 6)):
        name = rng.choice(
            ["send", "send", "many", "far", "far", "take", "turn", "rest"]
            + ["limits", "close", "abort", "gone"]
        )
        few = [rng.choice(SIZES) for _ in range(rng.randint(1, 4))]
        args: dict[str, list[Any]] = {
            "send": few,
            "far": few,
            "many": [rng.choice([12, 40, 300]), rng.choice(SIZES[1:-1])],
            "take": [rng.choice([1, 5, 100])],
            "turn": [rng.randrange(4)],
            "limits": [rng.choice([0, 1, 1000, 65_536])],
        }
        ops.append((name, *args.get(name, [])))
    return ("datagrams", net, conf, ops)


def is_within(some: list[bytes], all_of_them: list[bytes]) -> bool:
    """Whether some are of them, in their order."""
    left = iter(all_of_them)
    return all(any(one == other for other in left) for one in some)


class Endpoint(asyncio.DatagramProtocol):
    """End A, and end B: a plain socket."""

    transport: asyncio.DatagramTransport

    def __init__(self, ops: DatagramOps, name: str, conf: Any) -> None:
        self.log = functools.partial(ops.log, strand=name)
        self.conf = conf
        self.sent: list[bytes] = []
        self.promised: list[bytes] = []  # of those, before an end
        self.got: list[bytes] = []
        self.far_sent: list[bytes] = []
        self.far_got: list[bytes] = []
        self.rough = self.paused = self.ended = self.missing = False
        self.serial = 0
        self.to: Address = None

    def open_sockets(self, net: str) -> socket.socket:
        family = {"udp6": socket.AF_INET6}.get(net, socket.AF_INET)
        if net in SURE:
            family = socket.AF_UNIX
        here: Address = "" if net in SURE else ("localhost", 0)
        self.far = socket.socket(family, socket.SOCK_DGRAM)
        near = socket.socket(family, socket.SOCK_DGRAM)
        for one in (self.far, near):
            one.bind(here)  # an abstract name, for AF_UNIX
            one.setblocking(False)
            if "buffer" in self.conf:
                size = self.conf["buffer"]
                one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        if net.endswith("-to"):
            self.to = self.far.getsockname()
        else:
            near.connect(self.far.getsockname())
        self.near = near.getsockname()
        return near

    def piece(self, size: int) -> bytes:
        self.serial += 1
        return BLOCK[self.serial : self.serial + size]

    # -- the protocol -------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.log("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        # No line of the trace: fastloop receives several in one iteration.
        self.got.append(data)
        if self.ended:
            self.log("got one after the end")
        react = self.conf.get("react")
        if react in ("close", "abort"):
            getattr(self, f"do_{react}")()
        elif react == "answer":
            self.do_send(len(data) // 2)
        elif react == "raise":
            self.rough = True
            raise OSError("provoked")

    def error_received(self, exc: Exception) -> None:
        self.rough = True
        self.log(f"error {type(exc).__name__}{around(exc)}")

    def pause_writing(self) -> None:
        self.log("paused" + " again" * self.paused)
        self.paused = True

    def resume_writing(self) -> None:
        if not self.rough:  # asyncio may forget it after an error
            self.log("resumed" + " again" * (not self.paused))
        self.paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        again = " again" * self.ended
        self.log(f"lost {type(exc).__name__}{again}{around()}")
        self.ended = True

    # -- operations ---------------------------------------------------------

    def do_send(self, *sizes: int) -> None:
        for size in sizes:
            data = self.piece(size)
            self.sent.append(data)
            if not self.transport.is_closing():
                self.promised.append(data)
            self.transport.sendto(data, self.to)

    def do_many(self, count: int, size: int) -> None:
        self.do_send(*[size] * min(count, MOST_AT_ONCE))

    def do_far(self, *sizes: int) -> None:
        for size in sizes:
            data = self.piece(size)
            with contextlib.suppress(OSError):
                self.far.sendto(data, self.near)
                self.far_sent.append(data)

    def do_take(self, count: int) -> None:
        with contextlib.suppress(OSError):
            for _ in range(count):
                data = self.far.recv(1 << 17, socket.MSG_DONTWAIT)
                self.far_got.append(data)

    def do_limits(self, high: int) -> None:
        self.transport.set_write_buffer_limits(high)  # type: ignore

    def do_close(self) -> None:
        self.transport.close()

    def do_abort(self) -> None:
        self.rough = True
        self.transport.abort()

    def do_gone(self) -> None:
        self.rough = True
        self.far.close()

    def waits(self, net: str) -> bool:
        """Whether something more must be received."""
        open_still = not (self.rough or self.transport.is_closing())
        return net in SURE and open_still and self.got != self.far_sent

    def wrong(self, net: str) -> str:
        """Return what is wrong at the end."""
        if not is_within(self.far_got, self.sent):
            return "datagrams that were sent arrived wrong"
        if not is_within(self.got, self.far_sent):
            return "datagrams arrived wrong"
        full = [data for data in self.promised if data]
        if net in SURE and not self.rough:
            if not is_within(full, self.far_got):
                return f"{len(self.far_got)} of {len(full)} were sent"
        if self.missing:
            return f"{len(self.got)} of {len(self.far_sent)} were received"
        return "" if self.ended else "connection_lost was not called"


class DatagramOps:
    """Part of a World, whose attributes it uses."""

    def start_datagram_ops(self) -> None:
        self.endpoints = 0

    def op_datagrams(self, net: str, conf: Any, ops: list[Any]) -> None:
        """Open an endpoint, do some operations, and close it."""
        if not self.leaving:
            if conf.get("react") == "answer":
                self.wild = True  # fastloop receives several at once
            self.endpoints += 1
            name = f"datagrams {self.endpoints}"
            coro = self.datagrams(Endpoint(self, name, conf), net, ops)
            self.tasks.append(self.loop.create_task(coro))

    async def datagrams(self, end: Endpoint, net: str, ops: list[Any]) -> None:
        near = end.open_sockets(net)
        with end.far:
            await self.loop.create_datagram_endpoint(lambda: end, sock=near)
            try:
                for name, *args in ops:
                    await self.datagram_op(end, name, *args)
                until = time.monotonic() + PATIENCE
                while end.waits(net) and time.monotonic() < until:
                    end.do_take(1000)
                    await asyncio.sleep(0.0005)
                end.missing = end.waits(net)
                end.transport.close()
                while not end.ended and time.monotonic() < until:
                    end.do_take(1000)
                    self.activity += 1
                    await asyncio.sleep(0.0005)
            except asyncio.CancelledError:
                self.wild = end.rough = True  # at whatever moment
                end.transport.abort()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            end.do_take(1000)
        if end.wrong(net) and not self.loose:
            self.problem(f"{net}: {end.wrong(net)}")

    async def datagram_op(self, end: Endpoint, name: str, *args: int) -> None:
        if name == "turn":
            for _ in range(args[0]):
                await asyncio.sleep(0)
        elif name == "rest":
            await asyncio.sleep(0.001)
        else:
            if end.transport.is_closing():
                self.wild = True  # asyncio's transport breaks if one blocks
            try:
                getattr(end, f"do_{name}")(*args)
            except Exception as exc:
                # After the end asyncio raises if nothing is queued.
                if not end.ended:
                    end.log(f"{name} raised {type(exc).__name__}")
