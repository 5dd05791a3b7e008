"""Finds the metrics socket of a process, and reads it.

Linux tells on which sockets a process listens: /proc names the file also of a
process that has another temporary folder, other mounts or another pid, as
under systemd and in containers.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastloop import __version__
from fastloop.cli.commands import Refused
from fastloop.cli.options import printable
from fastloop.metrics import LoopMetrics

from .metrics_socket import default_path

__all__ = ["HOW", "find", "read"]

#: How a process comes to have a socket.
HOW = (
    "start it with FASTLOOP_METRICS_SOCKET=1, or have it call "
    "loop.enable_metrics(socket=True)"
)
_TIMEOUT_S = 5.0
#: A longer answer is none of fastloop's.
_MOST_BYTES = 64 << 20
_IS_LINUX = os.path.exists("/proc/self/net/unix")
#: The end of the paths that default_path() gives.
_DEFAULT = re.compile(r"/fastloop-\d+/\d+\.sock$")


# -- finding ------------------------------------------------------------------


def _listening(pid: int) -> Iterator[str]:
    """Yield the paths, as we see them, on which a process listens.

    Raises PermissionError if this user may not look at its files.
    """
    own = f"/proc/{pid}"
    files = set()
    for fd in os.listdir(f"{own}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            files.add(os.readlink(f"{own}/fd/{fd}"))
    # Names are bytes, those of other users too.
    with open(f"{own}/net/unix", errors="surrogateescape") as table:
        for line in table:
            *_, inode, path = ["", *line.rstrip("\n").split(None, 7)]
            if f"socket:[{inode}]" in files and path.startswith("/"):
                yield f"{own}/root{path}"


def _socket_of(pid: int) -> str | None:
    """Return the path of a process's socket, or None.

    Raises what the system does if there is no such process, or if it is
    another user's.
    """
    os.kill(pid, 0)
    if not _IS_LINUX:
        path = default_path(pid, os.geteuid())
        return path if os.path.exists(path) else None
    for path in filter(_DEFAULT.search, _listening(pid)):
        plain = os.path.realpath(path)  # without /proc, if it is the same
        with contextlib.suppress(OSError):
            if os.path.samefile(plain, path):
                return plain
        return path
    return None


def _showing(pid: int) -> Iterator[int]:
    """Yield the processes below one, such as a server's workers, with sockets.

    Those of another user are not seen, and on macOS none are.
    """
    for file in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError):  # ended meanwhile
            for child in map(int, Path(file).read_text().split()):
                with contextlib.suppress(OSError):
                    if _socket_of(child) is not None:
                        yield child
                yield from _showing(child)


def find(target: str) -> str:
    """Return the path of the socket of a pid, or the path that is given.

    Raises Refused if the process has no socket, or it is out of reach.
    """
    if not target.isdecimal():
        return target
    try:
        path = _socket_of(int(target))
    except (FileNotFoundError, ProcessLookupError, OverflowError):
        raise Refused(f"there is no process {target}") from None
    except PermissionError:
        raise Refused(
            f"process {target} does not let this user look at its files: run "
            "top as root, or name the path of its socket"
        ) from None
    if path is None:
        text = f": name the path of its socket, or {HOW}"
        if pids := ", ".join(map(str, _showing(int(target)))):
            text = f", but those that it started have: name one of {pids}"
        raise Refused(
            f"process {target} has no socket of the usual name{text}"
        )
    return path


# -- reading ------------------------------------------------------------------


def read(path: str) -> dict[str, Any]:
    """Return the document that a process sends on its socket.

    Raises Refused if it cannot be read, or is no document of this version of
    fastloop.
    """
    document = bytearray()
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_TIMEOUT_S)
            sock.connect(path)
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
        _ = answer["program"], answer["pid"], answer["python"]
        for loop in answer["loops"]:
            loop["metrics"] = LoopMetrics.from_dict(loop["metrics"])
    except TimeoutError as exc:
        raise Refused(
            f"{path}: no answer in {_TIMEOUT_S:g} s: the process is stopped, "
            "or C code holds its GIL"
        ) from exc
    except OSError as exc:
        raise Refused(f"{path}: {exc.strerror or exc}") from exc
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused(f"{path}: no metrics of fastloop's") from None
    return answer
