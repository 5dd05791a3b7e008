"""No more descriptors, no more threads: what the loop raises and survives."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading

import pytest
from few_descriptors import few_descriptors


@pytest.mark.parametrize("spare", range(8))
def test_making_a_loop(loop_factory, loop_kind, spare):
    if loop_kind == "asyncio":
        pytest.skip("asyncio leaves half a loop to its finaliser")
    first = loop_factory()  # takes what may have been kept
    made = None
    with few_descriptors(spare):
        try:
            made = loop_factory()
        except OSError as exc:
            assert exc.errno == 24
    gc.collect()
    if made is not None:
        assert made.run_until_complete(asyncio.sleep(0.001, 1)) == 1
        made.close()
    assert first.run_until_complete(asyncio.sleep(0.0003, 1)) == 1
    first.close()


@pytest.mark.parametrize("spare", range(3))
def test_running_a_loop(loop_factory, spare):
    loop = loop_factory()
    with few_descriptors(spare), contextlib.suppress(OSError):
        loop.run_until_complete(asyncio.sleep(0.0003, 1))
    gc.collect()
    assert loop.run_until_complete(asyncio.sleep(0.0003, 1)) == 1
    loop.close()


def test_short_sleeps_without_a_descriptor(loop):
    loop.run_until_complete(asyncio.sleep(0))
    with few_descriptors():
        begin = loop.time()
        loop.run_until_complete(asyncio.sleep(0.0003))
        assert loop.time() - begin >= 0.0003


def test_watching_needs_no_descriptor(loop):
    left, right = socket.socketpair()
    loop.run_until_complete(asyncio.sleep(0))
    with few_descriptors():
        loop.add_reader(left, lambda: (left.recv(9), loop.stop()))
        right.send(b"x")
        loop.run_forever()
        loop.remove_reader(left)
    left.close()
    right.close()


def test_connecting(loop):
    async def main():
        with few_descriptors(), pytest.raises(OSError) as caught:
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        assert caught.value.errno == 24

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        loop.run_until_complete(main())


async def test_serving(loop):
    with few_descriptors():
        try:
            server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        except OSError:
            return
    # Up to 3.12 asyncio makes a server of the sockets it could get.
    assert server.sockets == ()
    server.close()


@pytest.mark.reports
def test_accepting(loop, caplog, monkeypatch):
    """asyncio's rule: logged, tried again after a pause, listener alive."""
    caplog.set_level(logging.ERROR, logger="asyncio")
    monkeypatch.setattr(asyncio.constants, "ACCEPT_RETRY_DELAY", 0.02)
    reports = []
    loop.set_exception_handler(
        lambda lo, context: reports.append(context["message"])
    )
    accepted = []

    class Hello(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.append(transport)
            transport.write(b"hello")
            transport.close()

    async def main():
        server = await loop.create_server(Hello, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = [socket.socket() for _ in range(3)]
        for client in clients:
            client.setblocking(False)
        with few_descriptors():
            for client in clients:
                with contextlib.suppress(BlockingIOError):
                    client.connect(address)
            while not reports:
                await asyncio.sleep(0.001)
            assert accepted == []
        for client in clients:
            assert await loop.sock_recv(client, 10) == b"hello"
            client.close()
        server.close()
        await server.wait_closed()

    loop.run_until_complete(asyncio.wait_for(main(), 100))
    assert reports[0] == "socket.accept() out of system resource"
    assert len(accepted) == 3


async def test_a_subprocess(loop):
    with few_descriptors(), pytest.raises(OSError):
        await asyncio.create_subprocess_exec("/bin/true", stdout=-1)
    process = await asyncio.create_subprocess_exec("/bin/true")
    assert await process.wait() == 0


def test_signal_handlers(loop_factory):
    loop = loop_factory()
    with few_descriptors(), contextlib.suppress(OSError, RuntimeError):
        loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    loop.run_forever()
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_no_more_threads(loop, monkeypatch):
    """The job is refused; the loop, and the pool later, work."""

    def start(self):
        raise RuntimeError("can't start new thread")

    async def main():
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await loop.run_in_executor(None, int)
        assert await loop.run_in_executor(None, pow, 2, 5) == 32

    loop.run_until_complete(asyncio.wait_for(main(), 100))


def test_no_second_thread(loop, monkeypatch):
    """Jobs run on the threads there are, or are refused; none is lost."""
    original = threading.Thread.start
    gate = threading.Event()

    async def main():
        first = loop.run_in_executor(None, gate.wait, 100)
        done, refused = [], 0
        with monkeypatch.context() as patch:
            patch.setattr(
                threading.Thread,
                "start",
                lambda self: (_ for _ in ()).throw(RuntimeError("no thread")),
            )
            for number in range(5):
                try:
                    done.append(loop.run_in_executor(None, pow, number, 2))
                except RuntimeError:
                    refused += 1
        assert threading.Thread.start is original
        gate.set()
        await first
        results = await asyncio.gather(*done, return_exceptions=True)
        assert len(results) + refused == 5
        assert await loop.run_in_executor(None, pow, 2, 5) == 32

    loop.run_until_complete(asyncio.wait_for(main(), 100))
