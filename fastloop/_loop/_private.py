"""asyncio's private names, and one of subprocess: all that fastloop uses.

If a Python version renames or removes one, only this file changes;
``tests/lint/test_private_names.py`` checks that no other module uses one.  The
functions look their names up at each call, because programs and tests replace
them.

Two groups are not here: attributes of asyncio's objects, such as a reader's
``_buffer``, and the methods of asyncio's loop that ``Loop`` and its bases
inherit and call or replace.  Private names of other packages are used by one
module each: concurrent.futures' by ``_pool.py``, socket's by
``sockets.py``, ssl's by ``_tls.py``.
"""

# mypy: disable-error-code="attr-defined, no-any-return"

from __future__ import annotations

import asyncio
import sys
import types
from asyncio import (
    base_events,
    constants,
    coroutines,
    events,
    format_helpers,
    futures,
    sslproto,
    tasks,
    timeouts,
)

if sys.platform == "win32":
    from asyncio import windows_events
else:
    from asyncio import unix_events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    class LoopPart(asyncio.SelectorEventLoop):
        """For type checkers: the base of classes that ``Loop`` inherits from.

        It has the private names that they use: asyncio's, and one of Loop's.
        """

        _accept_connection2: Any
        _add_reader: Any
        _asyncgen_finalizer_hook: Any
        _asyncgen_firstiter_hook: Any
        _check_callback: Any
        _check_closed: Any
        _check_default_executor: Any
        _check_sendfile_params: Any
        _check_signal: Any
        _debug: bool
        _ensure_fd_no_transport: Any
        _handle_signal: Any
        _make_datagram_transport: Any
        _make_socket_transport: Any
        _make_subprocess_transport: Any
        _remove_reader: Any
        _sendfile_fallback: Any
        _sendfile_native: Any
        _set_coroutine_origin_tracking: Any
        _start_serving: Any
        _stop_serving: Any

        @property
        def _has_native_tls(self) -> bool: ...
else:
    LoopPart = object

#: Raises TypeError for an SSL socket; the core calls it for ``sock_*()``.
check_ssl_socket = base_events._check_ssl_socket
if sys.platform != "win32":
    #: What ``connect_write_pipe()`` opens.
    WritePipeTransport = unix_events._UnixWritePipeTransport
#: What ``loop.sendfile()`` looks for in a transport.
SendfileMode = constants._SendfileMode
#: Takes a transport's protocol's place while a file is sent in blocks.
SendfileProtocol = base_events._SendfileFallbackProtocol
#: Makes the context of a TLS connection that was given none.
create_transport_context = sslproto._create_transport_context
if sys.version_info >= (3, 16):
    DefaultPolicy = object
elif sys.platform == "win32":
    DefaultPolicy = (
        getattr(windows_events, "_DefaultEventLoopPolicy", None)
        or windows_events.DefaultEventLoopPolicy
    )
else:
    #: The class of policies.  From 3.14 on its public name warns at each use.
    DefaultPolicy = unix_events._UnixDefaultEventLoopPolicy


def has_c_futures() -> bool:
    """Whether asyncio.Future is CPython's class in C."""
    # Not asyncio.futures._CFuture, which nest_asyncio replaces.
    built_in = sys.modules.get("_asyncio")
    return asyncio.Future is getattr(built_in, "Future", None)


def shared_by_threads() -> list[object]:
    """Return what the loops of all threads count references to.

    CPython's C code counts the classes of tasks, of their steps, of futures
    and of their iterators.  Each sleep, time-out, ``gather()`` and run counts
    its callback, a time-out its states.

    A program counts what it calls by asyncio's name, as in
    ``asyncio.sleep(0)``: the module has a ``__getattr__``, so CPython looks
    the name up each time.
    """
    built_in = sys.modules.get("_asyncio")
    if asyncio.Task is not getattr(built_in, "Task", None):
        return []
    steps: list[object] = []

    def call_soon(step: object, **_: object) -> None:
        steps.append(step)

    async def nothing() -> None:
        pass

    coro = nothing()
    loop: Any = types.SimpleNamespace(call_soon=call_soon, get_debug=bool)
    # It has a name, so that the program's first task is still Task-1.
    task: Any = asyncio.Task(coro, loop=loop, name="nothing")
    task._log_destroy_pending = False
    coro.close()
    step = steps.pop()  # else a cycle keeps the task, which `asyncio ps` shows
    return [
        asyncio.Task,
        type(step),
        asyncio.Future,
        type(iter(task)),
        futures._set_result_unless_cancelled,
        tasks._release_waiter,
        base_events._run_until_complete_cb,
        timeouts.Timeout._on_timeout,
        *timeouts._State,
        *filter(_is_asyncios, map(vars(asyncio).get, asyncio.__all__)),
    ]


