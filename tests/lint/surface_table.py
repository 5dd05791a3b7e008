"""asyncio's surface from CPython 3.11 to 3.15, as data.

A line is a method and its parameters as a `def` would have them, without
self.  `@3.13` after a parameter, or after the line, names the first version
that has it; `@<3.14` the first that has it no more.  Versions with a third
number are real: 3.13.3 brought a keyword.

What is checked of a line: asyncio's own class has exactly this on the running
version, and so has fastloop's.
"""

from __future__ import annotations

import re
import sys

LOOP = """
run_forever()
run_until_complete(future)
stop()
is_running()
is_closed()
close()
shutdown_asyncgens()
shutdown_default_executor(timeout=None@3.12)
call_soon(callback, *args, context=None)
call_soon_threadsafe(callback, *args, context=None)
call_later(delay, callback, *args, context=None)
call_at(when, callback, *args, context=None)
time()
create_future()
create_task(coro, *, name=None@<3.14, context=None@<3.14, **kwargs@3.13.3)
set_task_factory(factory)
get_task_factory()
run_in_executor(executor, func, *args)
set_default_executor(executor)
getaddrinfo(host, port, *, family=0, type=0, proto=0, flags=0)
getnameinfo(sockaddr, flags=0)
create_connection(protocol_factory, host=None, port=None, *, ssl=None, \
family=0, proto=0, flags=0, sock=None, local_addr=None, server_hostname=None, \
ssl_handshake_timeout=None, ssl_shutdown_timeout=None, \
happy_eyeballs_delay=None, interleave=None, all_errors=False@3.12)
create_server(protocol_factory, host=None, port=None, *, \
family=AF_UNSPEC, flags=AI_PASSIVE, sock=None, backlog=100, ssl=None, \
reuse_address=None, reuse_port=None, keep_alive=None@3.13, \
ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True)
create_unix_connection(protocol_factory, path=None, *, ssl=None, sock=None, \
server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)
create_unix_server(protocol_factory, path=None, *, sock=None, backlog=100, \
ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, \
start_serving=True, cleanup_socket=True@3.13)
connect_accepted_socket(protocol_factory, sock, *, ssl=None, \
ssl_handshake_timeout=None, ssl_shutdown_timeout=None)
start_tls(transport, protocol, sslcontext, *, server_side=False, \
server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)
sendfile(transport, file, offset=0, count=None, *, fallback=True)
create_datagram_endpoint(protocol_factory, local_addr=None, \
remote_addr=None, *, family=0, proto=0, flags=0, reuse_port=None, \
allow_broadcast=None, sock=None)
connect_read_pipe(protocol_factory, pipe)
connect_write_pipe(protocol_factory, pipe)
subprocess_exec(protocol_factory, program, *args, stdin=PIPE, stdout=PIPE, \
stderr=PIPE, universal_newlines=False, shell=False, bufsize=0, \
encoding=None, errors=None, text=None, **kwargs)
subprocess_shell(protocol_factory, cmd, *, stdin=PIPE, stdout=PIPE, \
stderr=PIPE, universal_newlines=False, shell=True, bufsize=0, \
encoding=None, errors=None, text=None, **kwargs)
add_reader(fd, callback, *args)
remove_reader(fd)
add_writer(fd, callback, *args)
remove_writer(fd)
sock_recv(sock, n)
sock_recv_into(sock, buf)
sock_recvfrom(sock, bufsize)
sock_recvfrom_into(sock, buf, nbytes=0)
sock_sendall(sock, data)
sock_sendto(sock, data, address)
sock_connect(sock, address)
sock_accept(sock)
sock_sendfile(sock, file, offset=0, count=None, *, fallback=True)
add_signal_handler(sig, callback, *args)
remove_signal_handler(sig)
set_exception_handler(handler)
get_exception_handler()
call_exception_handler(context)
default_exception_handler(context)
get_debug()
set_debug(enabled)
"""

