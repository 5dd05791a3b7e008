"""Every row of surface_table.py, by introspection, on asyncio and fastloop.

No row may be missing or partial on the running version: a method that is
there with a parameter less, another kind of parameter or another default is a
difference that some program meets.  What the calls do is for the tests of
behaviour.
"""

import asyncio
import contextlib
import inspect
import os
import socket
import subprocess
import sys

import pytest

from . import surface_table as table
from .surface_transports import KINDS, made

NAMESPACE = {**vars(socket), "PIPE": subprocess.PIPE}

LOOP_ROWS = table.rows(table.LOOP)
#: What fastloop has and asyncio has not.
OWN = {"enable_metrics", "metrics", "slow_callback_hook"}


def as_signature(parameters):
    """The signature of a table's row."""
    scope = {}
    exec(f"def row({', '.join(parameters)}): pass", dict(NAMESPACE), scope)
    return inspect.signature(scope["row"])


def described(signature):
    return [
        (p.name, p.kind.name, p.default) for p in signature.parameters.values()
    ]


def check(owner, name, parameters):
    """One row on an object: absent where the table says so, else exact."""
    if parameters is None:
        assert not hasattr(owner, name), f"{name} is newer than this Python"
        return
    method = getattr(owner, name)
    found = described(inspect.signature(method))
    assert found == described(as_signature(parameters)), name


def public(owner):
    return {name for name in dir(owner) if not name.startswith("_")}


# -- the loop ----------------------------------------------------------------


@pytest.mark.parametrize("name", LOOP_ROWS)
def test_loop_method(loop, name):
    check(loop, name, LOOP_ROWS[name])


def test_no_public_name_more_or_less(loop, loop_kind):
    """A name of a later version is not there before it."""
    base = asyncio.SelectorEventLoop()
    expected = public(base)
    base.close()
    own = set() if loop_kind == "asyncio" else OWN
    assert public(loop) == expected | own
    assert "slow_callback_duration" in expected
    # The table is whole: it has every method that asyncio has.
    methods = {n for n in expected if callable(getattr(loop, n))}
    assert methods == {n for n, row in LOOP_ROWS.items() if row is not None}


@pytest.mark.parametrize("entry", table.PRIVATE_LOOP)
def test_private_name_of_the_loop(loop, entry):
    name = table.of_this_version(entry)
    if not name:
        assert not hasattr(loop, entry.partition("@")[0])
        return
    asyncio_loop = asyncio.SelectorEventLoop()
    theirs = getattr(asyncio_loop, name)
    asyncio_loop.close()
    ours = getattr(loop, name)
    if inspect.ismethod(theirs):
        # The names of what is passed; their kinds are asyncio's own affair.
        least = set(inspect.signature(theirs).parameters)
        assert least <= set(inspect.signature(ours).parameters)


def test_private_values(loop):
    assert loop._debug is False
    assert loop._closed is False
    assert loop._stopping is False
    assert loop._thread_id is None
    assert loop._default_executor is None
    assert loop._task_factory is None
    assert loop._current_handle is None
    assert loop._clock_resolution > 0
    assert list(loop._asyncgens) == []
    assert list(loop._ready) == []
    assert list(loop._scheduled) == []
    assert isinstance(loop._signal_handlers, dict)
    assert loop._check_closed() is None
    assert loop._write_to_self() is None
    loop._run_once()


def test_attributes_can_be_set(loop):
    """Frameworks hang things on the loop, and replace its methods."""
    loop.of_a_framework = 1
    assert loop.of_a_framework == 1
    loop.slow_callback_duration = 0.5
    assert loop.slow_callback_duration == 0.5
    loop.getaddrinfo = None
    assert loop.getaddrinfo is None


# -- handles, servers --------------------------------------------------------


