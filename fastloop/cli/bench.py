"""`bench`: races a program on each loop, in fresh alternating processes."""

from __future__ import annotations

import argparse
import errno
import os
import platform
import re
import resource
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastloop import _private

from . import info
from .commands import Refused, tell, wrapped
from .compare import METHOD
from .default_loop import fault_of, usual_loops
from .http import HttpRace
from .machine import machine
from .options import aligned, is_open_file, listed, need, parser_of
from .processes import Processes
from .program import ProgramRace
from .result import Result
from .run import Program, parse

__all__ = ["main"]

_TEXT = """

  bench prog.py [ARGUMENTS]         a program that ends by itself
  bench -m pytest [ARGUMENTS]       a module, such as a suite of tests
  bench --http app:app              a web application, under load

Options of bench come before the program."""
#: Options that are easily written behind the program.
_OWN = {
    "--loops",
    "--runs",
    "--json",
    "--plot",
    "--quiet",
    "--timeout",
}
_WITHOUT_VALUE = ("-h", "--help", "--quiet")
#: Options that need --http, and their defaults.
_OF_HTTP = {
    "path": "/",
    "connections": 32,
    "seconds": 2.0,
    "rate": None,
}
#: Seconds that the rounds of a program may take, if --runs does not say.
_BUDGET = 60.0
_FEWEST, _MOST = 8, 20
#: Seconds that a run may take, and that a server may take until it listens.
_RUN_S, _START_S = 600.0, 30.0

AnyRace = ProgramRace | HttpRace
#: Says what is measured next; "" ends that.
Step = Callable[[str], None]


def _options(words: list[str]) -> argparse.Namespace:
    parser = parser_of("bench", _TEXT)
    add = parser.add_argument
    add("--loops", help="names with commas (default: those installed)")
    add("--runs", type=int, help="rounds (default: 8 to 20, by their length)")
    add(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="time limit of a run; with --http, until the server listens "
        f"(default: {_RUN_S:g}, or {_START_S:g})",
    )
    add("--json", metavar="FILE", help="write all figures")
    add("--plot", metavar="FILE", help="write a chart (.svg or .png)")
    add("--quiet", action="store_true", help="show no progress")
    add = parser.add_argument_group("a web application").add_argument
    add("--http", metavar="APP", help="module:name")
    add("--path", help="what to ask for (default: /)")
    add("--connections", type=int, help="(default: 32)")
    add("--seconds", type=float, help="length of a phase (default: 2)")
    add("--rate", type=float, help="rate at which latency is measured")
    place = _place_of_program(words)
    options = parser.parse_args(words[:place])
    options.program = words[place:]
    given = [name for name in _OF_HTTP if getattr(options, name) is not None]
    if given and not options.http:
        raise Refused(f"--{given[0]} needs --http")
    for name in _OF_HTTP.keys() - given:
        setattr(options, name, _OF_HTTP[name])
    return options


def _place_of_program(words: list[str]) -> int:
    """Return where the program begins: behind the options and their values.

    argparse cannot tell: it reads on behind -mNAME.
    """
    place = 0
    while place < len(words) and re.match("-h$|--.", words[place]):
        word = words[place]
        has_value = "=" not in word and not any(
            option.startswith(word) for option in _WITHOUT_VALUE
        )
        place += 1 + has_value
    return place