def swap_current_tasks(
    loop: object, task: Any = None, native: Any = None
) -> tuple[Any, Any]:
    """Set the current tasks of the running loop; return the previous ones.

    From 3.14 on there may be two: a thread has one that is written in C, and
    each loop one in Python, as nest_asyncio makes them.
    """
    previous = tasks._current_tasks.pop(loop, None)
    if task is not None:
        tasks._current_tasks[loop] = task
    if sys.version_info < (3, 14):
        return previous, None
    return previous, tasks._swap_current_task(loop, native)


def is_done_callback(code: types.CodeType) -> bool:
    """Whether run_until_complete() stops its run by this callback."""
    return code is base_events._run_until_complete_cb.__code__


def begin_run(loop: Any) -> None:
    """Set what a run needs in asyncio's modules: the running loop.

    Task objects become callable, if PyCharm's debugger is there.  Its tasks
    pass themselves to call_soon(), not their steps.  The call_soon() that it
    sets on asyncio's own loop finds the step.
    """
    kind: Any = asyncio.Task
    if hasattr(kind, "_pydevd_nest_patched"):
        kind.__call__ = kind._Task__step
    events._set_running_loop(loop)


def end_run(loop: Any, hooks: Any) -> None:
    """Undo what a run has set for its thread; may be called again."""
    events._set_running_loop(None)
    sys.set_asyncgen_hooks(*hooks)
    if loop._coroutine_origin_tracking_enabled:
        loop._set_coroutine_origin_tracking(False)


def _is_asyncios(found: Any) -> bool:
    """Whether asyncio defined it: a test replaces names, or deletes them."""
    kind = type(found)
    if kind is types.FunctionType:
        # functools.wraps() copies __module__.
        home = found.__globals__.get("__name__")
    elif kind in (type, types.BuiltinFunctionType):
        home = found.__module__
    else:
        return False
    return str(home).partition(".")[0] in ("asyncio", "_asyncio")


def is_debug_mode() -> bool:
    return coroutines._is_debug_mode()


def python_options() -> list[str]:
    import subprocess

    return subprocess._args_from_interpreter_flags()


def running_loop() -> asyncio.AbstractEventLoop | None:
    return asyncio._get_running_loop()


def set_running_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    events._set_running_loop(loop)


def watch_runs(seen: Callable[[asyncio.AbstractEventLoop], None]) -> None:
    """Have a function get each loop of this process that begins to run.

    Loops of other packages take asyncio's function when they are imported.
    """
    original = events._set_running_loop

    def _set_running_loop(loop: asyncio.AbstractEventLoop | None) -> None:
        original(loop)
        if loop is not None:
            seen(loop)

    events._set_running_loop = asyncio._set_running_loop = _set_running_loop


#: The place of the policy that was set or used; None: none was.
POLICY = "asyncio.events._event_loop_policy"


def policy() -> object | None:
    """Return the policy that was set or used, or None."""
    return getattr(events, "_event_loop_policy", None)


def has_selector_policy() -> bool:
    """Whether the policy is for loops of asyncio's SelectorEventLoop."""
    kind = getattr(policy(), "_loop_factory", None)
    return kind is asyncio.SelectorEventLoop


def handle_source(handle: Any, debug: bool) -> str:
    """Describe a handle's callback and where it is defined."""
    # Late 3.12 releases began to show the arguments only in debug mode.
    describe: Any = format_helpers._format_callback_source
    more = {"debug": debug} if describe.__kwdefaults__ else {}
    return describe(handle._callback, handle._args or (), **more)


def handle_text(handle: asyncio.Handle) -> str:
    """Describe a handle, or the task whose step it is."""
    return base_events._format_handle(handle)


def child_watcher() -> Any:
    """Return the object that reports exits of child processes (3.14 on)."""
    if unix_events.can_use_pidfd():
        return unix_events._PidfdChildWatcher()
    return unix_events._ThreadedChildWatcher()
