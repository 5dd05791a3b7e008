"""Run by test_system_calls.py in an interpreter with the shim preloaded.

    fault_program.py SHIM FUNCTION ERRNO [COUNT]
    fault_program.py SHIM cut BYTES AGAIN
    fault_program.py SHIM delay MICROSECONDS
    fault_program.py SHIM slow MICROSECONDS
    fault_program.py SHIM coarse MILLISECONDS

Each scenario is run again and again, the first, second, third ... call of
FUNCTION failing, until a run needs no call more.  A scenario may raise
OSError or MemoryError, or see its connections lost; it must not hang, and
after it the process must have no more descriptors than before, and a loop
must work.  With `cut`, nothing fails: every read and write moves at most
BYTES, and each AGAIN-th would block.  With `delay`, the thread is away before
it polls, and its timers must not be missed.  With `slow`, each poll takes so
long, and the polls of busy turns are counted.  With `coarse`, the ticks of the
coarse clock are so long, and the polls of short sleeps are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import faulthandler
import gc
import logging
import os
import select
import signal
import socket
import sys
from asyncio import constants

import fastloop

RAISED = (OSError, MemoryError)
#: No scenario makes more calls of one function than this.
MOST = 120
#: Seconds after which one counts as hanging: it takes milliseconds.
PATIENCE = 10


class Echo(asyncio.Protocol):
    """Sends back what it gets, in two writes."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data[:3])
        self.transport.write(data[3:])


class Client(asyncio.Protocol):
    """Collects what comes until the connection is lost."""

    def __init__(self, loop):
        self.got = b""
        self.enough = loop.create_future()
        self.lost = loop.create_future()

    def data_received(self, data):
        self.got += data
        if len(self.got) >= 10 and not self.enough.done():
            self.enough.set_result(None)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def talk(transport, client):
    """Say something and wait for the answer, or for the end."""
    transport.write(b"hello")
    transport.writelines([b"he", b"ll", b"o"])
    await asyncio.wait(
        [client.enough, client.lost], return_when=asyncio.FIRST_COMPLETED
    )
    if not client.lost.done():
        assert client.got == b"hellohello"
        transport.close()
    await client.lost


async def tcp(loop):
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    try:
        address = server.sockets[0].getsockname()
        async with asyncio.timeout(PATIENCE):
            transport, client = await loop.create_connection(
                lambda: Client(loop), *address
            )
            await talk(transport, client)
    finally:
        server.close()
        await settle()


async def settle():
    for _ in range(4):
        await asyncio.sleep(0)


async def pair(loop):
    left, right = socket.socketpair()
    transports = []
    try:
        for sock, factory in (
            (left, Echo),
            (right, lambda: Client(loop)),
        ):
            sock.setblocking(False)
            made = await loop.create_connection(factory, sock=sock)
            transports.append(made[0])
            client = made[1]
        async with asyncio.timeout(PATIENCE):
            await talk(transports[1], client)
    finally:
        for transport in transports:
            transport.abort()
        await settle()
        left.close()
        right.close()


async def bulk(loop):
    """More than the kernel takes at once: the write queue is used."""
    left, right = socket.socketpair()
    right.setblocking(False)
    left.setblocking(False)
    lost = loop.create_future()
    got = [0]

    class Sink(asyncio.Protocol):
        def data_received(self, data):
            got[0] += len(data)

        def connection_lost(self, exc):
            if not lost.done():
                lost.set_result(exc)

    transports = []
    try:
        for sock, factory in ((left, Sink), (right, asyncio.Protocol)):
            made = await loop.create_connection(factory, sock=sock)
            transports.append(made[0])
        for _ in range(4):
            transports[1].write(bytes(200_000))
        transports[1].close()
        async with asyncio.timeout(PATIENCE):
            await lost
        if lost.result() is None and not FAILED():
            assert got[0] == 800_000
    finally:
        for transport in transports:
            transport.abort()
        await settle()
        left.close()
        right.close()


