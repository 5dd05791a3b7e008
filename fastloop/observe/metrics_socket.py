"""The Unix socket on which a process shows its loops' metrics to ``top``.

A thread serves the socket, because a blocked loop could not.  A client gets
one JSON document and then EOF.  Nothing is read from it.  The socket is in a
folder into which only its user may look.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import json
import os
import re
import socket
import stat
import sys
import tempfile
import threading
import time
import traceback

from fastloop import __version__
from fastloop._loop._environment import at_end_of_child, has_gil

from . import stacks
from ._observed import NamedLoops, lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from fastloop.loop import Loop
    from fastloop.metrics import BlockedCallback, SlowCallback

#: How long a slow client may keep the others waiting.
_SEND_SECONDS = 1.0
#: A socket's name: the process's number.
_NAME = re.compile(r"([1-9][0-9]{0,8})\.sock")
#: The most names that a new process looks at: some milliseconds.
_MOST_NAMES = 1000


def path_of(pid: int | str, user: int) -> str:
    """Return the path of a process's socket."""
    return f"{tempfile.gettempdir()}/fastloop-{user}/{pid}.sock"


def _make_folder(folder: str) -> None:
    """Make a folder; OSError if it is not this user's alone."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    found = os.lstat(folder)
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid != os.geteuid()
        or found.st_mode & 0o077
    ):
        raise PermissionError(
            errno.EPERM, "not a folder that is this user's alone", folder
        )


def _is_abandoned(path: str, pid: int) -> bool:
    """Whether a path is a socket of this user whose process has ended.

    A live process keeps its socket, though that refuses between bind() and
    listen().  A process of another container may seem to have ended, because
    its number is another one here: so the socket must refuse, too.
    """
    found = os.lstat(path)
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            return sock.connect_ex(path) == errno.ECONNREFUSED
    return False


def _remove_abandoned(folder: str) -> None:
    """Remove the sockets of processes that ended without `atexit`."""
    for name in os.listdir(folder)[:_MOST_NAMES]:
        path, match = os.path.join(folder, name), _NAME.fullmatch(name)
        # Another process may remove it first.
        with contextlib.suppress(OSError):
            if match and _is_abandoned(path, int(match[1])):
                os.unlink(path)


def _places(stack: Iterable[traceback.FrameSummary]) -> list[str]:
    return [f"{at.filename}:{at.lineno} {at.name}" for at in stack]


def _shown(one: SlowCallback | BlockedCallback) -> dict[str, Any]:
    more = {"name": one.name, "duration_ns": one.duration_ns}
    return more | {"stack": _places(one.stack)}


def describe_loop(loop: Loop) -> dict[str, Any]:
    """Return what the JSON document says of one loop."""
    found, where = loop.metrics(), []
    if found.busy_ns >= 50_000_000:  # it counts as blocked
        where = ["(unknown without a GIL)"]
        if has_gil():
            where = _places(stacks.stack_of(loop)[0])
    watchdog = loop._fastloop_watchdog
    blocked = () if watchdog is None else watchdog.recent
    return {
        "running": loop.is_running(),
        "metrics": found.to_dict(),
        "blocked_in": where,
        "slow": [_shown(one) for one in loop._recent_slow or ()],
        "blocked": [
            _shown(one) | {"gc_time_ns": one.gc_time_ns} for one in blocked
        ],
    }


class _Server(threading.Thread):
    """The thread of the process's socket, and the loops that it shows."""

    def __init__(self) -> None:
        super().__init__(name="fastloop-metrics", daemon=True)
        self.loops = NamedLoops()
        self.path = path_of(os.getpid(), os.geteuid())
        folder = os.path.dirname(self.path)
        _make_folder(folder)
        _remove_abandoned(folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # of an earlier process with this number
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.bind(self.path)
            self.sock.listen(8)
            self.start()
        except BaseException:
            self.close()
            raise

    def run(self) -> None:
        """Answer each client, until the socket is closed."""
        while self.sock.fileno() >= 0:
            try:
                peer, _ = self.sock.accept()
            except OSError:  # also if there are no descriptors left
                time.sleep(0.1)
                continue
            with peer:
                self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        peer.settimeout(_SEND_SECONDS)
        try:
            answer = json.dumps(self._describe()).encode() + b"\n"
        except Exception:
            # Of a program's own metrics(); the next client is served.
            traceback.print_exc()
            return
        with contextlib.suppress(OSError):  # the client has disconnected
            peer.sendall(answer)
            peer.shutdown(socket.SHUT_WR)  # a forked child may have it too

    def _describe(self) -> dict[str, Any]:
        return {
            "fastloop": __version__,
            "python": sys.version.split()[0],
            "pid": os.getpid(),
            "program": sys.argv[0] if sys.argv else "",
            "loops": [
                {"name": name, **describe_loop(loop)}
                for name, loop in self.loops
            ],
        }

    def close(self) -> None:
        """Close the socket and remove its file."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)  # ends accept(), on Linux
        self.sock.close()


_server: _Server | None = None


def show(loop: Loop) -> None:
    """Show a loop on the process's socket.

    Raises OSError if it cannot be opened, RuntimeError if no thread can start.
    """
    global _server
    with lock:
        if _server is None:
            _server = _Server()
            at_end_of_child(stop)
        _server.loops.add_unnamed(loop)


@atexit.register
def stop() -> None:
    """Remove the socket, and wait at most a second for its thread."""
    global _server
    if _server is not None:
        _server.close()
        _server.join(_SEND_SECONDS)
        _server = None


def _forget_parents() -> None:
    global _server
    if _server is not None:
        _server.sock.close()  # the parent still serves it
        _server = None


os.register_at_fork(after_in_child=_forget_parents)
