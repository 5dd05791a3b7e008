"""The names and types of fastloop._core, the C part; see src/README.md.

The texts of the methods are in C, for help().  The signatures are as strict as
the built module: a parameter that C takes by position only is so here.  What
asyncio's own classes expect of a name without a leading underscore is met,
except for that.  Of asyncio's private names in handles, readers and transports
it has only those that fastloop's Python uses with their types.
"""

import sys
from asyncio import (
    AbstractEventLoop,
    BaseProtocol,
    Future,
    Server,
    StreamReader,
    Task,
)
from asyncio import DatagramTransport as _AsyncioDatagramTransport
from asyncio import Handle as _AsyncioHandle
from asyncio import Protocol as _AsyncioProtocol
from asyncio import TimerHandle as _AsyncioTimerHandle
from asyncio.transports import _FlowControlMixin
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from socket import socket
from typing import (
    Any,
    ClassVar,
    Generic,
    TypeAlias,
    TypeVar,
    TypeVarTuple,
    final,
)

from typing_extensions import disjoint_base

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_Extra: TypeAlias = dict[str, Any]
_User: TypeAlias = Handle | SocketCall[Any] | None
_PeerName: TypeAlias = (
    tuple[str, int] | tuple[str, int, int, int] | str | bytes | None
)

# -- callbacks ---------------------------------------------------------------

@final
class Handle(_AsyncioHandle):
    @property
    def _source_traceback(self) -> Any: ...

@final
class TimerHandle(_AsyncioTimerHandle):
    @property
    def _source_traceback(self) -> Any: ...
    @property
    def _scheduled(self) -> bool: ...

# -- the loop ----------------------------------------------------------------

@disjoint_base
class BaseLoop:
    _off: int
    _slow_s: float
    _next_deadline: float
    @property
    def _ready_count(self) -> int: ...
    def _fd_users(self, /) -> list[tuple[int, Any, _User, _User]]: ...
    _debug: bool
    _stopping: bool
    _thread_id: int | None
    _slow_callback_hook: Callable[[Any], object] | None
    _python_transports: Any
    _made_watcher: Any
    _made_asyncgens: Any
    _executor_shutdown_called: bool
    def call_soon(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> Handle: ...
    def call_soon_threadsafe(
        self,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> Handle: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> TimerHandle: ...
    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> TimerHandle: ...
    def time(self, /) -> float: ...
    def _iterate_until_stopped(self, /) -> None: ...
    def _run_once(self, /) -> None: ...
    def _run_shuffled(self, seconds: float, bits: int, /) -> bool: ...
    def _nest(self, run: Callable[[], object], /) -> None: ...
    def is_running(self, /) -> bool: ...
    def get_debug(self, /) -> bool: ...
    def _enable_metrics(self, /) -> None: ...
    def _read_metrics(self, /) -> list[int] | None: ...
    def _running_callback(self, /) -> tuple[int, int] | None: ...
    def _close(self, /) -> None: ...
    def create_future(self, /) -> Future[Any]: ...
    if sys.version_info >= (3, 14):
        def create_task(
            self,
            coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
            **kwargs: Any,
        ) -> Task[_T]: ...
    elif sys.version_info >= (3, 13):  # keywords of any name: 3.13.3
        def create_task(
            self,
            coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
            *,
            name: str | None = None,
            context: Context | None = None,
            **kwargs: Any,
        ) -> Task[_T]: ...
    else:
        def create_task(
            self,
            coro: Coroutine[Any, Any, _T] | Generator[Any, None, _T],
            *,
            name: str | None = None,
            context: Context | None = None,
        ) -> Task[_T]: ...

# -- stream readers ----------------------------------------------------------

# Bytes; or a future to wait for; or None: asyncio's method must go on.
def _take(
    reader: StreamReader, n: int, waited: bool, exactly: bool, /
) -> bytes: ...
def _take_until(
    reader: StreamReader, separator: bytes, searched: int, /
) -> bytes: ...
def _use_stream_reader(type: type[StreamReader], /) -> None: ...

# -- transports ---------------------------------------------------------------

# What they do not declare here is as asyncio's base class declares it.

@final
class StreamTransport(_FlowControlMixin):
    _sendfile_compatible: ClassVar[Any]
    @property
    def _sock(self) -> socket | None: ...
    def _block_writes(self, waiter: Future[None] | bool | None, /) -> Any: ...

@final
class SSLTransport(_FlowControlMixin):
    _sendfile_compatible: ClassVar[Any]
    def get_read_buffer_size(self, /) -> int: ...
    get_read_buffer_limits: Callable[[], tuple[int, int]]  # both by _tls.py
    set_read_buffer_limits: Callable[..., None]

@final
class TlsAdapter(_AsyncioProtocol):
    @property
    def _extra(self) -> _Extra: ...
    _sslcontext: Any
    _waiter: Future[None] | None
    _ssl_handshake_timeout: float
    _ssl_shutdown_timeout: float
    _state: Any  # set by _tls.py
    def connection_made(self, transport: Any, /) -> None: ...
    def connection_lost(self, exc: Exception | None, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self, /) -> bool | None: ...
    def pause_writing(self, /) -> None: ...
    def resume_writing(self, /) -> None: ...

# asyncio's base class DatagramTransport is among its own from 3.12 on.
@final
class DatagramTransport(_FlowControlMixin, _AsyncioDatagramTransport): ...

@final
class Listener:
    def __call__(self, *args: object, **kwargs: object) -> None: ...

# `loop` must be fastloop's, here and in three functions below.  The parts of
# Loop that pass themselves are asyncio's loops to a type checker.
def open_stream(
    loop: AbstractEventLoop,
    sock: socket,
    fd_shared: int,
    protocol: BaseProtocol,
    waiter: Future[None] | None,
    extra: _Extra | None,
    server: Server | None,
    context: Context | None,
    /,
) -> StreamTransport: ...
def open_datagram(
    loop: AbstractEventLoop,
    sock: socket,
    fd_shared: object,
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
    loop: AbstractEventLoop,
    sock: socket,
    factory: Callable[[], BaseProtocol],
    server: Server | None,
    messages: bool,
    shared: bool,
    accept_tls: Callable[[socket, _PeerName], object] | None,
    context: Context | None,
    /,
) -> None: ...

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
    loop: AbstractEventLoop,
    func: Callable[..., object],
    args: tuple[Any, ...],
    /,
) -> ExecutorJob | None: ...

# -- the module --------------------------------------------------------------

def open_tls(
    loop: BaseLoop,
    protocol: BaseProtocol,
    wrap: Callable[[], Any],
    libssl: bytes | None,
    made: bool,
    /,
) -> TlsAdapter: ...
def use_tls(
    module: Any, again: Any, error: type[Exception], ends: Any, /
) -> None: ...
def libuv_version() -> str: ...
def has_switches() -> bool: ...

PATHS: str

def _flush_corked() -> None: ...
def _before_fork() -> None: ...
def _after_fork() -> None: ...