class Datagrams(asyncio.DatagramProtocol):
    """Sends back what it gets, or collects it."""

    def __init__(self, loop, echoes):
        self.echoes = echoes
        self.got = []
        self.lost = loop.create_future()

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        if self.echoes:
            self.transport.sendto(data, addr)
        else:
            self.got.append(data)

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def udp(loop):
    """A datagram may be lost to an error; the next ones are not."""
    opened = []
    try:
        for echoes in (True, False):
            transport, protocol = await loop.create_datagram_endpoint(
                lambda echoes=echoes: Datagrams(loop, echoes),
                local_addr=("127.0.0.1", 0),
            )
            opened.append(protocol)
        server, client = opened
        name = server.transport.get_extra_info("sockname")
        for number in range(10 if name else 0):
            client.transport.sendto(b"%d" % number, name)
            patience = 30
            while len(client.got) <= number and patience:
                await asyncio.sleep(0)
                patience -= bool(FAILED())
        if not FAILED() and name:
            assert client.got == [b"%d" % n for n in range(10)]
    finally:
        for protocol in opened:
            protocol.transport.abort()
        for protocol in opened:
            await protocol.lost


async def sockets(loop):
    """sock_* that wait and that need not."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    reader = loop.create_task(loop.sock_recv(left, 10))
    try:
        async with asyncio.timeout(PATIENCE):
            await settle()
            await loop.sock_sendall(right, b"hello")
            data = await reader
            while len(data) < 5:
                data += await loop.sock_recv(left, 5)
            assert data == b"hello"
            await loop.sock_sendall(right, b"again")
            got, name = await loop.sock_recvfrom(left, 5)
            assert got == b"again"[: len(got)]
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        left.close()
        right.close()


async def kept(loop):
    """sock_* of a TCP connection, whose registration is kept."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    tasks = []
    near.setblocking(False)
    far.setblocking(False)
    try:
        async with asyncio.timeout(PATIENCE):
            for _ in range(3):
                tasks.append(loop.create_task(loop.sock_recv(near, 10)))
                await settle()
                await loop.sock_sendall(far, b"hello")
                assert await tasks[-1] == b"hello"
            size = 1 << 22
            sending = loop.create_task(loop.sock_sendall(near, bytes(size)))
            tasks.append(sending)
            sending.add_done_callback(lambda _: near.shutdown(socket.SHUT_WR))
            while data := await loop.sock_recv(far, 1 << 20):
                size -= len(data)
            await sending
            assert not size
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        near.close()
        far.close()


async def watchers(loop):
    left, right = socket.socketpair()
    left.setblocking(False)
    try:
        seen = loop.create_future()
        loop.add_reader(left, lambda: seen.done() or seen.set_result(1))
        loop.add_writer(right, int)
        await settle()
        right.send(b"x")
        async with asyncio.timeout(PATIENCE):
            await seen
    finally:
        loop.remove_reader(left)
        loop.remove_writer(right)
        left.close()
        right.close()


async def timers(loop):
    for delay in (0.0002, 0.0015):
        begin = loop.time()
        await asyncio.sleep(delay)
        assert loop.time() - begin >= delay
    handles = [loop.call_later(100 + n % 7, int) for n in range(300)]
    for handle in handles:
        handle.cancel()


async def callbacks(loop):
    seen = []
    for number in range(3000):
        loop.call_soon(seen.append, number)
        loop.call_soon_threadsafe(seen.append, number)
    await settle()
    assert len(seen) == 6000


async def executor(loop):
    assert await loop.run_in_executor(None, pow, 2, 5) == 32
    results = await asyncio.gather(
        *[loop.run_in_executor(None, pow, n, 2) for n in range(20)],
        return_exceptions=True,
    )
    for number, result in enumerate(results):
        assert result == number**2 or isinstance(result, RAISED)


async def signals(loop):
    seen = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, seen.set_result, None)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        async with asyncio.timeout(PATIENCE):
            await seen
    finally:
        loop.remove_signal_handler(signal.SIGUSR1)


SCENARIOS = [
    callbacks,
    timers,
    watchers,
    signals,
    executor,
    pair,
    tcp,
    bulk,
    udp,
    sockets,
    kept,
]


