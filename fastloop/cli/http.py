"""Measures a web application: a fresh server under load, each time."""

import argparse
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec

from .client import SHARES
from .commands import Refused
from .info import processors
from .processes import Child, Processes, worker_command
from .program import Race
from .worker import HOST

_CONNECTIONS = 32
#: Seconds of a server's warm-up at most.
_WARM = 1.0
#: Seconds that the client may take beyond the time it was given.
_PATIENCE = 20.0


class HttpRace(Race):
    """What `bench --http` measures.

    Each server is warmed up, then asked as fast as it answers (requests a
    second, CPU a request), and then at one rate for all loops (latency).
    """

    kind = "http"
    metrics = (
        ("rate", "requests a second", "", "more"),
        ("cpu", "CPU a request", "µs", "less"),
        ("p50", "latency p50", "ms", "less"),
        ("p99", "latency p99", "ms", "less"),
        ("memory", "peak memory", "MiB", "less"),
    )

    def __init__(
        self,
        options: argparse.Namespace,
        processes: Processes,
        start_limit: float,
    ) -> None:
        path: str = options.path
        if not path.startswith("/") or not path.isprintable() or " " in path:
            raise Refused("--path begins with /, and has %20 for a space")
        module, _, name = options.http.partition(":")
        if not (module and name) or "/" in module or module.endswith(".py"):
            raise Refused(
                "--http needs the names of a module and of the application "
                f"in it, such as main:app; {options.http} is not that"
            )
        if find_spec("uvicorn") is None:
            raise Refused("bench --http needs uvicorn: pip install uvicorn")
        super().__init__(processes)
        self.app: str = options.http
        self.path = path
        self.title = f"{self.app} GET {self.path}"
        self._seconds: float = options.seconds
        self._start_limit = start_limit
        self._cpu = _take_processors()
        self._rate = 5000.0
        self._busy = 0.0

    @property
    def settings(self) -> dict[str, str]:
        """What one needs to know to repeat it."""
        parser = "httptools" if find_spec("httptools") else "h11"
        return {
            "server": f"uvicorn {version('uvicorn')}",
            "http parser": f"{parser} {version(parser)}",
            "latency": f"at {self._rate:,.1f} requests a second",
            "connections": str(_CONNECTIONS),
            "seconds of a phase": f"{self._seconds:g}",
            "server's CPU": self._cpu or "any",
        }

    @property
    def notes(self) -> list[str]:
        """Say so if the load client was the limit."""
        text = "The load client was busy all the time, so the server may do "
        text += "more: compare CPU a request."
        return [text] * (self._busy > 0.9)

    def warm(self, kind: str) -> float:
        """Find how many requests it answers, to choose the common rate.

        Returns the seconds that a measurement will take.
        """
        with self._server(kind) as (_, port):
            found = self._load(kind, port, self._seconds)
        half = found["requests"] / found["seconds"] / 2
        self._rate = min(self._rate, half)
        return 2 * self._seconds + _WARM + 1

    def measure(self, kind: str) -> dict[str, float]:
        """Measure a fresh server; raises Refused if something fails."""
        with self._server(kind) as (child, port):
            self._load(kind, port, min(_WARM, self._seconds))
            before = _cpu_of(child.pid)
            fast = self._load(kind, port, self._seconds)
            spent = _cpu_of(child.pid) - before
            even = self._load(kind, port, self._seconds, self._rate)
        self._busy = max(self._busy, fast["busy"])
        figures = {"rate": fast["requests"] / fast["seconds"]}
        if spent:
            figures["cpu"] = spent / fast["requests"] * 1e6
        figures |= {key: even[key] for key in SHARES if key in even}
        return figures | self._note_end(kind)

    @contextmanager
    def _server(self, kind: str) -> Iterator[tuple[Child, int]]:
        self._forget()
        with socket.socket() as free:
            free.bind((HOST, 0))
            port: int = free.getsockname()[1]
        words = (kind, self._report, port, self._cpu, self.app)
        child = self._processes.start(worker_command("worker.serve", *words))
        try:
            self._wait_for(child, kind, port)
            yield child, port
        except Refused:
            if child.wait(0.1) is None:
                raise
            raise Refused(child.failure(f"the server on {kind}")) from None
        finally:
            child.stop()

    def _wait_for(self, child: Child, kind: str, port: int) -> None:
        """Ask until it answers; raise Refused if it does not answer well."""
        asked = f"GET {self.path} on {kind}"
        end = time.monotonic() + self._start_limit
        status = 0
        while not status:
            connection = http.client.HTTPConnection(HOST, port, timeout=10.0)
            try:
                connection.request("GET", self.path)
                status = connection.getresponse().status
            except ConnectionRefusedError:
                if time.monotonic() > end or child.wait(0.02) is not None:
                    raise Refused(
                        f"the server on {kind} did not listen in "
                        f"{self._start_limit:g} s, which --timeout sets"
                    ) from None
            except (OSError, http.client.HTTPException) as exc:
                raise Refused(f"no answer to {asked}: {exc!r}") from exc
            finally:
                connection.close()
        if not 200 <= status < 400:
            raise Refused(
                f"{self.app} answered {status} to {asked}, so its speed was "
                "not measured"
            )

    def _load(
        self, kind: str, port: int, seconds: float, rate: float = 0
    ) -> dict[str, float]:
        """Ask as fast as answers come, or at a rate; return what was found.

        Raises Refused if the client or a request failed.
        """
        words = (port, self.path, _CONNECTIONS, seconds, rate)
        # Without options, such as -X dev, which are for what is measured.
        command = worker_command("client.main", *words, options=False)
        with open(self._processes.folder / "load", "w+") as out:
            child = self._processes.start(command, stdout=out)
            status = child.wait(seconds + _PATIENCE)
            if status is None:
                raise Refused("the load client did not end in time")
            if status:
                raise Refused(child.failure(f"the load client of {kind}"))
            child.end()
            out.seek(0)
            found: dict[str, float] = json.load(out)
        if not found["requests"]:
            raise Refused(f"the server on {kind} answered nothing under load")
        return found


def _take_processors() -> str:
    """Leave one processor to the server and go to the others.

    The load client is started from here, so it goes there too.  "" where
    there is only one or the system cannot do this.
    """
    *others, last = processors()
    if not others or not hasattr(os, "sched_setaffinity"):
        return ""
    os.sched_setaffinity(0, others)
    return str(last)


def _cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process; 0.0 where the system has none."""
    clock = ~pid << 3 | 2  # as clock_getcpuclockid() makes it
    try:
        return time.clock_gettime(clock)
    except OSError:
        return 0.0
