"""Compiles shim.c and has it take the place of what fastloop calls."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("shim.c")
#: The variable that names the shim of a program which a test runs.
VARIABLE = "FASTLOOP_FAULT_SHIM"
#: That a call moves one byte, where an errno may stand.
SHORT = -1
#: Whose calls fault_cut() is about.
READS, WRITES, BOTH = 1, 2, 3
#: The words of a type object among which its allocator is looked for.
WORDS = 50


def compiler() -> str | None:
    """Return the C compiler's command."""
    return os.environ.get("CC") or shutil.which("cc")


def build(folder: Path) -> Path:
    """Compile the shim; return its path."""
    path = folder / "shim.so"
    command = [*(compiler() or "cc").split(), "-shared", "-fPIC", "-O1"]
    subprocess.run([*command, "-Wall", "-o", path, SOURCE, "-ldl"], check=True)
    return path


def load(path: str | Path) -> ctypes.CDLL:
    """Load the shim and hook fastloop's extension."""
    import fastloop.loop

    shim = ctypes.CDLL(str(path))
    shim.fault_cut.argtypes = [
        ctypes.c_int,
        ctypes.c_size_t,
        ctypes.c_long,
        ctypes.c_int,
    ]
    for name in ("hits", "seen"):
        getattr(shim, f"fault_{name}").restype = ctypes.c_long
    shim.fault_place.restype = ctypes.c_size_t
    for name in ("fault_arm", "fault_delay", "fault_coarse"):
        getattr(shim, name).restype = None
    shim.fault_arm.argtypes = [
        ctypes.c_char_p,
        ctypes.c_long,
        ctypes.c_long,
        ctypes.c_int,
    ]
    shim.fault_delay.argtypes = shim.fault_coarse.argtypes = [ctypes.c_long]
    if not shim.fault_hook():
        raise RuntimeError("the extension is not loaded")
    for kind in (*vars(fastloop._core).values(), fastloop.Loop):
        if isinstance(kind, type):
            shim.fault_hook_type(
                ctypes.c_void_p(id(kind)), ctypes.c_size_t(WORDS)
            )
    return shim


class Call(ctypes.Structure):
    """A call, as the shim has it in its log."""

    _fields_ = [("name", ctypes.c_char_p), ("caller", ctypes.c_void_p)]


def logged(shim: ctypes.CDLL) -> list[tuple[str, int]]:
    """Return the calls so far: of which function, and from where."""
    calls = (Call * shim.fault_logged()).in_dll(shim, "fault_log")
    return [(one.name.decode(), one.caller) for one in calls]


def place(shim: ctypes.CDLL) -> tuple[str, int]:
    """Return the library that made the last failing call, and where in it."""
    library = ctypes.c_char_p()
    offset = shim.fault_place(ctypes.byref(library))
    return (library.value or b"").decode(), offset


def line_of(library: str, offset: int) -> str:
    """Return the function and line of a place."""
    if not (tool := shutil.which("addr2line")):
        return f"{library}+{offset:#x}"
    done = subprocess.run(
        [tool, "-fipse", library, hex(offset - 1)],
        capture_output=True,
        text=True,
    )
    return done.stdout.replace("\n", " ").strip()


SHIM: Any = load(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def arm(name: str, code: int, skip: int = 0, count: int = 1) -> None:
    """Let calls skip .. skip+count-1 of *name* fail from now on."""
    SHIM.fault_arm(name.encode(), skip, count, code)


def hits() -> int:
    return int(SHIM.fault_hits())
