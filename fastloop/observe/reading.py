"""Finds the metrics socket of a process, and reads it.

A process may have another temporary folder (TMPDIR), other mounts (systemd's
PrivateTmp, a container) and another pid and user there.  /proc tells of all of
them.  What a socket sends is used only if the process that was asked for
listens on it: anybody may make files in a temporary folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from fastloop import __version__
from fastloop.cli.commands import Refused
from fastloop.cli.options import printable
from fastloop.metrics import LoopMetrics

from .metrics_socket import default_path, socket_name

__all__ = ["HOW", "find", "read"]

#: How a process comes to have a socket.
HOW = (
    "start it with FASTLOOP_METRICS_SOCKET=1, or have it call "
    "loop.enable_metrics(socket=True)"
)
_TIMEOUT_S = 5.0
#: The longest path of a socket, in bytes.
_LONGEST_PATH = 103
_VARIABLE = "FASTLOOP_METRICS_SOCKET"


# -- finding ------------------------------------------------------------------


class _Process(NamedTuple):
    """A process: its pid here and where it runs, and its users there."""

    pid: int
    inner_pid: int
    users: set[int]
    inner_users: set[int]


def _process(pid: int) -> _Process:
    """Look at a process; Refused if there is none, or it is out of reach."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        raise Refused(f"there is no process {pid}") from None
    except PermissionError:
        raise Refused(
            f"process {pid} is another user's: its metrics are for that user"
        ) from None
    if not os.path.exists("/proc/self/status"):
        users = {os.geteuid()}
        return _Process(pid, pid, users, users)
    try:
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.partition(":")[::2] for line in file)
        # A process may have been root's when it opened the socket.
        users = {0, *map(int, fields["Uid"].split())}
        inner_users = set(_inner_users(pid, users))
    except (FileNotFoundError, ProcessLookupError):
        raise Refused(f"there is no process {pid}") from None
    inner_pid = int(fields.get("NSpid", str(pid)).split()[-1])
    return _Process(pid, inner_pid, users, inner_users)


def _inner_users(pid: int, users: set[int]) -> Iterator[int]:
    """Yield the numbers that users have in the process's namespace."""
    with open(f"/proc/{pid}/uid_map") as file:
        for line in file:
            inner, outer, count = map(int, line.split())
            for user in users:
                if outer <= user < outer + count:
                    yield inner + user - outer