@pytest.mark.parametrize(
    "make", ["call_soon", "call_soon_threadsafe", "call_later"]
)
def test_handles(loop, make):
    before = () if make.startswith("call_soon") else (100,)
    handle = getattr(loop, make)(*before, print)
    expected = asyncio.Handle
    private = list(table.PRIVATE_HANDLE)
    rows = table.rows(table.HANDLE)
    if before:
        expected = asyncio.TimerHandle
        private += table.PRIVATE_TIMER
        rows |= table.rows(table.TIMER)
        assert handle == handle
        assert handle <= handle
        assert hash(handle) == hash(handle._when)
    elif make == "call_soon_threadsafe" and sys.version_info >= (3, 14):
        expected = asyncio.events._ThreadSafeHandle
    assert isinstance(handle, expected)
    for name, parameters in rows.items():
        check(handle, name, parameters)
    for name in private:
        assert hasattr(handle, name), name
    assert public(handle) == {n for n, row in rows.items() if row is not None}
    assert handle._callback is print
    assert handle._args == ()
    assert handle._loop is loop
    handle.cancel()


def test_servers(loop, run):
    rows = table.rows(table.SERVER)

    async def main():
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        assert isinstance(server, asyncio.Server)
        assert isinstance(server, asyncio.AbstractServer)
        for name, parameters in rows.items():
            check(server, name, parameters)
        there = {n for n, row in rows.items() if row and n[0] != "_"}
        there |= {n for n, row in rows.items() if row == [] and n[0] != "_"}
        assert public(server) == there | {"sockets"}
        assert isinstance(server.sockets, tuple)
        (sock,) = server.sockets
        assert isinstance(sock, asyncio.trsock.TransportSocket)
        assert server._ssl_context is None
        server.close()
        await server.wait_closed()
        assert server._sockets is None
        assert server.sockets == ()

    run(main())


# -- transports --------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_transport(loop, run, kind):
    spec = KINDS[kind]

    async def main():
        async with made(kind, loop) as transport:
            assert isinstance(transport, spec.base)
            for rows in spec.tables:
                for name, parameters in table.rows(rows).items():
                    check(transport, name, parameters)

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_transport_extras(loop, run, kind):
    spec = KINDS[kind]

    async def main():
        async with made(kind, loop) as transport:
            marker = object()
            assert transport.get_extra_info("no such", marker) is marker
            assert transport.get_extra_info(name="no such") is None
            for name, wanted in spec.extras.items():
                value = transport.get_extra_info(name, marker)
                assert value is not marker, name
                assert isinstance(value, wanted), (name, value)

    run(main())


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_private_names_of_a_stream(loop, run, kind):
    async def main():
        async with made(kind, loop) as transport:
            for name in table.PRIVATE_TRANSPORT:
                assert hasattr(transport, name), name
            assert transport._loop is loop
            assert transport._protocol is transport.get_protocol()
            assert transport._sock.fileno() == transport._sock_fd
            assert transport.max_size == 256 * 1024
            transport.of_a_framework = 1

    run(main())


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_public_names_as_asyncios(loop_kind, loop, run, kind):
    async def names(of):
        async with made(kind, of) as transport:
            return public(transport)

    found = run(names(loop))
    with contextlib.closing(asyncio.SelectorEventLoop()) as oracle:
        expected = oracle.run_until_complete(names(oracle))
    assert found == expected


# -- the module --------------------------------------------------------------


def test_the_module():
    import fastloop

    for name in "new_event_loop run install EventLoopPolicy Loop".split():
        assert callable(getattr(fastloop, name))
    ours = described(inspect.signature(fastloop.run))
    theirs = described(inspect.signature(asyncio.run))
    assert [row[:2] for row in ours][:2] == [row[:2] for row in theirs][:2]
    assert issubclass(fastloop.Loop, asyncio.AbstractEventLoop)
    assert issubclass(fastloop.Loop, asyncio.SelectorEventLoop)
    if sys.version_info >= (3, 13):
        assert issubclass(fastloop.Loop, asyncio.EventLoop)
    assert os.path.exists(os.path.join(fastloop.__path__[0], "py.typed"))
