"""The names and types of fastloop._core, the C part; see src/README.md.

The signatures are as strict as the built module: a parameter that C takes by
position only is so here.  What asyncio's own classes expect of a name without
a leading underscore is met, except for that.
"""

import sys
from asyncio import (
    BaseProtocol,
    BufferedProtocol,
    Future,
    ReadTransport,
    Server,
    StreamReader,
    Task,
)
from asyncio import DatagramTransport as _AsyncioDatagramTransport
from asyncio import Handle as _AsyncioHandle
from asyncio import TimerHandle as _AsyncioTimerHandle
from asyncio.transports import _FlowControlMixin
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextvars import Context
from socket import socket
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    TypeVarTuple,
    final,
)

from typing_extensions import disjoint_base

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

class _HasFileno(Protocol):
    def fileno(self) -> int: ...

_Descriptor: TypeAlias = int | _HasFileno
_Buffer: TypeAlias = bytes | bytearray | memoryview[Any]
_Extra: TypeAlias = dict[str, Any]
_PeerName: TypeAlias = (
    tuple[str, int] | tuple[str, int, int, int] | str | bytes | None
)

# -- callbacks ---------------------------------------------------------------

@final
class Handle(_AsyncioHandle):
    @property
    def _loop(self) -> BaseLoop: ...
    @property
    def _callback(self) -> Callable[..., object] | None: ...
    @property
    def _args(self) -> tuple[Any, ...] | None: ...  # type: ignore[override]
    @property
    def _context(self) -> Context | None: ...
    _cancelled: bool
    @property
    def _repr(self) -> str | None: ...
    @property
    def _source_traceback(self) -> Any: ...
    def cancel(self, /) -> None: ...
    def cancelled(self, /) -> bool: ...
    def _run(self, /) -> None: ...

@final
class TimerHandle(_AsyncioTimerHandle):
    @property
    def _loop(self) -> BaseLoop: ...
    @property
    def _callback(self) -> Callable[..., object] | None: ...
    @property
    def _args(self) -> tuple[Any, ...] | None: ...  # type: ignore[override]
    @property
    def _context(self) -> Context | None: ...
    _cancelled: bool
    @property
    def _repr(self) -> str | None: ...
    @property
    def _source_traceback(self) -> Any: ...
    @property
    def _when(self) -> float: ...
    @property
    def _scheduled(self) -> bool: ...
    def cancel(self, /) -> None: ...

# -- the loop ----------------------------------------------------------------

