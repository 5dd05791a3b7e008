"""The files of `bench --json` that `plot` reads, edited in any way.

An input is edits of a good file's values, or bytes in its stead.  `plot`
draws it, or refuses it with one sentence and the status 2.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

from harness import Run, Tape, check, note

INSTRUMENTED = ["fastloop.cli.faults", "fastloop.cli.result"]
INSTRUMENTED += ["fastloop.cli.compare", "fastloop.cli.charts"]
MOST_BYTES = 120
CHECKS_MEMORY = False  # matplotlib keeps much
WORDS = "s ms µs MiB more less time cpu memory rate http program key".split()
NUMBERS = (0, -1, 1, 1e-9, 9e-10, 1e15, 1e16, math.nan, math.inf, 1 << 64, 0.5)
#: Text that a font, a terminal, an SVG or a formula may not take.
TEXTS = ("", "$", "$x", "<&>", "\n", "\0", "\ud800", "\x1b[2J", "é漢" * 99)
GOOD = {
    "format": 1,
    "kind": "program",
    "what": "prog.py",
    "loops": ["asyncio", "fastloop"],
    "metrics": [
        {"key": key, "title": key, "unit": unit, "better": "less"}
        for key, unit in (("time", "s"), ("cpu", "s"), ("memory", "MiB"))
    ],
    "runs": {
        loop: [{"time": 2.0, "cpu": 1.0, "memory": 20.0}] * 2
        for loop in ("asyncio", "fastloop")
    },
    "share": None,
    "untaken": [],
    "notes": [],
    "cut": None,
    "machine": {"python": "3.11.2 (cpython)", "cpu": "x", "date": "today"},
    "settings": {"command": "python -m fastloop bench prog.py"},
    "method": [],
}


def value(tape: Tape, document: Any) -> Any:
    kind = tape.byte() % 8
    if kind == 0:
        return copy.deepcopy(document)
    if kind == 1:
        return tape.pick((None, True, False, [], {}, [[]], {"": ""}))
    if kind < 5:
        return tape.pick(NUMBERS)
    return tape.pick((*TEXTS, *WORDS))


def edit(tape: Tape, document: Any) -> Any:
    """Change one value of a document, as deep as the tape says."""
    keys = list(document) if isinstance(document, dict) else None
    if isinstance(document, list):
        keys = list(range(len(document)))
    how = tape.byte()
    if not keys or how < 8:
        return value(tape, document)
    key = tape.pick(keys)
    if how < 160:
        document[key] = edit(tape, copy.deepcopy(document[key]))
    elif how < 190:
        del document[key]
    elif how < 220 and isinstance(document, list):
        document.append(copy.deepcopy(document[key]))
    elif how < 250 and isinstance(document, dict):
        document[str(value(tape, key))] = document[key]
    else:
        document[key] = value(tape, document[key])
    return document


def text(tape: Tape) -> bytes:
    kind = tape.byte()
    if kind == 0:
        return tape.bytes()
    document: Any = {"fastloop": copy.deepcopy(GOOD)}
    for _ in range(1 + kind % 4):
        document = edit(tape, document)
    whole = json.dumps(document).encode()
    if kind > 240:
        at = (tape.byte() << 8 | tape.byte()) % len(whole)
        whole = whole[:at] + tape.bytes() + whole[at + tape.byte() :]
    return whole


def start() -> Run:
    """Return what runs an input."""
    from fastloop.cli import Refused, main
    from fastloop.cli.result import Result

    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    folder = Path(tempfile.mkdtemp())
    file = folder / "found.json"

    def run(tape: Tape) -> None:
        output = folder / tape.pick(("x.svg", "x.html", "x.svg"))
        draws = tape.byte() % 32 == 0
        data = text(tape)
        note(data)
        file.write_bytes(data)
        if not draws:  # which takes longest
            with contextlib.suppress(Refused):
                check(Result.load(str(file)).sentences())
            return
        output.unlink(missing_ok=True)
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # of a font without a glyph
            code = main(["plot", str(file), "-o", str(output)])
        said = err.getvalue()
        if code == 0:
            check(output.stat().st_size > 1000 and not said, said)
        else:
            check(code == 2, code)
            check(said.count("\n") == 1 and said.endswith("\n"), said)
            check(said[:-1].isprintable(), said)
            check(not output.exists(), said)

    return run