def main(words: list[str]) -> int:
    """Measure, print what was found, and write the files asked for."""
    options = _options(words)
    _check(options)
    loops = _loops(options.loops)
    step = _progress(options.quiet)
    where = _machine()  # before HttpRace leaves a CPU to the server
    with Processes() as processes:
        race = _race(options, processes)
        result = _empty(race, loops, where)
        start = [
            "python",
            *_private.python_options(),
            "-m",
            "fastloop",
            "bench",
        ]
        result.data["settings"] = {
            "command": shlex.join([*start, *words])
        } | _surroundings()
        # Said from the start: where the terminal is gone, the progress shown
        # there may fail in place of KeyboardInterrupt.
        result.data["cut"] = "it was stopped"
        try:
            _measure(race, loops, result, options.runs, step)
            result.data["cut"] = None
        except Refused as exc:
            result.data["cut"] = str(exc)
            raise
        finally:
            with suppress(OSError):  # the terminal may be gone
                step("")
            _show(result, options)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise Refused now for errors that would end minutes of measuring."""
    if options.http:
        need("bench --http", "psutil", "uvicorn")
    if options.plot:
        need("a chart", "matplotlib")
    for name in filter(None, (options.json, options.plot)):
        folder, reason = Path(name).resolve().parent, 0
        if is_open_file(name):
            folder = Path(name)  # which is written to as it is
            reason = errno.EISDIR if folder.is_dir() else 0
        elif not folder.is_dir():
            reason = errno.ENOENT
        if not reason and not os.access(folder, os.W_OK):
            reason = errno.EACCES
        if reason:
            raise Refused(f"cannot write {name}: {os.strerror(reason)}")
    if options.plot and not options.plot.endswith((".svg", ".png")):
        raise Refused("--plot needs a name that ends in .svg or .png")
    limits = {"runs": 10_000, "rate": 1_000_000}
    if options.http:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        limits["connections"] = max(1, files // 4)
    for name, most in limits.items():
        given = getattr(options, name)
        if given is not None and not 1 <= given <= most:
            raise Refused(f"--{name} must be 1 to {most:,}")
    if not 0.1 <= options.seconds <= 3600:
        raise Refused("--seconds must be 0.1 to 3600")
    if options.timeout is not None and not 0 < options.timeout <= 1e6:
        raise Refused("--timeout must be more than 0")


def _loops(asked: str | None) -> list[str]:
    if asked is None:
        return usual_loops()
    names = [name.strip() for name in asked.split(",") if name.strip()]
    if len(names) < 2:
        raise Refused("--loops needs two loops or more, with commas between")
    if wrong := next(filter(fault_of, names), None):
        raise Refused(
            f"{wrong} is not installed, or makes no loops; "
            f"installed are {', '.join(info.installed_loops())}"
        )
    return names


def _race(options: argparse.Namespace, processes: Processes) -> AnyRace:
    if options.http and options.program:
        raise Refused("bench needs a program or --http, not both")
    if options.http:
        return HttpRace(options, processes, options.timeout or _START_S)
    program = parse(options.program, "bench")
    if not program.how and program.name == "-":
        raise Refused("bench reads no program from stdin: name its file")
    program.check()
    if not options.quiet:
        _tell_of_late_options(program)
    return ProgramRace(program, processes, options.timeout or _RUN_S)


def _tell_of_late_options(program: Program) -> None:
    """Warn of the program's options that look like those of bench."""
    late = [one for one in program.words if one.partition("=")[0] in _OWN]
    if late:
        tell(
            f"{listed(late)} went to {program.name}; options of bench come "
            "before the program"
        )


def _empty(race: AnyRace, loops: list[str], where: dict[str, Any]) -> Result:
    labels: list[str] = []
    for place, loop in enumerate(loops):
        again = loops[:place].count(loop)
        labels.append(f"{loop} ({again + 1})" if again else loop)
    keys = ("key", "title", "unit", "better")
    return Result(
        {
            "kind": race.kind,
            "what": race.title,
            "loops": labels,
            "metrics": [
                dict(zip(keys, metric, strict=True)) for metric in race.metrics
            ],
            "runs": {label: [] for label in labels},
            "untaken": [],
            "notes": [],
            "cut": None,
            "settings": {},
            "machine": where,
            "method": [],
        }
    )


def _machine() -> dict[str, Any]:
    found = machine()
    return info.facts() | {
        "cpu": found["cpu"],
        "cpus": len(found["cpus"]),
        "load before": round(os.getloadavg()[0], 2),
        "date": found["date"],
    }


