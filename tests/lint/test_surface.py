"""fastloop's surface is that of asyncio on the running version.

Both are introspected: a method that is missing, a parameter less, another
kind of parameter or another default is a difference that some program meets.
What the calls do is for the tests of behaviour.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import fastloop

CERTS = Path(__file__).resolve().parents[1] / "certs"

#: What fastloop has and asyncio has not.
OWN = {"enable_metrics", "metrics", "slow_callback_hook"}

#: Attributes of asyncio's BaseEventLoop that libraries are known to read;
#: some are of later versions.
PRIVATE_LOOP = """
_add_callback _add_reader _add_writer _asyncgens _call_soon _check_callback
_check_closed _check_running _check_thread _clock_resolution _closed
_current_handle _debug _default_executor _exception_handler _internal_fds
_make_socket_transport _make_ssl_transport _ready _remove_reader
_remove_writer _run_once _scheduled _selector _set_coroutine_origin_tracking
_signal_handlers _start_serving _stop_serving _stopping _task_factory
_thread_id _timer_cancelled_count _timer_handle_cancelled _transports
_unix_server_sockets _write_to_self
""".split()
PRIVATE_HANDLE = """
_callback _args _context _loop _cancelled _source_traceback _repr _run
_repr_info _when _scheduled
""".split()
#: What stream transports are asked for besides their methods.
PRIVATE_TRANSPORT = """
_loop _sock _protocol _extra _closing _conn_lost _paused _eof _server
_force_close _fatal_error _protocol_paused _sendfile_compatible
_start_tls_compatible max_size
""".split()
EXTRAS = """
socket sockname peername sslcontext ssl_object peercert cipher compression
pipe subprocess
""".split()


def public(owner: Any) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


def described(method: Any) -> list[tuple[Any, ...]]:
    parameters = inspect.signature(method).parameters.values()
    return [(p.name, p.kind.name, p.default) for p in parameters]


def check(ours: Any, theirs: Any, own: set[str] | None = None) -> None:
    """The same public names, and the same parameters of each method."""
    names = public(theirs)
    assert public(ours) == names | (own or set())
    for name in names:
        method = getattr(theirs, name)
        if inspect.isroutine(method):
            found = described(getattr(ours, name))
            assert found == described(method), name


@pytest.fixture
def loops() -> Iterator[tuple[Any, Any]]:
    """Return a loop of fastloop's and one of asyncio's."""
    made = fastloop.new_event_loop(), asyncio.SelectorEventLoop()
    yield made
    for loop in made:
        loop.close()


# -- the loop, handles, servers ----------------------------------------------


def test_loop(loops):
    check(*loops, OWN)


@pytest.mark.parametrize("name", PRIVATE_LOOP)
def test_private_name_of_the_loop(loops, name):
    ours, theirs = loops
    assert hasattr(ours, name) == hasattr(theirs, name)
    if inspect.ismethod(getattr(theirs, name, None)):
        # The names of what is passed; their kinds are asyncio's own affair.
        least = set(inspect.signature(getattr(theirs, name)).parameters)
        assert least <= set(inspect.signature(getattr(ours, name)).parameters)


def test_attributes_of_the_loop_can_be_set(loops):
    """Frameworks hang things on the loop, and replace its methods."""
    for loop in loops:
        loop.of_a_framework = 1
        assert loop.of_a_framework == 1
        loop.slow_callback_duration = 0.5
        assert loop.slow_callback_duration == 0.5
        loop.getaddrinfo = None
        assert loop.getaddrinfo is None


@pytest.mark.parametrize(
    "make", ["call_soon", "call_soon_threadsafe", "call_later"]
)
def test_handles(loops, make):
    before = (100,) if make == "call_later" else ()
    ours, theirs = (getattr(loop, make)(*before, print) for loop in loops)
    check(ours, theirs)
    assert isinstance(ours, type(theirs))
    for name in PRIVATE_HANDLE:
        assert hasattr(ours, name) == hasattr(theirs, name), name
    assert ours._callback is print
    assert ours._args == ()
    assert ours._loop is loops[0]
    if before:
        assert ours <= ours
        assert hash(ours) == hash(ours._when)
    ours.cancel()
    theirs.cancel()


def test_servers(loops):
    async def serve() -> Any:
        loop = asyncio.get_running_loop()
        return await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)

    ours, theirs = (loop.run_until_complete(serve()) for loop in loops)
    check(ours, theirs)
    assert isinstance(ours, asyncio.Server)
    assert isinstance(ours.sockets, tuple)
    assert isinstance(ours.sockets[0], asyncio.trsock.TransportSocket)
    assert ours._ssl_context is None
    for loop, server in zip(loops, (ours, theirs), strict=True):
        server.close()
        loop.run_until_complete(server.wait_closed())
    assert ours._sockets is None
    assert ours.sockets == ()


# -- transports --------------------------------------------------------------


class Noting(
    asyncio.Protocol, asyncio.DatagramProtocol, asyncio.SubprocessProtocol
):
    """Tells when the connection is lost."""

    def __init__(self) -> None:
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)


async def make_tcp(loop: Any, stack: Any, **tls: Any) -> Any:
    server = await loop.create_server(
        Noting, "127.0.0.1", 0, ssl=tls.pop("served", None)
    )
    stack.callback(server.close)
    return await loop.create_connection(
        Noting, *server.sockets[0].getsockname(), **tls
    )


async def make_tls(loop: Any, stack: Any) -> Any:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(CERTS / "ca.pem")
    return await make_tcp(
        loop, stack, served=server, ssl=client, server_hostname="localhost"
    )


async def make_unix(loop: Any, stack: Any) -> Any:
    path = stack.enter_context(tempfile.TemporaryDirectory()) + "/socket"
    server = await loop.create_unix_server(Noting, path)
    stack.callback(server.close)
    return await loop.create_unix_connection(Noting, path)


async def make_datagram(loop: Any, stack: Any) -> Any:
    far = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
    far.bind(("127.0.0.1", 0))
    return await loop.create_datagram_endpoint(
        Noting, remote_addr=far.getsockname()
    )


async def make_read_pipe(loop: Any, stack: Any) -> Any:
    near, far = os.pipe()
    stack.callback(os.close, far)
    return await loop.connect_read_pipe(Noting, open(near, "rb", 0))


async def make_write_pipe(loop: Any, stack: Any) -> Any:
    far, near = os.pipe()
    stack.callback(os.close, far)
    return await loop.connect_write_pipe(Noting, open(near, "wb", 0))


async def make_subprocess(loop: Any, stack: Any) -> Any:
    return await loop.subprocess_exec(
        Noting,
        *(sys.executable, "-S", "-c", "input()"),
        stderr=subprocess.DEVNULL,
    )


#: How a transport of each kind is made, and the class of asyncio's it has.
KINDS = {
    "tcp": (make_tcp, asyncio.Transport),
    "unix": (make_unix, asyncio.Transport),
    "tls": (make_tls, asyncio.Transport),
    # asyncio's own is a DatagramTransport from 3.12 on
    "datagram": (make_datagram, asyncio.BaseTransport),
    "read_pipe": (make_read_pipe, asyncio.ReadTransport),
    "write_pipe": (make_write_pipe, asyncio.WriteTransport),
    "subprocess": (make_subprocess, asyncio.SubprocessTransport),
}


@contextlib.asynccontextmanager
async def made(kind: str) -> AsyncIterator[Any]:
    """A transport of this kind; closed, with its other end, after."""
    async with contextlib.AsyncExitStack() as stack:
        make, _ = KINDS[kind]
        loop = asyncio.get_running_loop()
        transport, protocol = await make(loop, stack)
        try:
            yield transport
        finally:
            transport.close()
            await protocol.lost
    for _ in range(5):
        await asyncio.sleep(0)


def snapshot(transport: Any) -> dict[str, Any]:
    """What a transport shows by introspection while it is open."""
    names = public(transport)
    routines = {
        name: described(getattr(transport, name))
        for name in names
        if inspect.isroutine(getattr(transport, name))
    }
    missing = object()
    assert transport.get_extra_info("no such", missing) is missing
    assert transport.get_extra_info(name="no such") is None
    extras = {
        key: type(transport.get_extra_info(key, missing)) for key in EXTRAS
    }
    return {"names": names, "methods": routines, "extras": extras}


@pytest.mark.parametrize("kind", KINDS)
def test_transport(loops, kind):
    async def look() -> dict[str, Any]:
        async with made(kind) as transport:
            assert isinstance(transport, KINDS[kind][1])
            return snapshot(transport)

    ours, theirs = (loop.run_until_complete(look()) for loop in loops)
    assert ours["names"] == theirs["names"]
    assert ours["methods"] == theirs["methods"]
    for key, kind_of in theirs["extras"].items():
        assert issubclass(ours["extras"][key], kind_of), key


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_private_names_of_a_stream(loops, kind):
    async def look() -> None:
        async with made(kind) as transport:
            for name in PRIVATE_TRANSPORT:
                assert hasattr(transport, name), name
            assert transport._loop is asyncio.get_running_loop()
            assert transport._protocol is transport.get_protocol()
            assert transport._sock.fileno() == transport._sock_fd
            assert transport.max_size == 256 * 1024
            transport.of_a_framework = 1

    for loop in loops:
        loop.run_until_complete(look())


# -- the module --------------------------------------------------------------


def test_the_module():
    for name in "new_event_loop run install EventLoopPolicy Loop".split():
        assert callable(getattr(fastloop, name))
    ours, theirs = described(fastloop.run), described(asyncio.run)
    assert [row[:2] for row in ours][:2] == [row[:2] for row in theirs][:2]
    assert issubclass(fastloop.Loop, asyncio.AbstractEventLoop)
    assert issubclass(fastloop.Loop, asyncio.SelectorEventLoop)
    if sys.version_info >= (3, 13):
        assert issubclass(fastloop.Loop, asyncio.EventLoop)
    assert os.path.exists(os.path.join(fastloop.__path__[0], "py.typed"))
