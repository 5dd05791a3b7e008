"""Soak one loop: thousands of connections, each a random program.

    python tests/load/soak.py [--minutes 30] [--connections 10000]

A server process echoes over TCP, Unix sockets and TLS, by protocols, streams
and sock_* calls (soak_server.py); two client processes compare each byte that
comes back (soak_client.py).  Meanwhile listeners restart and the server runs
out of descriptors.  A short first round comes before the first reading, so
that what is allocated once does not count; at the end memory and descriptors
have to be where that reading found them.

It fails on a lost or wrong byte, a report of a loop, a growth, or a connection
that does not end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: What may grow, by which share and by how much beside: the resident memory
#: by what peaks leave between small objects, what is allocated hardly at all.
GROWTH = {
    "rss_kib": (0.5, 4096),
    "malloc_kib": (0.02, 512),
    "blocks": (0.02, 1000),
    "fds": (0, 0),
}
CLIENTS = 2
#: Seconds between two restarts or two shortages.
TROUBLE_S = 20
#: Seconds for all connections to end; far more than they take.
DRAIN_S = 120


class Child:
    """A process that prints JSON lines, and the last one it printed."""

    def __init__(self, *words: str) -> None:
        self.last: dict[str, Any] = {}
        self.first = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(HERE.parents[1]), "PATH": ""},
        )
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last = json.loads(line)
            self.first.set()

    def say(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words)
        self.process.stdin.flush()

    def check(self) -> None:
        code = self.process.poll()
        if code is not None:
            raise SystemExit(f"soak: a process ended by itself: {code}")

    def finish(self, seconds: float) -> int:
        code = self.process.wait(seconds)
        self.thread.join()
        return code


class Soak:
    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.most_open = 0
        self.totals = dict.fromkeys(("connections", "rounds", "bytes"), 0)
        self.wrong: list[str] = []
        self.server = Child(str(HERE / "soak_server.py"), folder)
        self.server.first.wait(60)
        self.ports = json.dumps(self.server.last)

    def run(self, seconds: float, connections: int, seed: int) -> None:
        """Have clients for so long, and wait until all has ended."""
        clients = [
            Child(
                str(HERE / "soak_client.py"),
                *(self.ports, self.folder, str(connections // CLIENTS)),
                str(seed * CLIENTS + n),
            )
            for n in range(CLIENTS)
        ]
        end = time.monotonic() + seconds
        trouble = time.monotonic() + TROUBLE_S
        turn = 0
        while time.monotonic() < end:
            time.sleep(1)
            for child in (self.server, *clients):
                child.check()
            now = self.server.last.get("open", 0)
            self.most_open = max(self.most_open, now)
            if time.monotonic() > trouble:
                self.server.say(("restart ", "starve ")[turn % 2])
                trouble += TROUBLE_S
                turn += 1
        for child in clients:
            child.say("end")
        for child in clients:
            if child.finish(DRAIN_S):
                self.wrong.append("a client failed")
            self.wrong += child.last.get("wrong", [])
            for name in self.totals:
                self.totals[name] += child.last[name]

    def settled(self) -> dict[str, Any]:
        """The server's state once all connections have ended."""
        for _ in range(DRAIN_S):
            self.server.say("settle ")
            time.sleep(2)
            self.server.check()
            if self.server.last["open"] == 0:
                time.sleep(2)
                return dict(self.server.last)
        raise SystemExit(
            f"soak: {self.server.last['open']} connections do not end"
        )

    def judge(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        for name, (share, beside) in GROWTH.items():
            if after[name] > before[name] * (1 + share) + beside:
                self.wrong.append(
                    f"{name} grew: {before[name]} -> {after[name]}"
                )
        self.wrong += after["reports"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--connections", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fastloop-soak-") as folder:
        soak = Soak(folder)
        try:
            soak.run(min(30, 15 * args.minutes), args.connections, 1)
            before = soak.settled()
            soak.run(60 * args.minutes, args.connections, 2)
            after = soak.settled()
            soak.judge(before, after)
            soak.server.say("end ")
            if soak.server.finish(60):
                soak.wrong.append("the server failed")
        finally:
            soak.server.process.kill()
    changes = [f"{name} {before[name]} -> {after[name]}" for name in GROWTH]
    print(
        f"soak: {soak.totals['connections']} connections,"
        f" {soak.totals['rounds']} rounds,"
        f" {soak.totals['bytes'] / 2**20:.0f} MiB each way;"
        f" most at once {soak.most_open}; {', '.join(changes)}"
    )
    for text in sorted(set(soak.wrong)):
        print(f"soak: wrong: {soak.wrong.count(text)} x {text}")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