SERVER = """
close()
get_loop()
is_serving()
start_serving()
serve_forever()
wait_closed()
close_clients() @3.13
abort_clients() @3.13
__aenter__()
__aexit__(*exc)
"""

BASE = """
close()
is_closing()
get_extra_info(name, default=None)
set_protocol(protocol)
get_protocol()
"""
READ = """
is_reading()
pause_reading()
resume_reading()
"""
LIMITS = """
get_write_buffer_size()
get_write_buffer_limits()
set_write_buffer_limits(high=None, low=None)
"""
WRITE = """
write(data)
writelines(list_of_data)
write_eof()
can_write_eof()
abort()
"""
DATAGRAM = """
sendto(data, addr=None)
abort()
"""
SUBPROCESS = """
get_pid()
get_returncode()
get_pipe_transport(fd)
send_signal(signal)
terminate()
kill()
"""
HANDLE = """
cancel()
cancelled()
get_context() @3.12
"""
TIMER = "when()"

#: Attributes of asyncio's BaseEventLoop that libraries are known to read.
PRIVATE_LOOP = """
_add_callback _add_reader _add_writer _asyncgens _call_soon _check_callback
_check_closed _check_running _check_thread _clock_resolution _closed
_current_handle _debug _default_executor _exception_handler _internal_fds
_make_socket_transport _make_ssl_transport _ready _remove_reader
_remove_writer _run_once _scheduled _selector _set_coroutine_origin_tracking
_signal_handlers _start_serving _stop_serving _stopping _task_factory
_thread_id _timer_cancelled_count _timer_handle_cancelled _transports
_unix_server_sockets@3.13 _write_to_self
""".split()

PRIVATE_HANDLE = """
_callback _args _context _loop _cancelled _source_traceback _repr _run
_repr_info
""".split()
PRIVATE_TIMER = ["_when", "_scheduled"]

#: What transports of every kind are asked for besides their methods.
PRIVATE_TRANSPORT = """
_loop _sock _protocol _extra _closing _conn_lost _paused _eof _server
_force_close _fatal_error _protocol_paused _sendfile_compatible
_start_tls_compatible max_size
""".split()


def reached(mark: str) -> bool:
    """Whether the running version is in the range a mark names."""
    before = mark.startswith("<")
    wanted = tuple(map(int, mark.lstrip("<").split(".")))
    return (sys.version_info[:3] < wanted) is before


def of_this_version(entry: str) -> str:
    """An entry without its mark; empty where this version lacks it."""
    text, _, mark = entry.partition("@")
    return text.strip() if not mark or reached(mark) else ""


_ROW = re.compile(r"(\w+)\((.*)\)\s*(@\S+)?")


def _lines(table: str) -> list[tuple[str, str, str]]:
    """Method, parameters and mark of each line."""
    found = []
    for line in table.replace("\\\n", "").strip().splitlines():
        match = _ROW.fullmatch(line)
        if match is None:
            raise ValueError(f"no row: {line!r}")
        name, parameters, mark = match.groups()
        found.append((name, parameters, mark or ""))
    return found


def all_rows(table: str) -> dict[str, list[str]]:
    """Method -> its optional parameters, on whatever version."""
    return {
        name: [
            parameter.partition("=")[0].strip()
            for parameter in parameters.split(",")
            if "=" in parameter
        ]
        for name, parameters, _ in _lines(table)
    }


def rows(table: str) -> dict[str, list[str] | None]:
    """Method -> its parameters here, or None where there is no method."""
    found: dict[str, list[str] | None] = {}
    for name, parameters, mark in _lines(table):
        here = [of_this_version(p) for p in parameters.split(",")]
        here = [p for p in here if p]
        # A bare star needs names after it.
        if "*" in here and "".join(here[here.index("*") + 1 :])[:2] in (
            "",
            "**",
        ):
            here.remove("*")
        found[name] = here if of_this_version(f"x{mark}") else None
    return found
