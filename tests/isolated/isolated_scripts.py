"""Runs a program in an interpreter of its own.

What is tested here ends a process, changes it for good, or needs it clean:
forks, exits, signals from outside, tracers, system-call filters.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from builds import environment
from patience import TEST_LIMIT

#: Programs of racing threads: ``in_threads(count, function)``.
IN_THREADS = """
failures = []

def in_threads(count, function):
    '''Run function(number) in so many threads; return when all ended.'''
    gate = threading.Barrier(count)
    def body(number):
        try:
            gate.wait()
            function(number)
        except BaseException as exc:
            failures.append((number, repr(exc)))
            raise
    threads = [
        threading.Thread(target=body, args=(n,)) for n in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
"""

#: Programs with a server: ``made`` has the protocols of its connections.
SERVED = """
import re
made = []

class Server(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.got = transport, b""
        self.lost = asyncio.get_running_loop().create_future()
        made.append(self)

    def data_received(self, data):
        self.got += data

    def connection_lost(self, exc):
        self.lost.set_result(exc)

async def until(predicate):
    while not predicate():
        await asyncio.sleep(0)

def fd_of(transport):
    return int(re.search(r"\\bfd=(\\d+)", repr(transport))[1])
"""

#: Programs that fork.
FORKED = """
def child(run):
    '''Run a function in a forked child; return its exit status.'''
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 70
    try:
        status = run() or 0
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        os._exit(status)
"""

PRELUDE = """\
import asyncio, gc, os, signal, socket, sys, threading, time
{imports}
new_loop = {factory}

def on_new_loop(job):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(job)
"""
FACTORIES = {
    "asyncio": ("", "asyncio.SelectorEventLoop"),
    "fastloop": ("import fastloop", "fastloop.new_event_loop"),
}
#: Seconds a child may take; far more than it needs.  Sanitizers need more.
LIMIT = TEST_LIMIT / 2

#: A debug build of CPython shows every warning; programs are written for the
#: filters that all others start with.
QUIET = tuple(
    word
    for category in (
        "DeprecationWarning",
        "PendingDeprecationWarning",
        "ImportWarning",
        "ResourceWarning",
    )
    for word in ("-W", f"ignore::{category}")
    if hasattr(sys, "gettotalrefcount")
)

#: Programs import what all tests share.
TESTS = Path(__file__).resolve().parents[1]
Completed = subprocess.CompletedProcess


class Script:
    """Programs for one kind of loop, each run by a fresh interpreter.

    A module's ``BEFORE`` is what its programs begin with, and ``FLAGS`` are
    their interpreters'.
    """

    def __init__(self, kind: str, folder: Path, module: Any = None) -> None:
        self.kind = kind
        self.folder = folder
        self.before: str = getattr(module, "BEFORE", "")
        self.flags: tuple[str, ...] = getattr(module, "FLAGS", ())

    def write(self, code: str, name: str = "program.py") -> Path:
        """Write a program whose ``new_loop`` makes this kind of loop."""
        imports, factory = FACTORIES[self.kind]
        path = self.folder / name
        path.write_text(
            PRELUDE.format(imports=imports, factory=factory)
            + textwrap.dedent(code)
        )
        return path

    def command(self, code: str, *flags: str) -> list[str]:
        """Return the command that runs a program."""
        usual = () if "dev" in flags else (*QUIET, *self.flags)
        path = self.write(textwrap.dedent(self.before) + textwrap.dedent(code))
        return [sys.executable, *usual, *flags, str(path)]

    def __call__(
        self,
        code: str,
        *flags: str,
        status: int | None = 0,
        quiet: bool = True,
        stdin: str | None = None,
        **env: str,
    ) -> Completed[str]:
        """Run a program to its end; return what it wrote.

        ``status`` is the exit status it must have (None: any), and nothing
        may be on its stderr if ``quiet``.
        """
        done = subprocess.run(
            self.command(code, *flags),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            input=stdin,
            env=environment(TESTS, **env),
            cwd=self.folder,
        )
        if status is not None:
            assert done.returncode == status, (
                f"ended with {done.returncode}: {done.stderr}{done.stdout}"
            )
        if quiet:
            assert done.stderr == "", done.stderr
        return done

    def start(self, code: str, *flags: str) -> subprocess.Popen[str]:
        """Start a program; return once it has written a line, ``ready``."""
        process = subprocess.Popen(
            self.command(code, *flags),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=self.folder,
        )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
        except BaseException:  # the watchdog's
            process.kill()
            raise
        if line != "ready\n":
            process.kill()
            pytest.fail(f"{line!r}: {process.communicate()[1]}")
        return process


#: For scripts that a sandbox keeps from some system calls.
REFUSE = """
import ctypes, errno

def refuse(numbers, code):
    '''Let these system calls fail with an errno from now on.'''
    class Instruction(ctypes.Structure):
        _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8),
                    ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint16),
                    ("filter", ctypes.POINTER(Instruction))]

    load, equal, give = 0x20, 0x15, 0x06
    code_for = [(load, 0, 0, 0)]
    for number in numbers:
        code_for.append((equal, 0, 1, number))
        code_for.append((give, 0, 0, 0x00050000 | code))
    code_for.append((give, 0, 0, 0x7FFF0000))
    array = (Instruction * len(code_for))(*code_for)
    program = Program(len(code_for), array)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    if libc.prctl(22, 2, ctypes.byref(program), 0, 0) != 0:
        print("no seccomp here", errno.errorcode[ctypes.get_errno()])
        sys.exit(0)
    libc.syscall.restype = ctypes.c_long
    for number in numbers:
        assert libc.syscall(number, 0, 0, 0, 0, 0, 0) == -1
        assert ctypes.get_errno() == code
"""
