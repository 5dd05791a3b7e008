"""`bench`: races a program on each loop, in fresh alternating processes."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastloop._loop import _private

from . import info
from .commands import Refused, tell, wrapped
from .default_loop import factory_of
from .http import HttpRace
from .options import aligned, listed, parser_of
from .processes import Processes
from .program import ProgramRace
from .result import Result
from .run import parse

_TEXT = """

  bench prog.py [ARGUMENTS]         a program that ends by itself
  bench -m pytest [ARGUMENTS]       a module, such as a suite of tests
  bench --http app:app              a web application, under load

Options of bench come before the program."""
_WITHOUT_VALUE = ("-h", "--help", "--quiet")
#: Options that need --http, and their defaults.
_OF_HTTP = {"path": "/", "seconds": 2.0}
#: The loops that are compared if nobody names others.
_USUAL = ("asyncio", "uvloop", "fastloop")
#: Seconds that the rounds of a program may take, if --runs does not say.
_BUDGET = 60.0
_FEWEST, _MOST = 8, 20
#: Seconds that a run may take, and that a server may take until it listens.
_RUN_S, _START_S = 600.0, 30.0

AnyRace = ProgramRace | HttpRace


def _options(words: list[str]) -> argparse.Namespace:
    parser = parser_of("bench", _TEXT)
    add = parser.add_argument
    add("--loops", help="names with commas (default: asyncio,uvloop,fastloop)")
    add("--runs", type=int, help="rounds (default: 8 to 20, by their length)")
    add(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="time limit of a run; with --http, until the server listens "
        f"(default: {_RUN_S:g}, or {_START_S:g})",
    )
    add("--json", metavar="FILE", help="write all figures")
    add("--quiet", action="store_true", help="show no progress")
    add = parser.add_argument_group("a web application").add_argument
    add("--http", metavar="APP", help="module:name")
    add("--path", help="what to ask for (default: /)")
    add("--seconds", type=float, help="length of a phase (default: 2)")
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
    """Measure, print what was found, and write the file asked for."""
    options = _options(words)
    _check(options)
    loops = _loops(options.loops)
    where = _machine()  # before HttpRace leaves a CPU to the server
    with Processes() as processes:
        race = _race(options, processes)
        result = Result(race, loops)
        python = ["python", *_private.python_options(), "-m", "fastloop"]
        result.data["settings"] = {
            "command": shlex.join([*python, "bench", *words]),
            "environment": _environment(),
        }
        result.data["machine"] = where
        try:
            _measure(race, loops, result, options)
        except (Refused, KeyboardInterrupt) as exc:
            first_line = str(exc).partition("\n")[0]
            result.data["cut"] = first_line or "it was stopped"
            raise
        finally:
            if any(result.runs.values()):
                try:
                    _print(result)
                finally:
                    if options.json:
                        result.save(options.json)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raise Refused now for errors that would end minutes of measuring."""
    if options.json:
        file = Path(options.json)
        if file.is_dir() or not os.access(file.parent, os.W_OK):
            raise Refused(f"cannot write {file}")
    if options.runs is not None and not 1 <= options.runs <= 10_000:
        raise Refused("--runs must be 1 to 10,000")
    if not 0.1 <= options.seconds <= 3600:
        raise Refused("--seconds must be 0.1 to 3600")
    if options.timeout is not None and not 0 < options.timeout <= 1e6:
        raise Refused("--timeout must be more than 0")


def _loops(asked: str | None) -> list[str]:
    if asked is None:
        fault = _fault_of("uvloop")
        if fault and find_spec("uvloop") is not None:
            tell(f"uvloop is left out: {fault}")
        return [kind for kind in _USUAL if kind != "uvloop" or not fault]
    split = [name.strip() for name in asked.split(",")]
    names = list(dict.fromkeys(filter(None, split)))
    if len(names) < 2:
        raise Refused("--loops needs two loops or more, with commas between")
    if wrong := next(filter(_fault_of, names), None):
        raise Refused(
            f"{wrong} is not installed, or makes no loops; "
            f"installed are {', '.join(info.installed_loops())}"
        )
    return names


def _fault_of(kind: str) -> str:
    """Return why there is nothing that makes loops of a kind, or ""."""
    try:
        factory_of(kind)
    except Exception as exc:  # a module may raise anything
        return f"{type(exc).__name__}: {exc}"
    return ""


def _race(options: argparse.Namespace, processes: Processes) -> AnyRace:
    if options.http and options.program:
        raise Refused("bench needs a program or --http, not both")
    if options.http:
        return HttpRace(options, processes, options.timeout or _START_S)
    program = parse(options.program, "bench")
    program.check()
    return ProgramRace(program, processes, options.timeout or _RUN_S)


def _machine() -> dict[str, Any]:
    found = info.machine()
    return info.facts() | {
        "cpu": found["cpu"],
        "cpus": len(found["cpus"]),
        "load before": round(os.getloadavg()[0], 2),
        "date": found["date"],
    }


def _environment() -> str:
    """Return the variables that a program's behaviour may depend on."""
    names = sorted(
        name for name in os.environ if name.startswith(("FASTLOOP_", "PYTHON"))
    )
    return " ".join(f"{name}={os.environ[name]}" for name in names)


def _measure(
    race: AnyRace,
    loops: list[str],
    result: Result,
    options: argparse.Namespace,
) -> None:
    def step(text: str) -> None:
        if sys.stderr and not options.quiet:
            print(text, file=sys.stderr, flush=True)

    seconds = 0.0
    for loop in loops:
        step(f"warming up {loop}")
        seconds += race.warm(loop)
    usual = max(_FEWEST, min(_MOST, int(_BUDGET / seconds))) // 2 * 2
    rounds = options.runs or usual  # even: every other one is in reverse order
    for index in range(rounds):
        step(f"round {index + 1} of {rounds}")
        for loop in loops if index % 2 == 0 else loops[::-1]:
            result.runs[loop].append(race.measure(loop))
            result.data["unused_loops"] = [
                one for one in loops if not race.ran.get(one, True)
            ]
            result.data["notes"] = [*_notes_on(race), *race.notes]
            result.data["settings"] |= race.settings


def _notes_on(race: AnyRace) -> Iterator[str]:
    """Yield what may make the runs unlike others, or one another."""
    if _private.is_debug_mode():
        yield "asyncio's debug mode was on, which makes loops slower."
    if len({*race.gil.values()}) > 1:
        locked = [kind for kind, gil in race.gil.items() if gil]
        yield f"The GIL was on only in the runs of {listed(locked)}."


def _print(result: Result) -> None:
    title = f"{result.data['what']}: geometric means of {result.rounds}"
    print(f"{wrapped(title)}\n")
    tables = [rows := result.table()]
    if len(result.loops) > 2:  # the ratios do not fit beside the figures
        end = 1 + len(result.loops)
        ratios = [[row[0], *row[end:]] for row in rows]
        tables = [[row[:end] for row in rows], ratios]
    print("\n\n".join("\n".join(aligned(table)) for table in tables))
    legend = result.legend()
    print(f"\n{wrapped(legend)}\n" if legend else "")
    print("\n".join(map(wrapped, result.sentences())), flush=True)
