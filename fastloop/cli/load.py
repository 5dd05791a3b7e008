"""Load on an HTTP server, by fastloop's own client in a process of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from .commands import Refused
from .machine import processors
from .processes import Processes, worker_command

__all__ = ["Load", "LoadFound"]

#: Seconds that the client may take beyond the time it was given.
_PATIENCE = 20.0


@dataclass
class LoadFound:
    """Requests that were answered, in how long, and how many went wrong.

    more has percentiles of the latency in milliseconds, and how busy the
    client was, 0 to 1.
    """

    requests: int
    seconds: float
    errors: int
    more: dict[str, float] = field(default_factory=dict)


class Load:
    """Loads servers: the same path and connections."""

    def __init__(
        self, path: str, connections: int, processes: Processes
    ) -> None:
        # Asked before the server is given a processor of its own.
        self._spins = len(processors()) > 1
        self._path = path
        self._connections = connections
        self._processes = processes

    def ask(self, port: int, seconds: float, rate: float = 0) -> LoadFound:
        """Ask as fast as answers come, or at a fixed rate.

        Raises Refused if the client fails.
        """
        words = (port, self._path, self._connections, seconds, rate)
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
            found = json.load(out)
        took, errors = found.pop("seconds"), found.pop("errors")
        return LoadFound(found.pop("requests"), took, errors, found)
