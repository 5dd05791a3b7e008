"""A busy day's events on one loop, in half an hour.

    python tests/load/day.py [--share 1] [--loop asyncio]

A billion callbacks, 100 million timers of which every second one is
cancelled, 10 million connections accepted, echoed to and closed, 100 million
registrations, 10 million calls from another thread: counted, and after each
kind the memory and the descriptors have to be where they were after its
first hundredth.  `--share 0.01` makes a hundredth of all.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable

#: Growth of memory that the allocator explains.
GROWTH_KIB = 2048
#: Of one kind of event, so many at a time.
BATCH = 100_000
CLIENTS = 50

Loop = asyncio.AbstractEventLoop
#: Makes some events and returns how many.
Round = Callable[[Loop], int]


class Echo(asyncio.Protocol):
    """Sends back what comes first, and closes."""

    ended = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        assert exc is None, exc
        Echo.ended += 1


def turn(loop: Loop) -> None:
    """Run one iteration."""
    loop.call_soon(loop.stop)
    loop.run_forever()


def callbacks(loop: Loop) -> int:
    counter = itertools.count()
    call_soon, ran = loop.call_soon, counter.__next__
    for _ in range(BATCH):
        call_soon(ran)
    turn(loop)
    assert next(counter) == BATCH
    return BATCH


def timers(loop: Loop) -> int:
    counter = itertools.count()
    ran, now = counter.__next__, loop.time()
    for _ in range(BATCH // 2):
        loop.call_at(now + random.random() / 100, ran)
        loop.call_at(now + random.random() * 1000, ran).cancel()
    loop.call_at(now + 0.01, loop.stop)
    loop.run_forever()
    assert next(counter) == BATCH // 2
    return BATCH


def registrations(loop: Loop) -> int:
    near, far = socket.socketpair()
    for _ in range(BATCH):
        loop.add_reader(near, print)
        loop.remove_reader(near)
    near.close()
    far.close()
    return BATCH


def calls_of_a_thread(loop: Loop) -> int:
    counter = itertools.count()

    def call() -> None:
        for _ in range(BATCH):
            loop.call_soon_threadsafe(counter.__next__)
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=call)
    thread.start()
    loop.run_forever()
    thread.join()
    assert next(counter) == BATCH
    return BATCH


def connections(address: str) -> Round:
    def accept(loop: Loop) -> int:
        expected = Echo.ended + CLIENTS
        clients = [socket.socket(socket.AF_UNIX) for _ in range(CLIENTS)]
        for client in clients:
            client.connect(address)
            client.sendall(b"x")
        while Echo.ended < expected:
            turn(loop)
        for client in clients:
            assert client.recv(9) == b"x"
            assert client.recv(9) == b""
            client.close()
        return CLIENTS

    return accept


def state() -> tuple[int, int]:
    """Resident memory in KiB, and open descriptors."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    page_kib = os.sysconf("SC_PAGE_SIZE") // 1024
    return pages * page_kib, len(os.listdir("/proc/self/fd"))


def run(name: str, loop: Loop, one_round: Round, number: int) -> bool:
    """Make so many events; true where they left nothing."""
    done, before = 0, (0, 0)
    began = time.monotonic()
    while done < number:
        done += one_round(loop)
        if before == (0, 0) and done >= number / 100:
            before = state()
    after = state()
    kept = after[0] <= before[0] + GROWTH_KIB and after[1] <= before[1]
    print(
        f"day: {done:,} {name} in {time.monotonic() - began:.0f} s,"
        f" {before[0]} -> {after[0]} KiB,"
        f" {before[1]} -> {after[1]} descriptors"
        f"{'' if kept else ': WRONG, it grew'}",
        flush=True,
    )
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--share", type=float, default=1)
    parser.add_argument(
        "--loop", choices=("asyncio", "fastloop"), default="fastloop"
    )
    args = parser.parse_args()
    if args.loop == "fastloop":
        import fastloop

        loop = fastloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    reports: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    with tempfile.TemporaryDirectory(prefix="fastloop-day-") as folder:
        address = folder + "/s"
        server = loop.run_until_complete(
            loop.create_unix_server(Echo, address)
        )
        kept = [
            run(name, loop, one_round, int(millions * 1e6 * args.share))
            for name, one_round, millions in (
                ("callbacks", callbacks, 1000),
                ("timers", timers, 100),
                ("registrations", registrations, 100),
                ("calls of another thread", calls_of_a_thread, 10),
                ("connections", connections(address), 10),
            )
        ]
        server.close()
        loop.run_until_complete(server.wait_closed())
    loop.close()
    for context in reports:
        print("day: reported:", context)
    return 0 if all(kept) and not reports else 1


if __name__ == "__main__":
    sys.exit(main())
