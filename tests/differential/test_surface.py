"""fastloop's surface is that of asyncio on the running version.

A method that is missing, a parameter less, another kind of parameter or
another default is a difference that some program meets.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
from typing import Any

import odd_calls
import pytest
from prog_links import context

import fastloop

#: What fastloop has and asyncio has not.
OWN = {"enable_metrics", "metrics", "slow_callback_hook"}
#: Private attributes that libraries are known to read; some are of other
#: versions.
HANDLE = """
_callback _args _context _loop _cancelled _source_traceback _repr _run
_repr_info _when _scheduled
"""
STREAM = """
_loop _sock _protocol _extra _closing _conn_lost _paused _eof _server
_force_close _fatal_error _protocol_paused _sendfile_compatible
_start_tls_compatible max_size
"""
PRIVATE = {
    "loop": """
_add_callback _add_reader _add_writer _asyncgens _call_soon _check_callback
_check_closed _check_running _check_thread _clock_resolution _closed
_current_handle _debug _default_executor _exception_handler _internal_fds
_make_socket_transport _make_ssl_transport _ready _remove_reader
_remove_writer _run_once _scheduled _selector _set_coroutine_origin_tracking
_signal_handlers _start_serving _stop_serving _stopping _task_factory
_thread_id _timer_cancelled_count _timer_handle_cancelled _transports
_unix_server_sockets _write_to_self
""",
    "handle": HANDLE,
    "timer": HANDLE,
    "stream": STREAM,
}
#: asyncio's own classes, which programs ask for.
CLASSES = {
    "loop": asyncio.SelectorEventLoop,
    "handle": asyncio.Handle,
    "timer": asyncio.TimerHandle,
    "stream": asyncio.Transport,
    "tls stream": asyncio.Transport,
    "server": asyncio.Server,
    "reader": asyncio.StreamReader,
    "read pipe": asyncio.ReadTransport,
    "write pipe": asyncio.WriteTransport,
}


async def make_tls(case: odd_calls.Case) -> Any:
    near, far = map(case.keep, socket.socketpair())
    accepted = case.loop.connect_accepted_socket(
        case.protocol, far, ssl=context(True, "1.3")
    )
    connected = case.loop.create_connection(
        case.protocol,
        sock=near,
        ssl=context(False, "1.3"),
        server_hostname="localhost",
    )
    (theirs, _), (ours, _) = await asyncio.gather(accepted, connected)
    case.kept.callback(theirs.abort)
    return ours


OBJECTS = {
    name: make
    for name, make in [*odd_calls.OBJECTS.items(), ("tls stream", make_tls)]
    if "clos" not in name
}


def look(thing: Any) -> dict[str, Any]:
    """Return the public names of an object, and their parameters."""
    found: dict[str, Any] = {}
    for name in dir(thing):
        value = getattr(thing, name, None)
        if not name.startswith("_"):
            found[name] = None
            if inspect.isroutine(value):
                rows = inspect.signature(value).parameters.values()
                found[name] = [(p.name, p.kind.name, p.default) for p in rows]
    return found


def surface(make_loop: Any, name: str) -> tuple[Any, type]:
    loop = make_loop()
    case = odd_calls.Case(loop)
    thing = loop.run_until_complete(OBJECTS[name](case))
    private = PRIVATE.get(name, "").split()
    found = look(thing), {one: hasattr(thing, one) for one in private}
    for end in ("abort", "close") if thing is not loop else ():
        case.kept.callback(getattr(thing, end, list))
    case.kept.close()
    for _ in range(5):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return found, type(thing)


@pytest.mark.parametrize("name", OBJECTS)
def test_names_and_parameters_are_asyncios(name):
    theirs, _ = surface(asyncio.SelectorEventLoop, name)
    ours, kind = surface(fastloop.new_event_loop, name)
    for own in OWN if name == "loop" else ():
        del ours[0][own]
    assert ours == theirs
    assert issubclass(kind, CLASSES.get(name, object))


def test_the_module():
    for name in "new_event_loop run install EventLoopPolicy Loop".split():
        assert callable(getattr(fastloop, name))
    ours, theirs = (inspect.signature(m.run) for m in (fastloop, asyncio))
    assert [*ours.parameters][:2] == [*theirs.parameters][:2]
    assert issubclass(fastloop.Loop, getattr(asyncio, "EventLoop", object))
    assert os.path.exists(os.path.join(fastloop.__path__[0], "py.typed"))