def open_fds():
    """Return what each open descriptor is."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    if "anon_inode:[timerfd]" in found:
        found.remove("anon_inode:[timerfd]")  # a kept loop has one or not
    return sorted(found)


def play(scenario):
    """Run a scenario on a loop of its own; return what it raised."""
    loop = None
    raised = None
    try:
        loop = fastloop.new_event_loop()
        loop.set_exception_handler(lambda lo, context: None)
        loop.run_until_complete(scenario(loop))
    except TimeoutError:
        raise AssertionError("hangs") from None
    except RAISED as exc:
        raised = repr(exc)
    finally:
        SHIM.fault_arm(b"", 0, 0, 0)
        if loop is not None:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
    return raised


def works():
    """A loop made now does its work."""
    loop = fastloop.new_event_loop()
    assert loop.run_until_complete(asyncio.sleep(0.0002, 5)) == 5
    loop.close()


def sweep(scenario, name, code, count):
    """Let each call of the function fail in turn; return how many did."""
    play(scenario)
    works()
    gc.collect()
    before = open_fds()
    for skip in range(MOST):
        SHIM.fault_arm(name, skip, count, code)
        global FAILED
        FAILED = SHIM.fault_hits
        faulthandler.dump_traceback_later(4 * PATIENCE, exit=True)
        try:
            raised = play(scenario)
        except BaseException:
            print(scenario.__name__, "call", skip, flush=True)
            raise
        hits = SHIM.fault_hits_last()
        works()
        os.fstat(0)  # nobody has closed it
        gc.collect()
        faulthandler.cancel_dump_traceback_later()
        after = open_fds()
        assert len(after) <= len(before), (
            scenario.__name__,
            skip,
            raised,
            before,
            after,
        )
        if not hits:
            assert raised is None, (scenario.__name__, skip, raised)
            return skip
    return MOST


def cut(size, again):
    """Run what moves data with short reads and writes."""
    SHIM.fault_cut(ctypes.c_size_t(size), ctypes.c_long(again))
    faulthandler.dump_traceback_later(8 * PATIENCE, exit=True)
    scenarios = [pair, tcp, udp, sockets] + ([bulk] if size > 100 else [])
    for scenario in scenarios:
        assert play(scenario) is None, scenario.__name__
    print("total", len(scenarios))


def delay(microseconds):
    """Let deadlines pass between setting the timer and polling."""
    SHIM.fault_delay(ctypes.c_long(microseconds))
    faulthandler.dump_traceback_later(4 * PATIENCE, exit=True)
    loop = fastloop.new_event_loop()
    for seconds in (0.001, 0.002, 0.0035):
        assert loop.run_until_complete(asyncio.sleep(seconds, 5)) == 5
    loop.close()
    print("total", 3)


def slow(microseconds):
    """Let polls take long; print how many a thousand busy turns make."""
    SHIM.fault_delay(ctypes.c_long(microseconds))
    faulthandler.dump_traceback_later(4 * PATIENCE, exit=True)
    loop = fastloop.new_event_loop()

    async def main():
        for _ in range(1000):
            await asyncio.sleep(0)

    SHIM.fault_arm(b"epoll_wait", 0, 0, 0)
    loop.run_until_complete(main())
    print("total", SHIM.fault_seen())
    loop.close()


def coarse(milliseconds):
    """Let the coarse clock lag; print how often a sleep has the loop poll."""
    faulthandler.dump_traceback_later(4 * PATIENCE, exit=True)
    SHIM.fault_coarse(ctypes.c_long(milliseconds))
    loop = fastloop.new_event_loop()

    async def main():
        for _ in range(100):
            await asyncio.sleep(0.001)

    SHIM.fault_arm(b"epoll_wait", 0, 0, 0)
    loop.run_until_complete(main())
    print("total", SHIM.fault_seen() // 100)
    loop.close()


def main():
    if sys.argv[2] == "delay":
        delay(int(sys.argv[3]))
        return
    if sys.argv[2] == "slow":
        slow(int(sys.argv[3]))
        return
    if sys.argv[2] == "coarse":
        coarse(int(sys.argv[3]))
        return
    if sys.argv[2] == "cut":
        cut(int(sys.argv[3]), int(sys.argv[4]))
        return
    name, code = sys.argv[2].encode(), getattr(errno, sys.argv[3])
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    logging.disable()
    constants.ACCEPT_RETRY_DELAY = 0.02
    # A process without an input may have a set of another's there.
    with select.epoll() as another:
        os.dup2(another.fileno(), 0)
    total = 0
    scenarios = list(SCENARIOS)
    if count > 1 and code == errno.EAGAIN:
        # No system says again and again that a ready one is not: each time
        # the kept registration is looked at after a second only.
        scenarios.remove(kept)
    for scenario in scenarios:
        print(scenario.__name__, flush=True)
        failed = sweep(scenario, name, code, count)
        print("   failed", failed, flush=True)
        total += failed
    print("total", total)


if __name__ == "__main__":
    SHIM = ctypes.CDLL(sys.argv[1])
    FAILED = SHIM.fault_hits
    main()
