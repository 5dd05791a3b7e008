"""Reports of debug mode: origins, slow callbacks, unclosed objects."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import select
import socket
import time
import warnings

import pytest
from net_helpers import Peer, Recorder, iterations, tcp_socketpair


def nothing(*args):
    pass


@pytest.fixture
def logged(caplog):
    """Return the asyncio logger's texts of a level, as they come."""
    caplog.set_level(logging.DEBUG, logger="asyncio")

    def texts(level):
        return [
            record.getMessage()
            for record in caplog.records
            if record.name == "asyncio" and record.levelno == level
        ]

    return texts


def test_fd_callbacks_know_where_they_were_added(debug):
    near, far = socket.socketpair()
    with near, far:
        debug.add_reader(near, nothing)
        (key,) = [
            k for k in debug._selector.get_map().values() if k.fileobj is near
        ]
        names = [frame.name for frame in key.data[0]._source_traceback]
        assert "test_fd_callbacks_know_where_they_were_added" in names
        debug.remove_reader(near)


@pytest.mark.parametrize("name", ["connection_made", "connection_lost"])
def test_reports_have_the_source_traceback_of_open_and_close(
    debug, run, reports, name
):
    """Whose call of the transport's it was, asyncio's own or ours."""

    def fail(self, argument):
        raise LookupError(name)

    protocol = type("Protocol", (asyncio.Protocol,), {name: fail})

    async def opened_here(sock):
        return await debug.connect_accepted_socket(protocol, sock)

    async def main():
        near, far = tcp_socketpair()
        with far:
            transport, _ = await opened_here(near)
            transport.abort()
            await iterations(3)

    run(main())
    (report,) = reports
    assert report["message"].startswith("Exception in callback ")
    functions = [frame.name for frame in report["source_traceback"]]
    whose = "opened_here" if name == "connection_made" else "main"
    assert whose in functions


async def test_blocking_sockets_are_refused(debug):
    """The other calls of sockets are in sock/test_socket_calls.py."""
    near, far = tcp_socketpair()
    with near, far, open(__file__, "rb") as file:
        with pytest.raises(ValueError, match="socket must be non-block"):
            await debug.sock_sendfile(near, file)
        with pytest.raises(ValueError, match="socket must be non-block"):
            await debug.sock_connect(near, ("127.0.0.1", 9))


class Kept(asyncio.Protocol, asyncio.DatagramProtocol):
    """Holds no reference to its transport."""


async def left_stream(loop):
    near, far = tcp_socketpair()
    return (await loop.create_connection(Kept, sock=near))[0], far.close


async def left_datagrams(loop):
    transport, _ = await loop.create_datagram_endpoint(
        Kept, local_addr=("127.0.0.1", 0)
    )
    return transport, nothing


async def left_read_pipe(loop):
    near, far = os.pipe()
    transport, _ = await loop.connect_read_pipe(Kept, open(near, "rb", 0))
    return transport, functools.partial(os.close, far)


async def left_write_pipe(loop):
    far, near = os.pipe()
    transport, _ = await loop.connect_write_pipe(Kept, open(near, "wb", 0))
    return transport, functools.partial(os.close, far)


LEFT = [left_stream, left_datagrams, left_read_pipe, left_write_pipe]


@pytest.mark.parametrize("make", LEFT)
def test_unclosed_transports_name_themselves(loop_factory, make):
    """The warning's source is the transport, for tracemalloc."""
    loop = loop_factory()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        transport, close_far = loop.run_until_complete(make(loop))
        name = type(transport).__name__
        loop.close()
        del loop, transport
        gc.collect()
    close_far()
    (warning,) = [
        w for w in caught if str(w.message).startswith("unclosed transport")
    ]
    assert warning.category is ResourceWarning
    assert type(warning.source).__name__ == name


@pytest.mark.parametrize("does", ["read", "write", "write later"])
async def test_transports_log_the_error_that_ends_them(debug, caplog, does):
    """It is logged at debug level, and is what connection_lost gets."""
    caplog.set_level(logging.DEBUG, logger="asyncio")
    near, far = tcp_socketpair()
    transport, protocol = await debug.create_connection(Recorder, sock=near)
    if does != "read":
        transport.pause_reading()
    if does == "write later":
        transport.write(bytes(1 << 24))
        await iterations(2)
    Peer(far).reset()
    if does == "write":
        transport.write(b"x")
    exc = await protocol.wait_lost()
    (record,) = (r for r in caplog.records if "Fatal" in r.getMessage())
    assert record.levelno == logging.DEBUG
    word = does.split()[0]
    assert f"Fatal {word} error on socket transport" in record.getMessage()
    assert record.exc_info[1] is exc


def slow_texts(logged):
    return [text for text in logged(logging.WARNING) if "took" in text]


def test_a_slow_reader_is_named_and_not_the_writer_of_its_fd(debug, logged):
    debug.slow_callback_duration = 0.02
    near, far = tcp_socketpair()

    def slow_reader():
        time.sleep(0.03)
        debug.remove_reader(near)

    def quick_writer():
        debug.remove_writer(near)
        debug.stop()

    with near, far:
        far.send(b"x")
        select.select([near], [], [], 10)
        debug.add_reader(near, slow_reader)
        debug.add_writer(near, quick_writer)
        debug.run_forever()
    (text,) = slow_texts(logged)
    assert "slow_reader" in text


def test_a_slow_callback_is_named_and_not_the_handle_that_it_ran(
    debug, logged
):
    debug.slow_callback_duration = 0.02

    def slow():
        inner._run()
        time.sleep(0.03)
        debug.stop()

    debug.call_soon(slow)
    inner = debug.call_soon(nothing)
    debug.run_forever()
    (text,) = slow_texts(logged)
    assert "slow()" in text