@disjoint_base
class BaseLoop:
    slow_callback_duration: float
    _off: int
    _debug: bool
    _stopping: bool
    _thread_id: int | None
    _task_factory: Any
    _exception_handler: Any
    _slow_callback_hook: Any
    _current_handle: Any
    _default_executor: Any
    _signal_handlers: Any
    _python_transports: Any
    @property
    def _closed(self) -> bool: ...
    def call_soon(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> Handle:
        """Call callback(*args) in the loop's next iteration.

        context is the contextvars.Context to run in; a copy of the current
        one by default.  Returns an asyncio.Handle.  Raises RuntimeError when
        the loop is closed.  Implements asyncio's loop.call_soon(); the calls
        of asyncio's C code, which ignores the result, get None.
        """
    def call_soon_threadsafe(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> Handle:
        """Call callback(*args) in the loop's next iteration, from any thread.

        Wakes the loop if it sleeps.  Returns an asyncio.Handle.  Raises
        RuntimeError when the loop is closed.  Implements asyncio's
        loop.call_soon_threadsafe().
        """
    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> TimerHandle:
        """Call callback(*args) after delay seconds; never earlier.

        Returns an asyncio.TimerHandle.  Raises TypeError when delay is None or
        not a number, RuntimeError when the loop is closed.  Implements
        asyncio's loop.call_later().
        """
    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> TimerHandle:
        """Call callback(*args) when loop.time() reaches `when` seconds.

        Returns an asyncio.TimerHandle.  Raises TypeError when `when` is None
        or not a number, RuntimeError when the loop is closed.  Implements
        asyncio's loop.call_at().
        """
    def time(self, /) -> float:
        """Return the loop's time in seconds: time.monotonic().

        Implements asyncio's loop.time().
        """
    def _add_callback(self, handle: _AsyncioHandle) -> None: ...
    def _iterate_until_stopped(self, /) -> None: ...
    def _run_once(self, /) -> None: ...
    def _poll_for(
        self, seconds: float, bits: int, puts_off: bool, /
    ) -> bool: ...
    def _run_ready(self, bits: int, /) -> None: ...
    def get_debug(self, /) -> bool:
        """Return True in debug mode.

        Implements asyncio's loop.get_debug().
        """
    def _ensure_fd_no_transport(self, fd: _Descriptor) -> None: ...
    def _enable_metrics(self, /) -> None: ...
    def _read_metrics(self, /) -> list[int] | None: ...
    def _running_callback(self, /) -> tuple[int, int] | None: ...
    def _close(self, /) -> None: ...
    def _write_to_self(self, /) -> None: ...
    def create_future(self, /) -> Future[Any]:
        """Return a new asyncio.Future of this loop.

        Implements asyncio's loop.create_future().
        """
    if sys.version_info >= (3, 14):
        def create_task(
            self,
            coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
            **kwargs: Any,
        ) -> Task[_T]:
            """Schedule a coroutine; return its task.

            The keywords (name, context; from 3.13.3 any) are passed unchanged
            to the task or to the task factory.  Raises TypeError if coro is
            not a coroutine, RuntimeError if the loop is closed.  Implements
            asyncio's loop.create_task().
            """
    elif sys.version_info >= (3, 13):  # keywords of any name: 3.13.3
        def create_task(
            self,
            coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
            *,
            name: str | None = None,
            context: Context | None = None,
            **kwargs: Any,
        ) -> Task[_T]:
            """Schedule a coroutine; return its task.

            The keywords (name, context; from 3.13.3 any) are passed unchanged
            to the task or to the task factory.  Raises TypeError if coro is
            not a coroutine, RuntimeError if the loop is closed.  Implements
            asyncio's loop.create_task().
            """
    else:
        def create_task(
            self,
            coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
            *,
            name: str | None = None,
            context: Context | None = None,
        ) -> Task[_T]:
            """Schedule a coroutine; return its task.

            The keywords (name, context; from 3.13.3 any) are passed unchanged
            to the task or to the task factory.  Raises TypeError if coro is
            not a coroutine, RuntimeError if the loop is closed.  Implements
            asyncio's loop.create_task().
            """
    def add_reader(
        self,
        fd: _Descriptor,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
    ) -> None:
        """Call callback(*args) whenever fd is readable.

        fd is an int or an object with fileno().  Replaces an earlier
        callback.  Returns None.  Raises ValueError if fd is not a file
        descriptor, RuntimeError if a transport uses it or the loop is
        closed, OSError if the system refuses to poll it.  Implements
        asyncio's loop.add_reader().  The descriptor's flags do not change.
        """
    def add_writer(
        self,
        fd: _Descriptor,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
    ) -> None:
        """Call callback(*args) whenever fd is writable.

        fd is an int or an object with fileno().  Replaces an earlier
        callback.  Returns None.  Raises ValueError if fd is not a file
        descriptor, RuntimeError if a transport uses it or the loop is
        closed, OSError if the system refuses to poll it.  Implements
        asyncio's loop.add_writer().  The descriptor's flags do not change.
        """
    def remove_reader(self, fd: _Descriptor) -> bool:
        """Stop calling back when fd is readable.

        Returns True if there was a callback, else False.  Raises
        ValueError if fd is not a file descriptor, RuntimeError if
        a transport uses it.  Implements asyncio's loop.remove_reader().
        """
    def remove_writer(self, fd: _Descriptor) -> bool:
        """Stop calling back when fd is writable.

        Returns True if there was a callback, else False.  Raises
        ValueError if fd is not a file descriptor, RuntimeError if
        a transport uses it.  Implements asyncio's loop.remove_writer().
        """
    def _add_reader(
        self,
        fd: _Descriptor,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
    ) -> Handle: ...
    def _add_writer(
        self,
        fd: _Descriptor,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
    ) -> Handle: ...
    def _remove_reader(self, fd: _Descriptor) -> bool: ...
    def _remove_writer(self, fd: _Descriptor) -> bool: ...

# -- stream readers ----------------------------------------------------------

@final
class StreamState:
    _limit: int
    _loop: Any
    _buffer: bytearray
    _eof: bool
    _waiter: Future[None] | None
    _exception: Exception | None
    _transport: Any
    _paused: bool

class NativeReader(StreamReader):
    _limit: int
    _loop: Any
    _buffer: bytearray
    _eof: bool
    _waiter: Future[None] | None
    _exception: Exception | None
    _transport: Any
    _paused: bool

# Bytes; or a future to wait for; or None: asyncio's method must go on.
def _take(
    reader: StreamReader, n: int, waited: bool, exactly: bool, /
) -> bytes: ...
def _take_until(
    reader: StreamReader, separator: bytes, waited: bool, is_line: bool, /
) -> bytes: ...
def _use_stream_reader(type: type[NativeReader], /) -> None: ...

# -- streams -----------------------------------------------------------------

@final
class StreamTransport(_FlowControlMixin):
    _sendfile_compatible: ClassVar[Any]
    @property
    def _start_tls_compatible(self) -> Literal[True]: ...
    max_size: int
    @property
    def _protocol_connected(self) -> Literal[True]: ...
    _protocol: BaseProtocol | None
    _extra: _Extra
    _high_water: int
    _low_water: int
    _empty_waiter: Future[None] | None
    @property
    def _loop(self) -> BaseLoop | None: ...
    @property
    def _sock(self) -> socket | None: ...
    @property
    def _sock_fd(self) -> int: ...
    @property
    def _server(self) -> Server | None: ...
    @property
    def _closing(self) -> bool: ...
    @property
    def _conn_lost(self) -> int: ...
    @property
    def _eof(self) -> bool: ...
    @property
    def _paused(self) -> bool: ...
    _protocol_paused: bool
    @property
    def _buffer(self) -> Any: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...
    def close(self, /) -> None: ...
    def abort(self, /) -> None: ...
    def is_closing(self, /) -> bool: ...
    def _force_close(self, exc: BaseException | None) -> None: ...
    def _fatal_error(
        self, exc: BaseException, message: str = "Fatal error on transport"
    ) -> None: ...
    def pause_reading(self, /) -> None: ...
    def resume_reading(self, /) -> None: ...
    def is_reading(self, /) -> bool: ...
    def set_protocol(self, protocol: BaseProtocol) -> None: ...
    def get_protocol(self, /) -> BaseProtocol: ...
    def write(self, data: _Buffer) -> None: ...
    def writelines(self, list_of_data: Iterable[_Buffer]) -> None: ...
    def write_eof(self, /) -> None: ...
    def can_write_eof(self, /) -> bool: ...
    def get_write_buffer_size(self, /) -> int: ...
    def _maybe_pause_protocol(self, /) -> None: ...

@final
class SSLTransport(_FlowControlMixin):
    _sendfile_compatible: ClassVar[Any]
    @property
    def _start_tls_compatible(self) -> Literal[True]: ...
    _high_water: int
    _low_water: int
    _read_high_water: int
    _read_low_water: int
    @property
    def _loop(self) -> BaseLoop: ...
    @property
    def _ssl_protocol(self) -> TlsAdapter: ...
    @property
    def _closed(self) -> bool: ...
    _protocol_paused: bool
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...
    def close(self, /) -> None: ...
    def abort(self, /) -> None: ...
    def is_closing(self, /) -> bool: ...
    def _force_close(self, exc: BaseException | None) -> None: ...
    def pause_reading(self, /) -> None: ...
    def resume_reading(self, /) -> None: ...
    def is_reading(self, /) -> bool: ...
    def set_protocol(self, protocol: BaseProtocol) -> None: ...
    def get_protocol(self, /) -> BaseProtocol: ...
    def write(self, data: _Buffer) -> None: ...
    def writelines(self, list_of_data: Iterable[_Buffer]) -> None: ...
    def can_write_eof(self, /) -> bool: ...
    def get_write_buffer_size(self, /) -> int: ...
    def _maybe_pause_protocol(self, /) -> None: ...
    def _set_write_buffer_limits(
        self, high: float | None = None, low: float | None = None
    ) -> None: ...
    def get_read_buffer_size(self, /) -> int: ...
    def get_read_buffer_limits(self) -> tuple[int, int]: ...
    def _control_reading(self, /) -> None: ...
    def set_read_buffer_limits(
        self, high: float | None = None, low: float | None = None
    ) -> None: ...

@final
class TlsAdapter(BufferedProtocol):
    @property
    def _loop(self) -> BaseLoop: ...
    @property
    def _transport(self) -> Any: ...
    @property
    def _app_transport(self) -> SSLTransport: ...
    @property
    def _app_protocol(self) -> BaseProtocol | None: ...
    @property
    def _sslobj(self) -> Any: ...
    @property
    def _extra(self) -> _Extra: ...
    _sslcontext: Any
    _waiter: Future[None] | None
    _timer: Any
    _ssl_handshake_timeout: float
    _ssl_shutdown_timeout: float
    @property
    def _app_reading_paused(self) -> bool: ...
    @property
    def _phase(self) -> int: ...
    _state: Any  # set by _tls.py
    @property
    def _conn_lost(self) -> int: ...
    def connection_made(self, transport: Any, /) -> None: ...
    def connection_lost(self, exc: Exception | None, /) -> None: ...
    def get_buffer(self, sizehint: int, /) -> memoryview: ...
    def buffer_updated(self, nbytes: int, /) -> None: ...
    def eof_received(self, /) -> bool | None: ...
    def pause_writing(self, /) -> None: ...
    def resume_writing(self, /) -> None: ...
    def _feed(self, data: _Buffer, /) -> None: ...
    def _abandon(self, /) -> None: ...

# asyncio's base class DatagramTransport is among its own from 3.12 on.
@final
class DatagramTransport(_FlowControlMixin, _AsyncioDatagramTransport):
    max_size: int
    @property
    def _protocol_connected(self) -> Literal[True]: ...
    _protocol: BaseProtocol | None
    _extra: _Extra
    _high_water: int
    _low_water: int
    @property
    def _loop(self) -> BaseLoop | None: ...
    @property
    def _sock(self) -> socket | None: ...
    @property
    def _sock_fd(self) -> int: ...
    @property
    def _server(self) -> None: ...
    @property
    def _address(self) -> Any: ...
    @property
    def _buffer_size(self) -> int: ...
    @property
    def _closing(self) -> bool: ...
    @property
    def _conn_lost(self) -> int: ...
    @property
    def _paused(self) -> bool: ...
    _protocol_paused: bool
    @property
    def _buffer(self) -> Any: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...
    def close(self, /) -> None: ...
    def abort(self, /) -> None: ...
    def is_closing(self, /) -> bool: ...
    def _force_close(self, exc: BaseException | None) -> None: ...
    def _fatal_error(
        self, exc: BaseException, message: str = "Fatal error on transport"
    ) -> None: ...
    def pause_reading(self, /) -> None: ...
    def resume_reading(self, /) -> None: ...
    def is_reading(self, /) -> bool: ...
    def set_protocol(self, protocol: BaseProtocol) -> None: ...
    def get_protocol(self, /) -> BaseProtocol: ...
    def get_write_buffer_size(self, /) -> int: ...
    def _maybe_pause_protocol(self, /) -> None: ...
    def sendto(self, data: _Buffer, addr: Any = None) -> None: ...
    def _read_ready(self, /) -> None: ...
    def _sendto_ready(self, /) -> None: ...

@final
class ReadPipeTransport(ReadTransport):
    max_size: int
    @property
    def _protocol_connected(self) -> Literal[True]: ...
    _protocol: BaseProtocol | None
    @property
    def _loop(self) -> BaseLoop | None: ...
    @property
    def _pipe(self) -> Any: ...
    @property
    def _fileno(self) -> int: ...
    @property
    def _closing(self) -> bool: ...
    @property
    def _paused(self) -> bool: ...
    def close(self, /) -> None: ...
    def is_closing(self, /) -> bool: ...
    def _fatal_error(
        self, exc: BaseException, message: str = "Fatal error on transport"
    ) -> None: ...
    def pause_reading(self, /) -> None: ...
    def resume_reading(self, /) -> None: ...
    def is_reading(self, /) -> bool: ...
    def set_protocol(self, protocol: BaseProtocol) -> None: ...
    def get_protocol(self, /) -> BaseProtocol: ...
    def _read_ready(self, /) -> None: ...

@final
class WritePipeTransport(_FlowControlMixin):
    _protocol: BaseProtocol | None
    _high_water: int
    _low_water: int
    @property
    def _loop(self) -> BaseLoop | None: ...
    @property
    def _pipe(self) -> Any: ...
    @property
    def _fileno(self) -> int: ...
    @property
    def _closing(self) -> bool: ...
    @property
    def _conn_lost(self) -> int: ...
    @property
    def _protocol_paused(self) -> bool: ...
    @property
    def _buffer(self) -> bytearray: ...
    def close(self, /) -> None: ...
    def abort(self, /) -> None: ...
    def is_closing(self, /) -> bool: ...
    def _force_close(self, exc: BaseException | None) -> None: ...
    def _fatal_error(
        self, exc: BaseException, message: str = "Fatal error on transport"
    ) -> None: ...
    def set_protocol(self, protocol: BaseProtocol) -> None: ...
    def get_protocol(self, /) -> BaseProtocol: ...
    def write(self, data: _Buffer) -> None: ...
    def write_eof(self, /) -> None: ...
    def can_write_eof(self, /) -> bool: ...
    def get_write_buffer_size(self, /) -> int: ...
    def get_write_buffer_limits(self, /) -> tuple[int, int]: ...
    def set_write_buffer_limits(
        self, high: float | None = None, low: float | None = None
    ) -> None: ...
    def _maybe_pause_protocol(self, /) -> None: ...

def open_pipe(
    loop: BaseLoop,
    pipe: Any,
    writes: bool,
    reports_end: bool,
    protocol: BaseProtocol,
    waiter: Future[None] | None,
    extra: _Extra | None,
    /,
) -> ReadPipeTransport | WritePipeTransport: ...

@final
class Listener:
    def __call__(self, *args: object, **kwargs: object) -> None: ...

def open_stream(
    loop: BaseLoop,
    sock: socket,
    exposed: bool,
    protocol: BaseProtocol,
    waiter: Future[None] | None,
    extra: _Extra | None,
    server: Server | None,
    context: Context | None,
    /,
) -> StreamTransport: ...
def open_datagram(
    loop: BaseLoop,
    sock: socket,
    exposed: object,
    protocol: BaseProtocol,
    address: object,
    waiter: Future[None] | None,
    extra: _Extra | None,
    /,
) -> DatagramTransport: ...

@final
class SocketCall(Generic[_T]):
    def __await__(self) -> Generator[Any, None, _T]: ...
    def __call__(self, *args: Any, **kwargs: Any) -> None: ...
    def close(self, /) -> None: ...

def is_plain_class(kind: type, /) -> bool: ...

# What is done at once is answered, else the call that waits.
def sock_recv(
    loop: object, sock: socket, size: object, /
) -> bytes | SocketCall[bytes]: ...
def sock_recv_into(
    loop: object, sock: socket, buffer: object, /
) -> int | SocketCall[int]: ...
def sock_recvfrom(
    loop: object, sock: socket, size: object, /
) -> tuple[bytes, Any] | SocketCall[tuple[bytes, Any]]: ...
def sock_recvfrom_into(
    loop: object, sock: socket, buffer: object, size: object, /
) -> tuple[int, Any] | SocketCall[tuple[int, Any]]: ...
def sock_sendall(
    loop: object, sock: socket, data: object, /
) -> SocketCall[None] | None: ...
def sock_sendto(
    loop: object, sock: socket, data: object, address: object, /
) -> int | SocketCall[int]: ...
def sock_accept(
    loop: object, sock: socket, /
) -> tuple[socket, Any] | SocketCall[tuple[socket, Any]]: ...
def sock_connect(
    loop: object, sock: socket, address: object, /
) -> None | SocketCall[None]: ...
def is_literal(family: object, address: object, /) -> bool: ...
def start_accepting(
    loop: BaseLoop,
    sock: socket,
    factory: Callable[[], BaseProtocol],
    server: Server | None,
    backlog: int,
    accept_tls: Callable[[socket, _PeerName], object] | None,
    context: Context | None,
    /,
) -> None: ...
def resume_accepting(listener: Listener, /) -> None: ...

# -- the executor ------------------------------------------------------------

@final
class ExecutorJob:
    @property
    def future(self) -> ExecutorJob: ...
    def run(self, /, *context: object) -> None: ...
    def cancel(self, /) -> bool: ...
    def set_exception(self, exception: BaseException, /) -> None: ...
    @property
    def asyncio_future(self) -> Future[Any]: ...

def executor_job(
    loop: BaseLoop, func: Callable[..., object], args: tuple[Any, ...], /
) -> ExecutorJob | None: ...

# -- what programs look into -------------------------------------------------

def ready_handles(loop: BaseLoop, /) -> list[_AsyncioHandle]: ...
def scheduled_handles(loop: BaseLoop, /) -> list[TimerHandle]: ...
def fd_users(
    loop: BaseLoop, /
) -> list[
    tuple[
        int,
        Any,
        Handle | SocketCall[Any] | None,
        Handle | SocketCall[Any] | None,
        StreamTransport | DatagramTransport | None,
    ]
]: ...

# -- the module --------------------------------------------------------------

def open_tls(
    loop: BaseLoop,
    protocol: BaseProtocol,
    wrap: Callable[[], Any],
    libssl: str | None,
    made: bool,
    /,
) -> TlsAdapter: ...
def use_tls(
    module: Any,
    again: Any,
    error: type[Exception],
    zero: type[Exception],
    /,
) -> None: ...
def libuv_version() -> str: ...
def has_switches() -> bool: ...
def _flush_corked() -> None: ...
