"""The event loop: the C core, completed with code that runs rarely.

``_core.BaseLoop`` runs callbacks, timers, descriptors, streams, accepts and
the executor.  The set-up code (resolving and connecting, servers, TLS,
datagrams, subprocesses, exception reports) is inherited from asyncio, so that
each Python version's semantics hold.  The methods below connect the two.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import socket
import sys
import types
import warnings
import weakref
from _thread import get_ident
from asyncio import base_events, events

from . import _core
from . import streams as _native_streams
from ._loop import _core_helpers, _originals, _private
from ._loop._environment import disabled_names, variable
from ._loop._selector import Ready, scheduled, view_of
from ._loop.connections import Connections
from ._loop.executor import ExecutorCalls
from ._loop.signals import SignalCalls
from ._loop.sockets import SocketCalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context
    from typing import Any

    from .metrics import BlockedCallback, LoopMetrics, SlowCallback
    from .observe.watchdog import Watchdog

#: The fast paths that FASTLOOP_DISABLE can name.
_PATHS = _core.PATHS.split()

_core._use_stream_reader(_native_streams.StreamReader)


def _run_unless_cancelled(handle: Any) -> None:
    if not handle._cancelled:
        handle._run()


class Loop(  # type: ignore[misc, unused-ignore]
    _core.BaseLoop,
    SocketCalls,
    SignalCalls,
    ExecutorCalls,
    Connections,
    asyncio.SelectorEventLoop,
):
    """An asyncio event loop whose hot paths are in C.

    A drop-in for asyncio's own loop: make it with
    ``fastloop.new_event_loop()`` and run it with ``asyncio.Runner`` or
    ``fastloop.run``.  Only the thread that runs the loop may use it, except
    for ``call_soon_threadsafe`` and ``metrics``.
    """

    # Of the base class: nest_asyncio replaces those of asyncio's own loop,
    # before the import or after it.
    run_until_complete = asyncio.BaseEventLoop.run_until_complete
    _check_running = (
        asyncio.BaseEventLoop._check_running  # type: ignore[attr-defined]
    )
    #: Tells PyCharm's debugger that this class is patched already.
    _pydevd_nest_patched = True

    # asyncio's own __init__ sets these on each instance; they rarely change.
    _clock_resolution = 1e-9
    _timer_cancelled_count = 0
    _ssock: Any = None
    if sys.version_info >= (3, 13):
        #: Of all loops: asyncio's methods of servers use it.
        _unix_server_sockets: Any = weakref.WeakKeyDictionary()
    #: Made when it is first started, and kept for its count.
    _fastloop_watchdog: Watchdog | None
    #: Replaced as a whole, because another thread reads it without a lock.
    _recent_slow: tuple[SlowCallback, ...] | None
    #: OpenTelemetry's adapter: gets each report, in the loop's thread or the
    #: watchdog's, and what the exception handler gets.
    _on_report: Callable[[SlowCallback | BlockedCallback], None] | None
    _on_exception: Callable[[dict[str, Any]], None] | None

    def __init__(self, selector: None = None) -> None:
        """Make a loop; see ``fastloop.new_event_loop``.

        selector is for subclasses written for asyncio's loop.  Raises
        TypeError for anything but None.
        """
        _refuse_greenlets()
        self._signal_handlers = {}
        if selector is not None:
            self.close()
            raise TypeError("a fastloop.Loop takes no selector")
        if "_nest_patched" in asyncio.__dict__:
            # apply() was called while no loop ran, as at a module's top, and
            # has patched asyncio's loop: new loops are to allow the same.
            from ._loop import _nesting

            _nesting.allow()
        if _private.is_debug_mode():
            self._debug = True
        if _core.has_switches():
            self._read_switches()
            self._metrics_from_environment()

    def _read_switches(self) -> None:
        """Turn off the fast paths that the environment names."""
        off = disabled_names()
        self._off = sum(1 << _PATHS.index(n) for n in off & {*_PATHS})
        if unknown := ", ".join(sorted(off - {*_PATHS, "loop"})):
            text = f"FASTLOOP_DISABLE names {unknown}, which is none of "
            text += ", ".join((*_PATHS, "loop"))
            warnings.warn(text, RuntimeWarning, stacklevel=3)

    def __repr__(self) -> str:
        cls = type(self)
        name = "fastloop.Loop" if cls is Loop else cls.__name__
        return (
            f"<{name} running={self.is_running()} "
            f"closed={self.is_closed()} debug={self.get_debug()}>"
        )

    def __del__(self, _warn: Any = warnings.warn) -> None:
        # Without asyncio's __name__ the interpreter has cleared its modules,
        # and this loop was current until then.  asyncio does not warn then
        # either: its loop is part of a cycle, which is not collected any more.
        if self.is_closed():
            return
        if getattr(asyncio, "__name__", None) is None:
            if not self.is_running():
                super()._close()  # what the core needs may be gone later
            return
        _warn(f"unclosed event loop {self!r}", ResourceWarning, source=self)
        if not self.is_running():
            self.close()

    def __dir__(self) -> list[str]:
        # Debuggers and mocks read every name in here, and _nest_patched
        # raises for them.
        return [name for name in super().__dir__() if name != "_nest_patched"]

    # -- asyncio's instance attributes, made at the first access --------------

    @property
    def _has_native_tls(self) -> bool:
        return not self._off >> _PATHS.index("native_tls") & 1

    @property
    def _asyncgens(self) -> weakref.WeakSet[Any]:
        if self._made_asyncgens is None:
            self._made_asyncgens = weakref.WeakSet()
        return self._made_asyncgens  # type: ignore[no-any-return]

    @property
    def _internal_fds(self) -> int:
        return 0 if self.is_closed() else 1

    @property
    def _ready(self) -> Ready:
        return Ready(self)

    @property
    def _scheduled(self) -> list[Any]:
        return scheduled(self)

    @property
    def _transports(self) -> weakref.WeakValueDictionary[int, Any]:
        """Asyncio's own transports, which store themselves here."""
        if self._python_transports is None:
            self._python_transports = weakref.WeakValueDictionary()
        return self._python_transports  # type: ignore[no-any-return]

    @property
    def _nest_patched(self) -> bool:
        """Allow nested runs: nest_asyncio.apply() asks a loop for this name.

        Its _patch_loop() reads it first.  True keeps it from replacing methods
        of the loop's class by Python methods that need asyncio's queues.
        Other readers get AttributeError.
        """
        if sys._getframe(1).f_code.co_name == "_patch_loop":
            from ._loop import _nesting

            _nesting.allow()
            return True
        raise AttributeError("_nest_patched")

    @property
    def _selector(self) -> Any:
        """What programs use of a selector; None if the loop is closed."""
        return None if self.is_closed() else view_of(self)

    @property
    def _watcher(self) -> Any:
        """The child watcher: reports exits of child processes (3.14 on)."""
        if self._made_watcher is None:
            self._made_watcher = _private.child_watcher()
        return self._made_watcher

    # -- running --------------------------------------------------------------

    def run_forever(self) -> None:
        """Run until ``stop()`` is called.

        Raises RuntimeError if this or another loop is running in the thread
        or the loop is closed, OSError if its own descriptors were closed.
        Also KeyboardInterrupt and SystemExit of a callback, and what a signal
        handler or another thread raises between callbacks.  Implements
        asyncio's ``loop.run_forever()``.
        """
        # asyncio's methods are not called where they would do nothing.
        if self.is_closed():
            self._check_closed()
        self._check_running()
        hooks = sys.get_asyncgen_hooks()
        self._thread_id = get_ident()  # begins a run in the core
        try:
            if self._debug:
                self._set_coroutine_origin_tracking(True)
            sys.set_asyncgen_hooks(
                firstiter=self._asyncgen_firstiter_hook,
                finalizer=self._asyncgen_finalizer_hook,
            )
            _private.begin_run(self)
            run_once = self._run_once
            # A tracer's wrapper is equal to the method that it wraps.
            if (
                type(run_once) is types.BuiltinMethodType
                and run_once == super()._run_once
            ):
                self._iterate_until_stopped()
                return
            while True:
                self._run_once()
                if self._stopping:
                    break
        finally:
            self._stopping = False
            self._thread_id = None
            try:
                _private.end_run(self, hooks)
            except BaseException:
                # A Ctrl-C or a MemoryError.  A thread that still counts as
                # running could never run a loop again.
                _private.end_run(self, hooks)
                raise

    # -- closing --------------------------------------------------------------

    def close(self) -> None:
        """Close the loop, unless it is closed, and remove signal handlers.

        Pending callbacks and timers are dropped without being run.  The
        default executor is shut down without waiting for its threads.  Raises
        RuntimeError if the loop is running, ValueError outside the main thread
        if the loop has signal handlers; it is closed all the same, and
        ``close()`` in the main thread removes the handlers that stay.
        Implements asyncio's ``loop.close()``.
        """
        if not self.is_closed():
            if self._debug and not self.is_running():
                # Looked up each time, as tests replace it.
                base_events.logger.debug("Close %r", self)  # type: ignore[attr-defined]
            super()._close()  # a subclass may have the name
            if self._fastloop_watchdog is not None:
                self._fastloop_watchdog.stop()
            self._executor_shutdown_called = True
            executor = self._default_executor
            if executor is not None:
                self._default_executor = None
                executor.shutdown(wait=False)
        self._end_signals()

    # -- scheduling -----------------------------------------------------------

    def _add_callback(self, handle: events.Handle) -> None:
        """Queue a handle: asyncio's signal handlers have some of its own."""
        self.call_soon(_run_unless_cancelled, handle)

    def _call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> events.TimerHandle:
        """call_later() where time() is replaced."""
        when = self.time() + delay
        timer: Any = self.call_at(when, callback, *args, context=context)
        if timer._source_traceback:
            del timer._source_traceback[-1]
        return timer  # type: ignore[no-any-return]

    def _write_to_self(self) -> None:
        """End the loop's current wait or its next one; any thread may call."""
        if not self.is_closed():
            # Not an overriding method, which may end with this call.
            super().call_soon_threadsafe(_core_helpers.safepoint)

    # -- debug ----------------------------------------------------------------

    @property
    def slow_callback_duration(self) -> float:
        """Debug mode logs a callback as slow from this many seconds, 0.1.

        Setting it takes what float() takes, and raises what that raises.
        asyncio's ``loop.slow_callback_duration``.
        """
        return self._slow_s

    @slow_callback_duration.setter
    def slow_callback_duration(self, seconds: float) -> None:
        self._slow_s = float(seconds)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report an error; asyncio's ``loop.call_exception_handler()``."""
        if self._on_exception is not None:
            self._on_exception(context)
        super().call_exception_handler(context)

    def _report_callback(
        self,
        exc: BaseException,
        handle: _core.Handle | _core.TimerHandle | None,
    ) -> None:
        """Report a callback's exception, with asyncio's text and keys."""
        context: dict[str, Any] = {
            "message": "Exception in the event loop",
            "exception": exc,
        }
        if handle is not None:
            source = _private.handle_source(handle, self.get_debug())
            context["message"] = f"Exception in callback {source}"
            context["handle"] = handle
            if handle._source_traceback:
                context["source_traceback"] = handle._source_traceback
        self.call_exception_handler(context)

    def _report_call(
        self,
        exc: BaseException,
        target: object,
        name: str,
        *args: object,
    ) -> None:
        """Report an exception of a call that the loop made without a handle.

        asyncio has a handle for it, and names it in the report.
        """
        try:
            method: Any = getattr(target, name)
        except Exception:  # it is missing, as `exc` says
            method = name
        handle: Any = events.Handle(method, args, self)
        handle._source_traceback = None  # debug mode's is this function
        self._report_callback(exc, handle)

    def _report_slow(
        self, handle: object, callback: object, duration_ns: int
    ) -> None:
        """Report what took slow_callback_duration: log it, call the hook.

        A transport's own calls have no handle: then both are the transport.
        """
        if self._debug:
            if isinstance(handle, events.Handle):
                handle = _private.handle_text(handle)
            base_events.logger.warning(  # type: ignore[attr-defined]
                "Executing %s took %.3f seconds", handle, duration_ns / 1e9
            )
        if self._read_metrics() is not None:
            self._notify_slow(callback, duration_ns)

    # -- metrics --------------------------------------------------------------

    def enable_metrics(
        self,
        *,
        socket: bool = False,
        watchdog_s: float | None = None,
    ) -> None:
        """Count what the loop does from now on; this cannot be turned off.

        A second call only adds what its arguments ask for.  Call this in the
        loop's thread, or while the loop does not run.  ``metrics()`` returns
        the counts.  Before this call metrics cost nothing.

        socket opens a Unix socket on which the process's loops show their
        metrics to ``fastloop top``.  Only this user can read it.  It is
        removed when the process ends.

        watchdog_s starts a thread that reports each callback which runs for
        that many seconds, once and while it runs: to asyncio's log with the
        Python stack, as ``SlowCallback.blocked`` to ``slow_callback_hook``, to
        ``fastloop top`` and in the metrics.  Another call changes the number.
        The thread ends when the loop is closed, and is not in a forked child.

        Raises RuntimeError if the loop is closed, TypeError for a socket that
        is no bool, OSError if the socket cannot be opened, and RuntimeError in
        a subinterpreter that allows no daemon threads.  For watchdog_s raises
        TypeError for no number, ValueError for less than 0.01, and
        RuntimeError where it cannot run: also without a GIL.
        """
        if not isinstance(socket, bool):
            raise TypeError(f"socket is True or False, not {socket!r}")
        # Imported here, so that the first metrics() does not do it while the
        # loop is measured.
        from . import metrics  # noqa: F401

        self._check_closed()
        if watchdog_s is not None:  # first: a wrong number changes nothing
            from .observe import watchdog

            watchdog.checked(watchdog_s)
        self._enable_metrics()
        if socket:
            from .observe import metrics_socket

            metrics_socket.show(self)
        if watchdog_s is not None:
            started = self._fastloop_watchdog or watchdog.Watchdog(self)
            started.start(watchdog_s)
            self._fastloop_watchdog = started

    def metrics(self) -> LoopMetrics:
        """Return what was counted since ``enable_metrics()``.

        Any thread may call this, also while the loop is blocked.  A closed
        loop returns its last counts.  Raises RuntimeError if metrics are off.
        asyncio has no counterpart.
        """
        from . import metrics

        raw = self._read_metrics()
        if raw is None:
            raise RuntimeError(
                "metrics are off: call loop.enable_metrics(), or set "
                "FASTLOOP_METRICS=1 in the environment"
            )
        watchdog = self._fastloop_watchdog
        blocked = 0 if watchdog is None else watchdog.count
        return metrics.from_core(raw, self._default_executor, blocked)

    @property
    def slow_callback_hook(self) -> Callable[[SlowCallback], object] | None:
        """The function that is called after a slow callback, or None.

        It gets a ``fastloop.metrics.SlowCallback`` for each callback that
        took ``slow_callback_duration`` seconds (0.1) or longer.  It is called
        in the loop's thread, right after that callback.  Its exceptions go to
        the exception handler.  Setting it turns metrics on; debug mode is not
        needed.  Raises TypeError for an object that is not callable.
        """
        return self._slow_callback_hook

    @slow_callback_hook.setter
    def slow_callback_hook(
        self, hook: Callable[[SlowCallback], object] | None
    ) -> None:
        if hook is not None:
            if not callable(hook):
                raise TypeError(
                    f"a callable or None is required, not {hook!r}"
                )
            self.enable_metrics()
        self._slow_callback_hook = hook

    def _metrics_from_environment(self) -> None:
        # The program itself did not request these: warn, and go on.
        wrong = []
        socket = bool(variable("FASTLOOP_METRICS_SOCKET"))
        if socket or variable("FASTLOOP_METRICS"):
            try:
                self.enable_metrics(socket=socket)
            except (OSError, RuntimeError) as exc:
                wrong.append(f"FASTLOOP_METRICS_SOCKET: {exc}")
        if limit := variable("FASTLOOP_WATCHDOG"):
            try:
                self.enable_metrics(watchdog_s=float(limit))
            except (RuntimeError, ValueError) as exc:
                wrong.append(f"FASTLOOP_WATCHDOG: {exc}")
        if variable("FASTLOOP_OTEL"):
            try:
                from .contrib import opentelemetry

                opentelemetry.instrument(self)
            except Exception as exc:  # not installed, or a provider's
                wrong.append(f"FASTLOOP_OTEL: {exc}")
        for text in wrong:
            warnings.warn(text, RuntimeWarning, stacklevel=3)

    def _notify_slow(self, subject: object, duration_ns: int) -> None:
        """Store a slow callback, and call the program's hook."""
        from . import metrics

        found = metrics.describe_slow(subject, duration_ns)
        if self._fastloop_watchdog is not None:
            found = self._fastloop_watchdog.ended(found)
        recent = self._recent_slow or ()
        self._recent_slow = (*recent, found)[-metrics.RECENT :]
        self._call_hook("a report", self._on_report, found)
        hook = self._slow_callback_hook
        self._call_hook("slow_callback_hook", hook, found)

    def _call_hook(
        self, name: str, hook: Callable[..., object] | None, *args: object
    ) -> None:
        try:
            if hook is not None:
                hook(*args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self.call_exception_handler(
                {"message": f"Exception in {name} {hook!r}", "exception": exc}
            )

    # -- descriptors ----------------------------------------------------------

    def _check_python_transports(self, fd: Any) -> None:
        """Raise RuntimeError if one of asyncio's own transports uses fd."""
        fileno = fd if isinstance(fd, int) else fd.fileno()
        transport = self._python_transports.get(fileno)
        if transport is not None and not transport.is_closing():
            raise RuntimeError(
                f"File descriptor {fd!r} is used by transport {transport!r}"
            )

    # -- names ----------------------------------------------------------------

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        """Resolve a name with ``socket.getaddrinfo``, in an executor thread.

        Returns its list of 5-tuples.  Raises what it raises.  Numeric
        addresses and ports are resolved at once, without a thread (but for
        debug mode, scopes and AI_ADDRCONFIG).  Implements asyncio's
        ``loop.getaddrinfo()``.
        """
        self._check_closed()
        if not self._debug:
            found = _look_up_literal(host, port, family, type, proto, flags)
            if found is not None:
                return found
        return await super().getaddrinfo(
            host, port, family=family, type=type, proto=proto, flags=flags
        )


_NUMERIC = int(socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
_ADDRCONFIG = int(socket.AI_ADDRCONFIG)


def _look_up_literal(host: Any, port: Any, *hints: Any) -> list[Any] | None:
    """Return what getaddrinfo finds for a numeric host and port, or None.

    ``hints`` are family, type, proto and flags.  None, too, if the answer may
    differ each time: that for the name of an interface ("%") or AI_ADDRCONFIG
    depends on the machine's interfaces.
    """
    family, kind, proto, flags = hints
    if (
        not _originals.is_defined_in(socket, socket.getaddrinfo)
        or type(host) is not str
        or not host
        or not isinstance(flags, int)
        or (":" not in host and host.strip("0123456789."))
        or "%" in host
        or flags & _ADDRCONFIG
    ):
        return None
    try:
        return socket.getaddrinfo(
            host, port, family, kind, proto, flags | _NUMERIC
        )
    except (OSError, TypeError):
        return None  # not numeric, or the resolver raises a better error


def _refuse_greenlets() -> None:
    """Raise RuntimeError if gevent or eventlet made threads greenlets.

    Greenlets share one thread, and a loop that waits in C would block them
    all.
    """
    for name, thread, patched, patch in (
        ("gevent.monkey", "threading", "is_module_patched", "patch_all"),
        ("eventlet.patcher", "thread", "is_monkey_patched", "monkey_patch"),
    ):
        module = sys.modules.get(name)
        if module is not None and any(
            map(getattr(module, patched), (thread, "select"))
        ):
            raise RuntimeError(
                f"fastloop does not work with {name}.{patch}(): use "
                "asyncio's own loop, or do not patch 'thread' and 'select'"
            )


# Corked writes are sent before a fork, or the child would send them too; and
# before the interpreter stops the daemon threads, in which loops may run.
atexit.register(_core._before_fork)
os.register_at_fork(
    before=_core._before_fork, after_in_parent=_core._after_fork
)