def _places(process: _Process) -> Iterator[str]:
    """Yield the paths at which the socket of a process may be.

    Raises PermissionError if this user may not look at its files.
    """
    with contextlib.suppress(FileNotFoundError):  # no temporary folder here
        for user in process.users:
            yield default_path(process.pid, user)
    if not os.path.exists("/proc/self/environ"):
        return
    own = f"/proc/{process.pid}"
    with open(f"{own}/environ", "rb") as file:
        entries = os.fsdecode(file.read()).split("\0")
    variables = dict(entry.partition("=")[::2] for entry in entries)
    os.stat(f"{own}/root")

    def seen_by_it(path: str) -> str:
        return f"{own}/root{path}" if path[:1] == "/" else f"{own}/cwd/{path}"

    path = variables.get(_VARIABLE, "")
    if "/" in path:
        yield seen_by_it(path.replace("{pid}", str(process.inner_pid)))
    # As tempfile looks for its folder.
    named = [variables.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
    usual = ["/tmp", "/var/tmp", "/usr/tmp", "."]
    for folder in filter(None, named + usual):
        for user in process.inner_users:
            name = socket_name(process.inner_pid, user)
            yield seen_by_it(os.path.join(folder, name))


def _socket_of(process: _Process) -> str | None:
    """Return the path of a process's socket, or None.

    Raises Refused if this user may not look for it, or if somebody else's
    file is there.
    """
    strange = None
    try:
        for path in _places(process):
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                if stat.S_ISSOCK(found.st_mode) and (
                    found.st_uid in process.users
                ):
                    return _shortest(path)
                strange = path
    except PermissionError:
        as_root = "" if os.geteuid() == 0 else "run top as root, or "
        raise Refused(
            f"process {process.pid} does not let this user look at its files: "
            f"{as_root}name the path of its socket"
        ) from None
    except (FileNotFoundError, ProcessLookupError):
        raise Refused(f"there is no process {process.pid}") from None
    if strange is not None:
        raise Refused(f"{strange} is not a socket of process {process.pid}")
    return None


def _shortest(path: str) -> str:
    """Return the path without /proc, if that leads to the same file."""
    plain = os.path.realpath(path)
    with contextlib.suppress(OSError):
        if os.path.samefile(plain, path):
            return plain
    return path


def _own_pids() -> Iterator[int]:
    """Yield the processes of this user that may show their metrics."""
    user = os.geteuid()
    if os.path.exists("/proc/self"):
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it has ended
                if os.stat(f"/proc/{name}").st_uid == user:
                    yield int(name)
        return
    with contextlib.suppress(OSError):
        for name in os.listdir(os.path.dirname(default_path(0, user))):
            pid = name.removesuffix(".sock")
            if pid.isdecimal():
                yield int(pid)


def _only_one() -> tuple[str, int]:
    found = []
    for pid in _own_pids():
        with contextlib.suppress(Refused, OSError):
            path = _socket_of(_process(pid))
            if path is not None:
                with _connected(path, pid):
                    found.append((path, pid))
    if not found:
        raise Refused(f"no process of this user shows its metrics: {HOW}")
    if len(found) > 1:
        pids = " ".join(str(pid) for _, pid in sorted(found))
        raise Refused(
            f"several processes show their metrics; name one: {pids}"
        )
    return found[0]


def _may_be_socket(path: str) -> bool:
    """Whether a path is a socket's, or connecting tells what is wrong."""
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except (OSError, ValueError):
        return "/" in path


def find(target: str | None) -> tuple[str, int | None]:
    """Return a socket's path and its process, for a pid, a path or None.

    A path is returned with None, for it may be any process's.  None selects
    the only process of this user that shows its metrics.  Raises Refused if
    there is no such socket, if it is out of reach, or if there is more than
    one for None.
    """
    if target is None:
        return _only_one()
    if not target.isdecimal():
        if not _may_be_socket(target):
            raise Refused(f"{target} is neither a pid nor a socket")
        return target, None
    try:
        pid = int(target)
    except ValueError:  # more digits than Python reads
        raise Refused(f"there is no process {target}") from None
    process = _process(pid)
    path = _socket_of(process)
    if path is None:
        raise Refused(
            f"process {process.pid} has no socket where top looks: name the "
            f"path of its socket, or {HOW}"
        )
    return path, process.pid


# -- reading ------------------------------------------------------------------

#: The most that is read of a document; a loop takes a few kilobytes.
_MOST_BYTES = 1 << 24


def read(path: str, pid: int | None = None) -> dict[str, Any]:
    """Return the document that a process sends on its socket.

    Raises Refused if it cannot be read, is no document of this version of
    fastloop, or if a process other than that of the pid listens.
    """
    document = bytearray()
    try:
        with _connected(path, pid) as sock:
            while part := sock.recv(1 << 16):
                document += part
                if len(document) > _MOST_BYTES:
                    raise ValueError
        answer: dict[str, Any] = json.loads(document)
        version = printable(str(answer["fastloop"]))
        if version != __version__:
            raise Refused(
                f"{path}: its process has fastloop {version}, "
                f"not {__version__}"
            )
        for loop in answer["loops"]:
            loop["metrics"] = LoopMetrics.from_dict(loop["metrics"])
    except TimeoutError as exc:
        raise Refused(
            f"{path}: no answer in {_TIMEOUT_S:g} s: the process is stopped, "
            "or C code holds its GIL"
        ) from exc
    except OSError as exc:
        raise Refused(f"{path}: {exc.strerror or exc}") from exc
    except (ValueError, RecursionError, KeyError, TypeError):
        raise Refused(f"{path}: no metrics of fastloop's") from None
    return answer


@contextlib.contextmanager
def _connected(path: str, pid: int | None) -> Iterator[socket.socket]:
    """Give a socket that is connected to a path; Refused as for `read`."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_TIMEOUT_S)
        _connect(sock, path)
        if pid is not None and _listener(sock) not in (pid, None):
            raise Refused(f"{path}: a process other than {pid} listens there")
        yield sock


def _connect(sock: socket.socket, path: str) -> None:
    """Connect to a path of any length, where the system has O_PATH."""
    if len(os.fsencode(path)) <= _LONGEST_PATH or not hasattr(os, "O_PATH"):
        sock.connect(path)
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        sock.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)


def _listener(sock: socket.socket) -> int | None:
    """Return the pid of the process at the other end, if the system says."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    form = struct.Struct("iII")
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, form.size)
    pid: int = form.unpack(found)[0]
    return pid
