"""Servers as child processes: started, awaited by what they print, ended.

A child gets a process group of its own, so that a server which forked
workers can be ended whole, by the ids we were given.  Nothing here sleeps:
readiness is a line of the child's output, which a thread collects.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

from builds import environment
from patience import TEST_LIMIT

APPS = Path(__file__).with_name("apps")
CERTS = Path(__file__).parents[1] / "certs"

#: Seconds a child may take to say something.
PATIENCE = TEST_LIMIT * 2 / 3

LOOPS = {"asyncio": "asyncio", "fastloop": "fastloop:new_event_loop"}


def free_port() -> int:
    """A port nobody has now, for servers that cannot bind port 0.

    Below those that the kernel gives away: no other process gets it before
    the server does.
    """
    while True:
        with socket.socket() as sock, contextlib.suppress(OSError):
            port = random.randrange(20_000, 32_000)
            sock.bind(("127.0.0.1", port))
            return port


def child_env(**extra: str) -> dict[str, str]:
    """This process's environment, in which apps/ and fastloop import."""
    return environment(APPS, PYTHONUNBUFFERED="1", **extra)


def ended(*argv: str, cwd=None) -> subprocess.CompletedProcess[str]:
    """Run this interpreter to its end, with nothing to read."""
    return subprocess.run(
        [sys.executable, *argv],
        env=child_env(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=cwd,
    )


class Process:
    """A child and all it has printed."""

    def __init__(self, *argv: str, env=None, cwd=None, **as_user):
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._over = False
        self.child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            env=env or child_env(),
            cwd=cwd,
            **as_user,
        )
        self._thread = threading.Thread(target=self._collect)
        self._thread.start()

    @classmethod
    def python(cls, *argv: str, listening=None, **kwargs) -> Process:
        """A child that runs this interpreter in apps/.

        It has LISTENING as its descriptor 3, as systemd starts it.
        """
        if listening is not None:
            number = listening.fileno()
            move = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv("
            move += "sys.executable, [sys.executable, *sys.argv[2:]])"
            argv = ("-c", move, str(number), *argv)
            kwargs["pass_fds"] = (number,)
        return cls(sys.executable, *argv, cwd=APPS, **kwargs)

    def _collect(self) -> None:
        for line in self.child.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    @property
    def log(self) -> str:
        """What the child printed until now."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, pattern: str, times=1, timeout=PATIENCE) -> re.Match:
        """The last match of the pattern, once it was printed so often."""
        found: list[re.Match] = []

        def seen() -> bool:
            found[:] = re.finditer(pattern, "".join(self._lines))
            return len(found) >= times or self._over

        with self._changed:
            self._changed.wait_for(seen, timeout)
        assert len(found) >= times, f"no {pattern!r} in:\n{self.log}"
        return found[-1]

    def stop(self, signum=signal.SIGTERM, timeout=PATIENCE / 2) -> int:
        """Ask the child to end and return its status."""
        if self.child.poll() is None:
            self.child.send_signal(signum)
        try:
            self.child.wait(timeout)
        finally:
            self.kill()
        return self.child.returncode

    def kill(self) -> None:
        """End whatever is left of the child's group, and collect."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait(PATIENCE)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the child's output stays open"
        self.child.stdout.close()
