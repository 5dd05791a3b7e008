"""Measures a web application: a fresh server under load, each time."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .client import HOST, SHARES
from .commands import Refused
from .machine import processors
from .options import listed
from .processes import Child, Processes, worker_command
from .program import Race
from .worker import peak_memory

__all__ = ["HttpRace"]

#: Seconds of a server's warm-up at most.
_WARM = 1.0
#: Seconds that the client may take beyond the time it was given.
_PATIENCE = 20.0
#: What uvicorn says last, after the reason.
_NO_REASON = "startup failed"


class HttpRace(Race):
    """What `bench --http` measures."""

    kind = "http"
    metrics = (
        ("rate", "requests a second", "", "more"),
        ("cpu", "CPU a request", "µs", "less"),
        ("p50", "latency p50", "ms", "less"),
        ("p90", "latency p90", "ms", "less"),
        ("p99", "latency p99", "ms", "less"),
        ("p999", "latency p99.9", "ms", "less"),
        ("memory", "peak memory", "MiB", "less"),
    )

    def __init__(
        self,
        options: argparse.Namespace,
        processes: Processes,
        start_limit: float,
    ) -> None:
        if not options.path.startswith("/"):
            raise Refused("--path begins with /")
        if not (options.path.isascii() and options.path.isprintable()) or (
            " " in options.path
        ):
            raise Refused(
                "--path is ASCII without spaces: write others as %20 and so on"
            )
        _check_name(options.http)
        self.app: str = options.http
        self.path: str = options.path
        super().__init__(processes)
        self._options = options
        # Asked before the server is given a processor of its own.
        self._spins = len(processors()) > 1
        self._start_limit = start_limit
        self._cpu = _take_processors()
        self._served: dict[str, str] = {}
        self._rate: float = options.rate or 0.0
        self._warming: float = min(_WARM, options.seconds)
        self._busy = 0.0
        self.title = f"{self.app} GET {self.path}"

    @property
    def how(self) -> str:
        """How it is measured."""
        return (
            "Each server is warmed up, then asked by fastloop's own client "
            f"over {self._options.connections} connections for "
            f"{self._options.seconds:g} s as fast as it answers: requests a "
            "second and CPU a request, user and system, of all processes of "
            f"the server. Then for as long at {self._rate:,.0f} requests a "
            "second, the same for each loop: latency runs from when a request "
            "was due, so that a stall counts in full. Peak memory is that of "
            "the server's processes, added up." + self._pinning
        )

    @property
    def _pinning(self) -> str:
        if not self._cpu:
            return ""
        others = listed(list(map(str, processors())))
        return (
            f" The server is pinned to CPU {self._cpu}, the load to {others}."
        )

    @property
    def settings(self) -> dict[str, str]:
        """What one needs to know to repeat it."""
        return self._served | {
            "latency": f"at {self._rate:,.1f} requests a second",
            "connections": str(self._options.connections),
            "seconds of a phase": f"{self._options.seconds:g}",
            "server's CPU": self._cpu or "any",
        }

    @property
    def notes(self) -> list[str]:
        """Say so if the load client was the limit."""
        if self._busy > 0.9:
            return [
                "The load client was busy all the time, so the server may do "
                "more: compare CPU a request."
            ]
        return []

    def warm(self, kind: str) -> float:
        """Find how many requests it answers, to choose the common rate.

        Returns the seconds that a measurement will take.
        """
        with self._server(kind) as (_, port):
            found = self._full_load(kind, port)
            self._served = json.loads(self._serves.read_text())
        if not self._options.rate:
            half = found["requests"] / found["seconds"] / 2
            self._rate = min(self._rate or half, half, 5000.0)
        return 2 * float(self._options.seconds) + self._warming + 1

    def measure(self, kind: str) -> dict[str, float]:
        """Measure a fresh server; raises Refused if something fails."""
        seconds = self._options.seconds
        with self._server(kind) as (child, port):
            self._load(kind, port, self._warming)
            before = _cpu_of(child.pid)
            fast = self._full_load(kind, port)
            spent = _cpu_of(child.pid) - before
            even = self._load(kind, port, seconds, self._rate)
            memory = sum(peak_memory(one.pid) for one in _tree(child.pid))
        self._busy = max(self._busy, fast["busy"])
        self._note_end(kind)
        return {
            "rate": fast["requests"] / fast["seconds"],
            "cpu": spent / fast["requests"] * 1e6,
            "memory": memory / 2**20,
            **{key: even[key] for key in SHARES if key in even},
        }

    # -- the server --------------------------------------------------------

    @contextmanager
    def _server(self, kind: str) -> Iterator[tuple[Child, int]]:
        self._forget()
        port = _free_port()
        words = (kind, port, self._report, self._cpu, self.app)
        child = self._processes.start(worker_command("serve", *words))
        try:
            self._wait_for(child, kind, port)
            self._ask_once(kind, port)
            yield child, port
        except Refused:
            if child.wait(0.1) is None:
                raise
            name = f"the server on {kind}"
            raise Refused(child.failure(name, _NO_REASON)) from None
        finally:
            child.stop()

    def _wait_for(self, child: Child, kind: str, port: int) -> None:
        end = time.monotonic() + self._start_limit
        while time.monotonic() < end and child.wait(0.02) is None:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    return
        raise Refused(
            f"the server on {kind} did not listen in {self._start_limit:g} s"
            + ", which --timeout sets" * (child.wait(0) is None)
        )

    def _ask_once(self, kind: str, port: int) -> None:
        """Ask for the path; raise Refused if it does not answer well."""
        connection = http.client.HTTPConnection(HOST, port, timeout=10.0)
        try:
            connection.request("GET", self.path)
            status = connection.getresponse().status
        except (OSError, ValueError, http.client.HTTPException) as exc:
            text = f"{type(exc).__name__}: {exc}".rstrip(": ")
            raise Refused(
                f"the server on {kind} did not answer GET {self.path}: {text}"
            ) from exc
        finally:
            connection.close()
        if not 200 <= status < 400:
            raise Refused(
                f"{self.app} answered {status} to GET {self.path} on {kind}, "
                "so its speed was not measured"
            )

    # -- the load ----------------------------------------------------------

    def _load(
        self, kind: str, port: int, seconds: float, rate: float = 0
    ) -> dict[str, float]:
        """Ask as fast as answers come, or at a rate; return what was found.

        Raises Refused if the client or a request failed.
        """
        words = (port, self.path, self._options.connections, seconds, rate)
        # Without options, such as -X dev, which are for what is measured.
        command = worker_command(
            "client", *words, int(self._spins), options=False
        )
        with open(self._processes.folder / "load", "w+") as out:
            child = self._processes.start(command, stdout=out)
            status = child.wait(seconds + _PATIENCE)
            if status is None:
                raise Refused("the load client did not end in time")
            if status:
                raise Refused(child.failure("the load client"))
            child.end()
            out.seek(0)
            found: dict[str, float] = json.load(out)
        answered = found["requests"]
        if found["errors"]:
            raise Refused(
                f"{found['errors']} requests to {self.app} on {kind} failed "
                f"or were answered with an error; {answered} were answered"
            )
        if found["late"]:
            raise Refused(
                f"of {answered} requests to {self.app} on {kind}, at "
                f"{rate:,.0f} a second, {found['late']} were not answered in "
                "time"
            )
        return found

    def _full_load(self, kind: str, port: int) -> dict[str, float]:
        found = self._load(kind, port, self._options.seconds)
        if not found["requests"]:
            raise Refused(f"the server on {kind} answered nothing under load")
        return found


def _check_name(app: str) -> None:
    """Check the form only: the server finds the module on its own path."""
    module, _, name = app.partition(":")
    if not (module and name) or "/" in module or module.endswith(".py"):
        raise Refused(
            "--http needs the names of a module and of the application in "
            f"it, such as main:app; {app} is not that"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _take_processors() -> str:
    """Leave one processor to the server and go to the others.

    The load tools are started from here, so they go there too.  "" where
    there is only one or the system cannot do this.
    """
    *others, last = processors()
    if not others or not hasattr(os, "sched_setaffinity"):
        return ""
    os.sched_setaffinity(0, others)
    return str(last)


def _tree(pid: int) -> list[Any]:
    import psutil

    leader = psutil.Process(pid)
    return [leader, *leader.children(recursive=True)]


def _cpu_of(pid: int) -> float:
    """Return the CPU seconds of a server, to 10 ms.

    Those of its processes that have ended are in their parents' figures.
    """
    import psutil

    found = 0.0
    for one in _tree(pid):
        with suppress(psutil.NoSuchProcess):
            found += sum(one.cpu_times()[:4])
    return found
