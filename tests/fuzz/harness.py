"""What the fuzzers share: an input read as choices, and how inputs are run.

A target is a module `fuzz_NAME` with

    INSTRUMENTED   the Python modules whose branches count as coverage
    MOST_BYTES     of an input
    CHECKS_MEMORY  False where libraries keep memory; else it may be absent
    start()        returns a function that runs one input, given as a Tape

An input fails by an exception, a sanitizer's report or by not ending.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import reprlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Run = Callable[["Tape"], None]

#: Sizes at which buffers, limits and batches may be wrong by one.
_EDGES = (0, 1, 2, 15, 16, 17, 255, 256, 1023, 1024, 4096, 16384, 65536)
#: How deep steps are nested that callbacks make.
DEPTH = 3
#: Runs after which a leak shows, if caches were filled in as many before.
_REPEATS = 4
#: Bytes lost in a run: of what is smaller, most are names in CPython's caches.
_LEAST_LEAK = 16
#: Whether steps are shown.
_replaying = False


class Finding(AssertionError):
    """What no input may bring about."""


class Tape:
    """The bytes of an input, read as choices; zeros follow its end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        """Return the next byte."""
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of up to 256 choices."""
        return choices[self.byte() % len(choices)]

    def bytes(self, most: int = 255) -> bytes:
        """Return some of the next bytes."""
        size = min(self.byte(), most)
        self.at += size
        return self.data[self.at - size : self.at]

    def size(self, most: int = 1 << 17) -> int:
        """Return a size: a small one, or one at an edge."""
        byte = self.byte()
        if byte < 128:
            return min(byte, most)
        near = _EDGES[byte % 16 % len(_EDGES)] + (byte >> 4 & 7) - 4
        return max(0, min(near, most))


class Spoiled(Exception):
    """What a protocol raises on purpose."""


def check(holds: Any, *what: Any) -> None:
    """Raise Finding unless something holds."""
    if not holds:
        raise Finding(*what)


def note(*what: Any) -> None:
    """Print a step of an input that is run from a file."""
    if _replaying:
        print(*(repr(one)[:70] for one in what), flush=True)


def act(case: Any, lost: bool, *call: Any) -> None:
    """Do something from within a callback of a protocol, perhaps.

    *case* has the tape, the steps, how deep they are nested, and whether it
    is rough; *lost* says whether the connection was lost before.
    """
    note("called", *call)
    check(call[-1] == "lost" or not lost, "called after lost", call)
    tape = case.tape
    if tape and case.depth < DEPTH and tape.byte() % 4 == 0:
        if tape.byte() % 16 == 0:
            case.rough = True
            raise Spoiled
        case.depth += 1
        case.step()
        case.depth -= 1


def _load(name: str) -> tuple[Run, Any]:
    """Return what runs an input of a target, and the target."""
    module = importlib.import_module(f"fuzz_{name}")
    run: Run = module.start()
    unraised: list[Any] = []
    sys.unraisablehook = lambda info: unraised.append(
        (info.exc_value, info.err_msg, info.object)
    )

    def run_checked(tape: Tape) -> None:
        run(tape)
        gc.collect()
        check(not unraised, "not raised", unraised)

    # Names that it makes up would fill CPython's cache of attributes.
    reprlib.aRepr.repr1 = lambda x, level: type(x).__name__  # type: ignore
    # Collections come at the same place each time, and see only what is new.
    gc.disable()
    gc.collect()
    gc.freeze()
    return run_checked, module


def fuzz(name: str, options: list[str]) -> None:
    """Have libFuzzer make inputs of a target; does not return."""
    import atheris

    names = importlib.import_module(f"fuzz_{name}").INSTRUMENTED
    for loaded in list(sys.modules):
        if loaded in names or loaded == f"fuzz_{name}":
            del sys.modules[loaded]
    with atheris.instrument_imports(include=[*names]):
        for one in names:
            importlib.import_module(one)
    run, module = _load(name)
    # As what libFuzzer starts itself again to merge.
    itself = f"{sys.executable} {sys.argv[0]} --child {name}"
    words = [itself, f"-max_len={module.MOST_BYTES}", *options]
    atheris.Setup(words, lambda data: run(Tape(data)))
    atheris.Fuzz()


def replay(name: str, files: list[str]) -> None:
    """Run inputs from files, and again to see whether memory grows.

    The memory is what ASan counts; without it an input is run once.
    """
    global _replaying
    run, module = _load(name)
    count = getattr(
        ctypes.CDLL(None), "__sanitizer_get_current_allocated_bytes", None
    )
    if not getattr(module, "CHECKS_MEMORY", True):
        count = None
    for file in files:
        data = Path(file).read_bytes()
        _replaying = len(files) == 1
        run(Tape(data))
        _replaying = False
        if count is not None:
            count.restype = ctypes.c_size_t
            check(not _grows(run, data, count), "leaks", file)


def _grows(run: Run, data: bytes, count: Callable[[], int]) -> bool:
    """Whether memory is lost in each run; caches grow in the first ones."""
    for repeats in (_REPEATS, 10 * _REPEATS, 100 * _REPEATS):
        sizes = (ctypes.c_size_t * (2 * repeats))()  # in no new object
        for at in range(len(sizes)):
            run(Tape(data))
            sizes[at] = count()
        growth = (sizes[-1] - sizes[repeats]) / repeats
        if growth < _LEAST_LEAK:
            return False
    return True
