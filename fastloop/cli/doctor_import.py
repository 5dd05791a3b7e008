"""Imports a program in a separate process, and records its calls.

    PROGRAM REPORT

The child has these arguments.  A profile function (`sys.setprofile`) finds the
calls that `doctor` has rules about.  So no function has to be replaced, and it
makes no difference under which name the program calls it.  The child writes
the calls as JSON to the file REPORT: name, and file and line of the caller.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from .commands import Refused
from .doctor_rules import OTHER_LOOPS, Event, Finding, is_known, judge
from .options import need
from .processes import Processes, worker_command

__all__ = ["imported", "main"]

#: Seconds that an import may take.
_LIMIT_S = 120
#: Rules name asyncio's functions by their public module.
_PUBLIC = {"asyncio.events": "asyncio"}


def imported(program: str) -> list[Finding]:
    """Return what a program calls while it is imported.

    program is a Python file or `module:app`.  Raises Refused for a folder,
    and without psutil.
    """
    if os.path.isdir(program):
        raise Refused("--import needs module:app or a Python file")
    need("doctor --import", "psutil")
    with Processes() as processes:
        report = processes.folder / "calls.json"
        child = processes.start(
            worker_command("doctor_import", program, report)
        )
        text = f"the import of {program}"
        if child.wait(_LIMIT_S) is None:
            text += f" did not end within {_LIMIT_S} seconds"
            return [Finding("wrong", text, "see what it waits for")]
        if child.status != 0:
            fix = "correct the error: doctor has to import it"
            return [Finding("wrong", child.failure(text), fix)]
        if not report.exists():
            text += " ended the process"
            return [Finding("wrong", text, "import it without os._exit")]
        calls = json.loads(report.read_text())
    events = [
        Event(name, "", f"{name}, called by the import,", place=place)
        for name, place in calls
    ]
    text = f"importing {program} calls nothing that chooses a loop"
    return judge(events, set()) or [Finding("ok", text)]


class _Watch:
    """A profile function that records the calls that rules are about."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], None] = {}

    def __call__(self, frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            module = frame.f_globals.get("__name__")
            # uvloop defines its functions within another one.
            name = frame.f_code.co_qualname.rpartition("<locals>.")[2]
            caller = frame.f_back
        elif event == "c_call":
            module, name = arg.__module__, arg.__qualname__
            caller = frame
        else:
            return
        full = f"{_PUBLIC.get(module, module)}.{name}()"
        if caller is None or not is_known(full):
            return
        by = str(caller.f_globals.get("__name__")).partition(".")[0]
        own = str(module).partition(".")[0]
        if by not in (own, "fastloop", *OTHER_LOOPS):
            file = os.path.relpath(caller.f_code.co_filename)
            self.calls[full, f"{file}:{caller.f_lineno}"] = None


def main() -> None:
    """Import the program and write the report; see the module."""
    program, report = sys.argv[1:]
    sys.argv[1:] = []
    sys.path.insert(0, os.getcwd())
    watch = _Watch()
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        _import(program)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        Path(report).write_text(json.dumps(list(watch.calls)))


def _import(program: str) -> None:
    if not os.path.exists(program):
        import_module(program.partition(":")[0])
        return
    path = Path(program)
    sys.path.insert(0, str(path.parent.resolve()))
    loader: Any = SourceFileLoader(path.stem, str(path))
    spec = spec_from_file_location(path.stem, path, loader=loader)
    assert spec is not None  # there is a loader
    module = sys.modules[path.stem] = module_from_spec(spec)
    loader.exec_module(module)
