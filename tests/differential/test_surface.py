"""fastloop's surface is that of asyncio on the running version.

A method that is missing, a parameter less, another kind of parameter or
another default is a difference that some program meets.
"""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import os
import pkgutil
import signal
import socket
from concurrent import futures
from importlib import import_module
from typing import Any

import odd_calls
import pytest
from builds import FREE_THREADED
from prog_links import context

import fastloop
from fastloop import _core
from fastloop._loop import connections
from fastloop.streams import StreamReader

#: What fastloop has and asyncio has not.
OWN = {"enable_metrics", "metrics", "slow_callback_hook"}
#: Private attributes that libraries are known to read; some are of other
#: versions.
HANDLE = """
_callback _args _context _loop _cancelled _source_traceback _repr _run
_repr_info _when _scheduled
"""
STREAM = """
_loop _sock _protocol _extra _closing _conn_lost _force_close
_protocol_paused _sendfile_compatible _start_tls_compatible
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
    "subprocess": asyncio.SubprocessTransport,
}
#: What fastloop has in the place of each class of the standard library whose
#: objects a loop makes or is given.  A new class needs a row, and before that
#: a look at what fastloop leaves out of its way: the pool of interpreters was
#: once taken for one of threads.
IN_PLACE_OF = {
    "_UnixSelectorEventLoop": fastloop.Loop,
    "Handle": _core.Handle,
    "TimerHandle": _core.TimerHandle,
    "_SelectorSocketTransport": _core.StreamTransport,
    "_SelectorDatagramTransport": _core.DatagramTransport,
    "_SSLProtocolTransport": _core.SSLTransport,
    "_UnixWritePipeTransport": connections._UnixWritePipeTransport,
    # asyncio's own
    "_UnixReadPipeTransport": asyncio.unix_events._UnixReadPipeTransport,
    "_UnixSubprocessTransport": asyncio.unix_events._UnixSubprocessTransport,
    "Server": asyncio.Server,
    "StreamReader": asyncio.StreamReader if FREE_THREADED else StreamReader,
    "StreamWriter": asyncio.StreamWriter,
    "Runner": asyncio.Runner,
    # what run_in_executor() makes of a call: a job, or what submit() returns
    "ThreadPoolExecutor": _core.ExecutorJob,
    "ProcessPoolExecutor": futures.Future,
    "InterpreterPoolExecutor": futures.Future,
    # bases, of which there are no objects
    **dict.fromkeys(
        """AbstractServer BaseSubprocessTransport BaseTransport
        DatagramTransport Executor ReadTransport SubprocessTransport Transport
        WriteTransport _FlowControlMixin _SelectorTransport""".split()
    ),
}
KINDS = ("Executor", "Reader", "Runner", "Server", "Transport", "Writer")
#: Those of Windows; __main__ is a program.
NOT_HERE = {"__main__", "proactor_events", "windows_events", "windows_utils"}


def find_classes() -> dict[str, type]:
    """Return this CPython's classes of those kinds."""
    names = {
        f"{package.__name__}.{found.name}"
        for package in (asyncio, futures)
        for found in pkgutil.iter_modules(package.__path__)
        if found.name not in NOT_HERE
    }
    return {
        one.__name__: one
        for name in names
        for one in list(vars(import_module(name)).values())
        if isinstance(one, type)
        and one.__module__ == name
        and not issubclass(one, Exception)
        and any(base.__name__.endswith(KINDS) for base in one.__mro__)
    }


FOUND = find_classes()
POOLS = sorted(
    name
    for name, one in FOUND.items()
    if issubclass(one, futures.Executor) and one is not futures.Executor
)


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


async def make_subprocess(case: odd_calls.Case) -> Any:
    streams = dict.fromkeys(("stdin", "stdout", "stderr"))
    transport, _ = await case.loop.subprocess_exec(
        asyncio.SubprocessProtocol, "true", **streams
    )
    await transport._wait()
    return transport


MAKERS = {"tls stream": make_tls, "subprocess": make_subprocess}
OBJECTS = {
    name: make
    for name, make in (odd_calls.OBJECTS | MAKERS).items()
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
    theirs, known = surface(asyncio.SelectorEventLoop, name)
    ours, kind = surface(fastloop.new_event_loop, name)
    assert kind is IN_PLACE_OF[known.__name__]
    for own in OWN if name == "loop" else ():
        del ours[0][own]
    for one in (ours, theirs):  # the size of a read, which has no effect
        one[0].pop("max_size", None)
    assert ours == theirs
    assert issubclass(kind, CLASSES.get(name, object))


def test_the_module():
    for name in "new_event_loop run install EventLoopPolicy Loop".split():
        assert callable(getattr(fastloop, name))
    ours, theirs = (inspect.signature(m.run) for m in (fastloop, asyncio))
    assert [*ours.parameters][:2] == [*theirs.parameters][:2]
    assert issubclass(fastloop.Loop, getattr(asyncio, "EventLoop", object))
    assert os.path.exists(os.path.join(fastloop.__path__[0], "py.typed"))


def test_each_class_of_this_cpython_has_a_row():
    assert FOUND.keys() - IN_PLACE_OF.keys() == set()


async def runner_of_this() -> Any:
    return signal.getsignal(signal.SIGINT).func.__self__


def test_a_program_runs_in_the_runner_of_the_table():
    assert type(fastloop.run(runner_of_this())) is IN_PLACE_OF["Runner"]


#: The process, the thread and the interpreter.
PLACE = """(__import__("os").getpid(), __import__("threading").get_ident(),
id(__import__("sys").modules))"""


@pytest.mark.keeps_fds  # multiprocessing's, until this process ends
@pytest.mark.parametrize("name", POOLS)
async def test_a_pool_calls_where_its_submit_does(loop, loop_kind, name):
    """One that is not of threads alone has its submit() called."""
    options = {}
    if name == "ProcessPoolExecutor":  # pytest has threads: no fork
        options["mp_context"] = multiprocessing.get_context("spawn")
    if loop_kind == "fastloop":
        loop.enable_metrics()
    with FOUND[name](1, **options) as pool:
        place = await loop.run_in_executor(pool, eval, PLACE)
        assert place == pool.submit(eval, PLACE).result()
    if loop_kind == "fastloop":
        is_job = IN_PLACE_OF[name] is _core.ExecutorJob
        assert loop.metrics().executor_calls == is_job
