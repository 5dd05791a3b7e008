"""Servers of other projects that some cases need: Redis and PostgreSQL.

Each is started once for a run, on the load generator's CPU, with a folder of
its own that goes with it; cases and servers find its port in the environment.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from harness import network
from harness.counts import cpu_time

START_LIMIT = 30.0
PORT, PID = "FASTLOOP_BENCH_PORT_OF_{}", "FASTLOOP_BENCH_PID_OF_{}"


def _program(name: str) -> str:
    """Return the path of a server's program, or "" without it."""
    if name == "redis":
        return (
            shutil.which("redis-server") or shutil.which("valkey-server") or ""
        )
    if path := shutil.which("postgres"):
        return os.path.realpath(path)  # its own tools lie there
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return str(found[-1]) if found else ""


def missing(name: str) -> str:
    """Return why the server cannot be had, or ""."""
    return "" if _program(name) else f"no {name} server is installed"


def port_of(name: str) -> int:
    return int(os.environ[PORT.format(name)])


def cpu_us(name: str) -> float:
    """Return how long a server ran, or this process, with its children.

    PostgreSQL has one for each connection.  The time of those that have ended
    is in hundredths of a second.
    """
    pid = os.environ.get(PID.format(name), os.getpid())
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ran_us = sum(map(int, stat[13:15])) * 1e6 / os.sysconf("SC_CLK_TCK")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *children):
        with suppress(OSError):  # it ends now
            ran_us += cpu_time(int(each)) / 1e3
    return ran_us


def _user() -> dict[str, object]:
    """Return how to start a server that refuses root: for Popen."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _redis(port: int, folder: str) -> list[str]:
    words = ["--save", "", "--bind", "127.0.0.1", "--dir", folder]
    return [_program("redis"), "--port", str(port), *words]


def _postgres(port: int, folder: str) -> list[str]:
    """Make a database, of the user "race"."""
    program, data = Path(_program("postgres")), f"{folder}/data"
    subprocess.run(
        [program.with_name("initdb"), "-D", data, "-U", "race"]
        + ["-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8"],
        check=True,
        timeout=2 * START_LIMIT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        **_user(),
    )
    words = ["-k", folder, "-h", "127.0.0.1", "-c", "fsync=off"]
    # The connections are those of all loops at once.
    words += ["-c", "max_connections=1000"]
    return [str(program), "-D", data, "-p", str(port), *words]


@contextmanager
def running(name: str) -> Iterator[None]:
    """Run a server for a with-block."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    user = _user()
    command = {"redis": _redis, "postgres": _postgres}[name]
    with tempfile.TemporaryDirectory() as folder:
        if user:
            os.chown(folder, user["user"], user["group"])
        with network.running(
            command(port, folder),
            cwd=folder,
            preexec_fn=lambda: os.sched_setaffinity(0, {network.cpus()[1]}),
            **user,
        ) as child:
            end = time.monotonic() + START_LIMIT
            while True:
                with suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                if child.wait(0) is not None or time.monotonic() > end:
                    raise RuntimeError(f"{name} did not start")
                time.sleep(0.05)
            os.environ[PORT.format(name)] = str(port)
            os.environ[PID.format(name)] = str(child.pid)
            yield
