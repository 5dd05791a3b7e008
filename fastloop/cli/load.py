"""Load on an HTTP server: by wrk, oha or h2load, or by our own client.

The tools on PATH say how many requests a second a server can do.  Latency is
always measured by fastloop's own client, which asks at a fixed rate: those
tools wait for an answer before they ask again, and so miss a stall.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field

import fastloop

from .client import HOST
from .commands import Refused
from .machine import processors
from .processes import Processes, worker_command

__all__ = ["TOOLS", "Load", "LoadFound"]

TOOLS = ("wrk", "oha", "h2load")
#: Seconds that a tool may take beyond the time it was given.
_PATIENCE = 20.0
#: An answer that is slower than two seconds is no error.
_WRK = ("--timeout", "60s")


class NoStatusError(Exception):
    """h2load could not tell whether the answers were right."""


@dataclass
class LoadFound:
    """Requests that were answered, in how long, and how many went wrong."""

    requests: int
    seconds: float
    errors: int
    more: dict[str, float] = field(default_factory=dict)


class Load:
    """Loads servers with one tool: the same path and connections."""

    def __init__(
        self,
        tool: str | None,
        path: str,
        connections: int,
        processes: Processes,
    ) -> None:
        if tool in TOOLS and shutil.which(tool) is None:
            raise Refused(f"{tool} is not on PATH")
        # Asked before the server is given a processor of its own.
        self._spins = len(processors()) > 1
        self.tool = tool or next(filter(shutil.which, TOOLS), "own")
        self._is_named = tool is not None
        self._path = path
        self._connections = connections
        self._processes = processes

    @property
    def about(self) -> str:
        """The tool and its version."""
        if self.tool == "own":
            return f"fastloop's own client {fastloop.__version__}"
        try:
            done = subprocess.run(
                [self.tool, "--version"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,  # wrk ends with status 1
            )
            first = (done.stdout + done.stderr).partition("\n")[0]
        except (OSError, subprocess.TimeoutExpired):
            first = ""
        return first.partition(" [")[0] or f"{self.tool}, version unknown"

    def ask(self, port: int, seconds: float) -> LoadFound:
        """Ask as fast as answers come; raises Refused if the tool fails."""
        if self.tool == "own":
            return self.ask_at(0, port, seconds)
        url = f"http://{HOST}:{port}{self._path}"
        text = self._run(self.tool, self._command(url, seconds), seconds)
        try:
            found = _READERS[self.tool](text)
        except NoStatusError:
            if self._is_named:
                raise Refused(
                    f"{self.tool} cannot read this server's responses: they "
                    "have no reason phrase; choose another --load"
                ) from None
            self.tool = "own"
            return self.ask(port, seconds)
        if found is None:
            raise Refused(f"fastloop could not read the output of {self.tool}")
        return found

    def ask_at(self, rate: float, port: int, seconds: float) -> LoadFound:
        """Ask at a fixed rate; `more` has percentiles in milliseconds."""
        words = (port, self._path, self._connections, seconds, rate)
        # Without options, such as -X dev, which are for what is measured.
        command = worker_command(
            "client", *words, int(self._spins), options=False
        )
        found = json.loads(self._run("the load client", command, seconds))
        took, errors = found.pop("seconds"), found.pop("errors")
        return LoadFound(found.pop("requests"), took, errors, found)

    def _run(self, name: str, command: list[str], seconds: float) -> str:
        with open(self._processes.folder / "load", "w+") as out:
            child = self._processes.start(command, stdout=out)
            status = child.wait(seconds + _PATIENCE)
            if status is None:
                raise Refused(f"{name} did not end in time")
            if status:
                raise Refused(child.failure(name))
            child.end()
            out.seek(0)
            return out.read()

    def _command(self, url: str, seconds: float) -> list[str]:
        many = str(self._connections)
        whole = f"{max(1, round(seconds))}s"
        if self.tool == "wrk":
            return ["wrk", "-t1", f"-c{many}", f"-d{whole}", *_WRK, url]
        if self.tool == "h2load":
            return ["h2load", "--h1", "-t1", "-c", many, "-D", whole, url]
        shown = self._run("oha", ["oha", "--help"], 0)
        new = "--output-format" in shown
        form = ["--output-format", "json"] if new else ["-j"]
        form += ["--no-tui", "--redirect", "0"]  # as the others do
        return ["oha", *form, "-c", many, "-z", whole, url]


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _seconds(requests: int, rate: float) -> float:
    """Tools say the rate to more digits than the time."""
    return requests / rate if rate else 0.0


def _read_wrk(text: str) -> LoadFound | None:
    total = re.search(r"(\d+) requests in ", text)
    rate = re.search(r"Requests/sec:\s*([\d.]+)", text)
    if total is None or rate is None:
        return None
    wrong = _number(r"Non-2xx or 3xx responses: (\d+)", text)
    sockets = re.search(r"Socket errors: (.*)", text)
    if sockets:
        wrong += sum(map(int, re.findall(r"\d+", sockets[1])))
    many = int(total[1])
    return LoadFound(many, _seconds(many, float(rate[1])), wrong)


def _read_h2load(text: str) -> LoadFound | None:
    """A status other than 2xx or 3xx counts as failed, as no answer does.

    h2load reads no status from an answer that has no words after it, such as
    hypercorn's, and so calls all of them failed.
    """
    rate = re.search(r"finished in [^,]*, ([\d.]+) req/s", text)
    if rate is None:
        return None
    many = _number(r"(\d+) done", text)
    wrong = _number(r"(\d+) failed", text)
    known = sum(_number(rf"(\d+) {kind}xx", text) for kind in "2345")
    other = _number(r"(\d+) errored", text)
    if wrong > other and not known:
        raise NoStatusError
    return LoadFound(many, _seconds(many, float(rate[1])), wrong)


def _read_oha(text: str) -> LoadFound | None:
    try:
        found = json.loads(text)
        codes = found["statusCodeDistribution"]
        many = sum(codes.values())
        seconds = float(found["summary"]["total"])
        wrong = sum(
            count
            for name, count in found.get("errorDistribution", {}).items()
            if "deadline" not in name  # what was under way at the end
        )
        wrong += sum(
            count for code, count in codes.items() if not "200" <= code < "400"
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return LoadFound(many, seconds, wrong) if seconds > 0 else None


_READERS = {"wrk": _read_wrk, "oha": _read_oha, "h2load": _read_h2load}
