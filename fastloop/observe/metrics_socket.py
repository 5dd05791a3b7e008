"""The Unix socket on which a process shows its loops' metrics to ``top``.

A thread serves the socket, because a blocked loop could not.  The thread
sleeps until a client connects.  A client gets one JSON document and then EOF.
Nothing is read from it, so a client cannot change anything.  The socket has
mode 0600 before it listens.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import itertools
import json
import os
import socket
import stat
import sys
import tempfile
import threading
import time
import traceback
import weakref

from fastloop import __version__, metrics
from fastloop._process_end import at_end_of_child

from . import stacks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fastloop.loop import Loop


#: How long a slow client may keep the others waiting.
_SEND_SECONDS = 1.0
#: A loop that is busy for this long counts as blocked: its stack is shown.
_BLOCKED_NS = 50_000_000


def default_path(pid: int, uid: int) -> str:
    """Return the socket's path for a process and user if none is given."""
    folder = tempfile.gettempdir()
    return os.path.join(folder, f"fastloop-{uid}", f"{pid}.sock")


def _make_folder(path: str) -> None:
    """Make the folder of default paths; OSError if not this user's alone."""
    folder = os.path.dirname(path)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid != os.geteuid()
        or found.st_mode & 0o022
    ):
        raise PermissionError(
            errno.EPERM, "not a folder that this user alone writes to", folder
        )


def _remove_stale(path: str) -> None:
    """Remove a socket without a listener; OSError for any other file."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "not a socket", path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_SEND_SECONDS)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(
        errno.EADDRINUSE,
        "another process shows its metrics there; {pid} in the path makes "
        "one for each process",
        path,
    )


def _listen(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(path)
        # No client can connect before listen(), so none precedes the chmod.
        os.chmod(path, 0o600)
        sock.listen(8)
    except OSError:
        sock.close()
        raise
    return sock


def _blocked_in(loop: Loop, busy_ns: int) -> list[str]:
    """Return where the loop's thread is, outermost first, if it blocks."""
    if busy_ns < _BLOCKED_NS:
        return []
    if not stacks.readable():
        return [f"(unknown without a GIL: {stacks.UNREADABLE})"]
    return _places(stacks.stack_of(loop)[0])


def _places(stack: Iterable[traceback.FrameSummary]) -> list[str]:
    return [f"{at.filename}:{at.lineno} {at.name}" for at in stack]


def _shown(
    one: metrics.SlowCallback | metrics.BlockedCallback,
) -> dict[str, Any]:
    return {
        "name": one.name,
        "duration_ns": one.duration_ns,
        "stack": _places(one.stack),
    }


def describe_loop(loop: Loop) -> dict[str, Any]:
    """Return what the JSON document says of one loop."""
    found = loop.metrics()
    watchdog = loop._watchdog
    blocked = () if watchdog is None else watchdog.recent
    return {
        "running": loop.is_running(),
        "metrics": found.to_dict(),
        "blocked_in": _blocked_in(loop, found.busy_ns),
        "slow": [_shown(one) for one in loop._recent_slow],
        "blocked": [
            {**_shown(one), "gc_time_ns": one.gc_time_ns} for one in blocked
        ],
    }


class _Server(threading.Thread):
    """The thread of one socket, and the loops that it shows."""

    def __init__(self, path: str, sock: socket.socket) -> None:
        super().__init__(name="fastloop-metrics", daemon=True)
        self.path = path
        self.sock = sock
        self._numbers = itertools.count()
        # Always replaced as a whole: the thread reads it without a lock.
        self._loops: dict[int, weakref.ref[Loop]] = {}

    def loops(self) -> dict[int, Loop]:
        """Return the loops that are open, by number."""
        found = {number: one() for number, one in self._loops.items()}
        return {
            number: one
            for number, one in found.items()
            if one is not None and not one.is_closed()
        }

    def add(self, loop: Loop) -> None:
        """Show a loop, unless it is shown already."""
        loops = self.loops()
        if loop not in loops.values():
            loops[next(self._numbers)] = loop
            self._loops = {
                number: weakref.ref(one) for number, one in loops.items()
            }

    def run(self) -> None:
        """Answer each client, until the socket is shut down."""
        while True:
            try:
                peer, _ = self.sock.accept()
            except ConnectionError:
                continue  # the client has disconnected
            except OSError as exc:
                if exc.errno in (errno.EINVAL, errno.EBADF):
                    break
                time.sleep(0.1)  # out of descriptors: it would fail again
                continue
            with peer:
                self._answer(peer)
        self.sock.close()

    def _answer(self, peer: socket.socket) -> None:
        peer.settimeout(_SEND_SECONDS)
        try:
            answer = json.dumps(self._describe()).encode() + b"\n"
        except Exception:
            # Of a program's own metrics(); the next client is served.
            traceback.print_exc()
            return
        # A client may disconnect before the end.
        with contextlib.suppress(OSError):
            peer.sendall(answer)
            # close() alone sends no EOF if a child was forked meanwhile: it
            # has the descriptor too.
            peer.shutdown(socket.SHUT_WR)

    def _describe(self) -> dict[str, Any]:
        return {
            "fastloop": __version__,
            "python": sys.version.split()[0],
            "pid": os.getpid(),
            "program": sys.argv[0] if sys.argv else "",
            "time_ns": time.monotonic_ns(),
            "loops": [
                {"number": number, **describe_loop(loop)}
                for number, loop in self.loops().items()
            ],
        }


_lock = threading.Lock()
_servers: dict[str, _Server] = {}


def show(loop: Loop, path: str | None) -> None:
    """Show a loop on the socket of a path, until the process ends.

    None selects the default path.  Raises OSError if it cannot be opened.
    """
    if path is None:
        where = default_path(os.getpid(), os.geteuid())
    else:
        where = os.path.abspath(path.replace("{pid}", str(os.getpid())))
    with _lock:
        server = _servers.get(where)
        if server is None:
            if path is None:
                _make_folder(where)
            _remove_stale(where)
            server = _started(where)
            _servers[where] = server
        server.add(loop)


def _started(path: str) -> _Server:
    """Return a server that runs; raise OSError if it cannot."""
    sock = _listen(path)
    try:
        server = _Server(path, sock)
        server.start()
    except RuntimeError as exc:
        # Too many threads, Python exits, or a subinterpreter without daemons.
        sock.close()
        os.unlink(path)
        raise OSError(errno.EAGAIN, str(exc)) from exc
    if not _servers:
        at_end_of_child(_stop_all)
    return server


def _stop_all() -> None:
    """Remove the sockets, and wait at most a second for each thread."""
    for server in _servers.values():
        with contextlib.suppress(OSError):
            os.unlink(server.path)
        with contextlib.suppress(OSError):
            server.sock.shutdown(socket.SHUT_RDWR)  # ends accept(), on Linux
        server.join(_SEND_SECONDS)
    _servers.clear()


def _forget_parents() -> None:
    """In a forked child, close the sockets that the parent still serves."""
    global _lock
    _lock = threading.Lock()
    for server in _servers.values():
        server.sock.close()
    _servers.clear()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_forget_parents)
