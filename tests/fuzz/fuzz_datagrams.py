"""Batches of datagrams: each arrives whole, once, in order, from its sender.

A transport talks with plain sockets by Unix datagrams, which are never lost,
over IPv4 or over IPv6.  An input is the sending end, the sizes, when they
are read, and what a protocol does from within its callbacks.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import Any

from harness import Run, Spoiled, Tape, act, check, note, one_iteration

import fastloop

INSTRUMENTED = ["fastloop.connections"]
MOST_BYTES = 400
FAMILIES = (socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
#: Of what a socket of the network may hold, so that none is lost.
FLYING = 60_000
MOST = 60


class Case(asyncio.DatagramProtocol):
    """A transport, two peers, and what is on the way between them."""

    def __init__(self, loop: Any, tape: Tape) -> None:
        self.loop, self.tape, self.depth, self.serial = loop, tape, 0, 0
        family = tape.pick(FAMILIES)
        self.unix = family == socket.AF_UNIX
        self.peers = [self.bound(family) for _ in range(2)]
        self.names = [peer.getsockname() for peer in self.peers]
        near = self.bound(family)
        self.connected = tape.byte() % 4 == 0
        if self.connected:
            near.connect(self.names[0])
        self.most = 60_000
        if self.unix and tape.byte() % 2:
            self.most = 1000  # more than that is refused
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.coming: list[tuple[bytes, Any]] = []
        self.going: list[list[bytes]] = [[], []]
        self.flying = 0
        self.made = self.lost = self.full = self.paused = self.rough = False
        self.transport, _ = loop.run_until_complete(
            loop.create_datagram_endpoint(lambda: self, sock=near)
        )
        self.where = near.getsockname()

    @staticmethod
    def bound(family: int) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        hosts = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
        sock.bind((hosts[family], 0) if family in hosts else "")
        sock.setblocking(False)
        return sock

    # -- the protocol --------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        check(not self.made, "made twice")
        self.made = True

    def connection_lost(self, exc: BaseException | None) -> None:
        check(self.made and not self.lost, "lost twice")
        self.lost = True
        act(self, self.lost, "lost")

    def datagram_received(self, data: bytes, sender: Any) -> None:
        check(not self.paused, "received while paused")
        check(not self.transport.is_closing(), "received while closing")
        check(self.coming, "one more than were sent", len(data))
        wanted = self.coming.pop(0)
        self.flying -= len(wanted[0])
        check((data, sender) == wanted, "another datagram", data[:9], sender)
        act(self, self.lost, "received", len(data))

    def error_received(self, exc: OSError) -> None:
        check(self.rough, "an error", exc)
        act(self, self.lost, "error", exc)

    def pause_writing(self) -> None:
        check(not self.full, "paused twice")
        self.full = True
        act(self, self.lost, "pause")

    def resume_writing(self) -> None:
        check(self.full, "resumed, not paused")
        self.full = False
        act(self, self.lost, "resume")

    # -- steps ---------------------------------------------------------------

    def datagram(self) -> bytes:
        """Return one that differs from the others."""
        self.serial += 1
        size = self.tape.size(self.most)
        return (b"%08d" % self.serial * (size // 8 + 1))[: max(8, size)]

    def come(self) -> None:
        """A peer sends some, each after the others were."""
        at = 0 if self.connected else self.tape.byte() % 2
        peer = self.peers[at]
        for _ in range(self.tape.byte() % 40):
            data = self.datagram()
            if not self.unix and (
                self.flying + len(data) > FLYING or len(self.coming) > MOST
            ):
                return
            if self.rough or self.lost or self.transport.is_closing():
                return
            try:
                peer.sendto(data, self.where)
            except OSError:
                return
            self.flying += len(data)
            self.coming.append((data, self.names[at]))

    def go(self) -> None:
        """The transport sends some, to both peers in turn."""
        transport, tape = self.transport, self.tape
        for _ in range(tape.byte() % 40):
            to = 0 if self.connected else tape.byte() % 2
            data = self.datagram()
            if not self.unix and (
                sum(map(len, self.going[to])) + len(data) > FLYING
                or len(self.going[to]) > MOST
            ):
                return
            if self.lost:
                return
            self.rough |= transport.is_closing()
            self.going[to].append(data)
            data = tape.pick((bytes, bytearray, memoryview))(data)
            note("sendto", to, len(data))
            if self.connected:
                transport.sendto(data)
            else:
                transport.sendto(data, self.names[to])

    def drain(self) -> bool:
        """The peers read what arrived; whether there was any."""
        some = False
        for peer, going in zip(self.peers, self.going, strict=True):
            while True:
                try:
                    data = peer.recv(1 << 17)
                except OSError:
                    break
                some = True
                while self.rough and going and data != going[0]:
                    going.pop(0)
                check(going, "one more than were sent", len(data))
                check(data == going.pop(0), "another datagram", data[:9])
        return some

    def end(self) -> None:
        how = self.tape.byte() % 8
        note("end", how)
        if how < 3:
            self.rough = True
            self.transport.abort()
        elif how < 6:
            self.coming.clear()
            self.transport.close()
        elif self.unix and how == 6:
            self.rough = True
            self.peers[1].close()

    def look(self) -> None:
        how = self.tape.byte() % 8
        note("look", how)
        if how == 0:
            self.transport.set_write_buffer_limits(self.tape.size())
        elif how == 1:
            gc.collect()
        elif how == 2:
            repr(self.transport)
        elif how == 3:
            check(self.transport.get_write_buffer_size() >= 0)
        elif how == 4:
            self.transport.get_extra_info("socket")

    def step(self) -> None:
        """Do what the input says next."""
        op = self.tape.byte() % 16
        if op < 4:
            self.come()
        elif op < 7:
            self.go()
        elif op < 9:
            self.drain()
        elif op < 12 and self.depth == 0:
            one_iteration(self.loop)
        elif op == 12:
            self.end()
        elif op == 13:
            self.look()
        elif op == 14 and hasattr(self.transport, "pause_reading"):
            self.paused = not self.paused
            note("pause" if self.paused else "resume")
            name = "pause_reading" if self.paused else "resume_reading"
            getattr(self.transport, name)()

    def finish(self) -> None:
        """Let all arrive, and see that nothing is missing."""
        self.tape.at = len(self.tape.data)
        if self.paused:
            self.paused = False
            self.transport.resume_reading()
        for _ in range(2000):
            one_iteration(self.loop)
            one_iteration(self.loop)
            waits = self.transport.get_write_buffer_size()
            if not (self.drain() or waits or self.coming) or self.lost:
                break
        self.drain()
        if not self.rough:
            check(not (self.coming or any(self.going)), "some are missing")
        self.transport.abort()
        one_iteration(self.loop)
        one_iteration(self.loop)
        check(self.lost, "not lost")
        for peer in self.peers:
            peer.close()


def start() -> Run:
    """Make the loop that all inputs share."""
    loop: Any = fastloop.new_event_loop()
    reports: list[Any] = []
    loop.set_exception_handler(
        lambda _, context: reports.append(context.get("exception"))
    )

    def run(tape: Tape) -> None:
        reports.clear()
        case = Case(loop, tape)
        while tape:
            try:
                case.step()
            except Spoiled:
                case.depth = 0
        case.finish()
        check(all(isinstance(exc, Spoiled) for exc in reports), reports)

    return run