def _surroundings() -> dict[str, str]:
    """Return what else a program's behaviour may depend on."""
    names = sorted(
        name for name in os.environ if name.startswith(("FASTLOOP_", "PYTHON"))
    )
    set_here = " ".join(f"{name}={os.environ[name]}" for name in names)
    found = {"environment": set_here or "no variables of Python or fastloop"}
    with suppress(OSError):  # the folder may be gone
        found["folder"] = os.getcwd()
    return found


def _measure(
    race: AnyRace,
    loops: list[str],
    result: Result,
    runs: int | None,
    step: Step,
) -> None:
    seconds = 0.0
    for loop in dict.fromkeys(loops):
        step(f"warming up {loop}")
        seconds += race.warm(loop) * loops.count(loop)
    result.data["method"] = [race.how, METHOD]
    usual = max(_FEWEST, min(_MOST, int(_BUDGET / seconds))) // 2 * 2
    rounds = runs or usual  # even: every other round has the reverse order
    pairs = list(zip(result.labels, loops, strict=True))
    for index in range(rounds):
        for label, loop in pairs if index % 2 == 0 else pairs[::-1]:
            step(f"round {index + 1} of {rounds}: {label}")
            result.runs[label].append(race.measure(loop))
            _note(race, result, pairs)


def _note(race: AnyRace, result: Result, pairs: list[tuple[str, str]]) -> None:
    """Keep what the figures depend on, as far as it is known."""
    data = result.data
    took = {label: race.ran.get(loop, True) for label, loop in pairs}
    data["untaken"] = [label for label in took if took[label] is False]
    data["settings"] |= race.settings
    if race.gil:
        build = info._build(all(race.gil.values()))
        data["machine"]["python"] = f"{platform.python_version()} ({build})"
    data["notes"] = [*race.notes, *_doubts(race, took)]


def _doubts(race: AnyRace, took: dict[str, bool | None]) -> Iterator[str]:
    """Yield what may make the runs unlike others, or one another."""
    if _private.is_debug_mode():
        yield "asyncio's debug mode was on, which makes loops slower."
    if len({*race.gil.values()}) > 1:
        locked = [kind for kind, gil in race.gil.items() if gil]
        yield f"The GIL was on only in the runs of {listed(locked)}."
    if unknown := [label for label in took if took[label] is None]:
        yield (
            "Whether the program took the loop that bench set is unknown in "
            f"the runs of {listed(unknown)}: it wrote no report."
        )


def _progress(quiet: bool) -> Step:
    """Return a function that shows a step on stderr.

    On a terminal, a step replaces the one before; else it has a line, and a
    round is one step.
    """
    if quiet or not sys.stderr:
        return lambda text: None
    terminal = sys.stderr.isatty()
    shown = ""

    def step(text: str) -> None:
        nonlocal shown
        if terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            return
        text = text.partition(":")[0]
        if text not in ("", shown):
            print(text, file=sys.stderr, flush=True)
        shown = text

    return step


def _show(result: Result, options: argparse.Namespace) -> None:
    """Print and write the result, also if it was cut short."""
    if not any(result.runs.values()):
        return
    try:
        _print(result)
    finally:
        _keep(result, options)


def _keep(result: Result, options: argparse.Namespace) -> None:
    if options.json:
        result.save(options.json)
    if options.plot:
        from .charts import write_chart

        write_chart(result, options.plot)


def _print(result: Result) -> None:
    title = f"{result.data['what']}: geometric means of {result.rounds}"
    print(f"{wrapped(title)}\n")
    tables = [rows := result.table()]
    if len(result.labels) > 2:  # the ratios do not fit beside the figures
        end = 1 + len(result.labels)
        ratios = [[row[0], *row[end:]] for row in rows]
        tables = [[row[:end] for row in rows], ratios]
    print("\n\n".join("\n".join(aligned(table)) for table in tables))
    legend = result.legend()
    print(f"\n{wrapped(legend)}\n" if legend else "")
    print("\n".join(map(wrapped, result.sentences())), flush=True)
