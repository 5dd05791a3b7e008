"""Races event loops against each other and prints what came of it.

    python benchmarks/run.py --quick
    python benchmarks/run.py --cases core --loops uvloop,fastloop --repeat 3

Loops and packages that cannot be imported by the interpreter that is
measured are left out, and the run says so.  README.md has the method.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from harness import (
    build,
    case,
    chart,
    daemons,
    loops,
    markdown,
    plot,
    readme,
    schedule,
)
from harness.report import Report, short

HERE = Path(__file__).resolve().parent
QUICK_BUDGET = 150.0
QUICK_LIMIT = 12.0


def parse_arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--loops",
        help=f"comma list of {','.join(loops.LOOPS)}; default: all found",
    )
    add(
        "--cases",
        default="core,tcp,http,startup",
        help="comma list of cases, globs or the groups %(default)s",
    )
    add("--list", action="store_true", help="print the cases and exit")
    add("--repeat", type=int, help="repetitions of everything (5)")
    add(
        "--quick",
        action="store_true",
        help="everything in less than 3 minutes, with rougher figures",
    )
    add("--python", default=sys.executable, help="the interpreter measured")
    add("--json", metavar="FILE", help="write all raw figures")
    add("--plot", metavar="FILE", action="append", help=".png or .svg")
    add("--scale", type=float, help="times the length of measurements (1)")
    add("--minutes", type=float, help="no new measurement after so many")
    add(
        "--case-seconds",
        type=float,
        help="no new repetition of a case that would take it past so many",
    )
    add("--results", metavar="FILE", help="write a Markdown report")
    add("--readme", metavar="FILE", help="write the chart's rows into it")
    add(
        "--chart",
        metavar="STEM",
        help="draw the report's chart: STEM-light.svg and STEM-dark.svg",
    )
    add(
        "--also",
        metavar="JSON",
        help="rows of another run, for the report only",
    )
    add(
        "--judge",
        choices=("median", "least"),
        default="median",
        help="least: best sample instead of medians, on a busy machine",
    )
    add(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: rows that never wait count the process's CPU time",
    )
    return parser.parse_args()


def find_loops(
    wanted: str | None, python: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the version of each loop that can be raced, by name, and why
    others cannot.

    Says on stderr which are left out.  Raises ValueError for a
    name that is not known.
    """
    names = [name.strip() for name in (wanted or "").split(",") if name]
    for name in names:
        if name not in loops.LOOPS:
            raise ValueError(f"no loop is named {name!r}")
    found, without = {}, {}
    for name in names or loops.LOOPS:
        if name in loops.C_SERVERS:
            reason = cannot_build(loops.C_SERVERS[name])
            answer = {"error": reason} if reason else {"version": "C"}
        else:
            answer = schedule.probe(name, python)
        if "error" in answer:
            say(f"without {name}: {answer['error']}")
            without[name] = answer["error"]
        else:
            found[name] = answer["version"]
    return found, without


def cannot_build(program: str) -> str:
    """Compile `program` if it is stale; return why that cannot be done."""
    if sys.platform != "linux":
        return "it needs Linux"
    try:
        build.build(program)
    except build.BuildError as error:
        return str(error)
    return ""


def find_missing(cases: list[case.Case], facts: dict) -> dict[str, str]:
    """Return why cases cannot be measured, by their names; say it too."""
    wanted = {program for one in cases for program in one.programs}
    reasons = {program: cannot_build(program) for program in sorted(wanted)}
    if wanted and len(facts.get("cpus", ())) == 1:
        say("only one CPU: server and load generator share it")
    without = {}
    for one in cases:
        why = [reasons[name] for name in one.programs if reasons[name]]
        why += filter(None, map(daemons.missing, one.daemons))
        for package in one.packages:
            if package not in facts.get("packages", {}):
                why.append(f"{package} is not installed")
        if one.free_threaded and facts.get("gil", True):
            why.append("it needs a free-threaded Python")
        elif one.free_threaded and len(facts.get("cpus", ())) == 1:
            why.append("it needs two CPUs")
        if why:
            say(f"without {one.name}: {why[0]}")
            without[one.name] = why[0]
    return without


def say(text: str) -> None:
    """Tell the one who waits."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Shows on stderr what was measured last and how long it still takes."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.one_line = sys.stderr.isatty()

    def __call__(
        self, done: int, total: int, case: case.Case, loop: str, answer: dict
    ) -> None:
        """Show one measurement."""
        left = (time.monotonic() - self.start) / done * (total - done)
        row = case.rows[0]
        if "error" in answer:
            result = answer["error"]
        else:
            value = answer["figures"].get(row.key, {}).get("figure")
            result = f"{short(value)} {row.unit}"
        line = (
            f"[{done}/{total}] {case.name} {loop} {result} ({left:.0f} s left)"
        )
        if self.one_line:
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            end = "\n" if done == total or "error" in answer else ""
            sys.stderr.write(f"\r\x1b[K{line[: width - 1]}{end}")
            sys.stderr.flush()
        else:
            say(line)


def settings_of(args: argparse.Namespace) -> schedule.Settings:
    """Return how the measurements are to be taken."""
    settings = schedule.Settings(
        python=args.python,
        repeat=args.repeat or 5,
        clock=args.clock,
    )
    if args.quick:
        settings.repeat = args.repeat or 2
        settings.scale = 0.5
        settings.budget = QUICK_BUDGET
        settings.limit = QUICK_LIMIT
    if args.scale:
        settings.scale = args.scale
    if args.minutes:
        settings.budget = 60 * args.minutes
        settings.limit = None
    settings.case_budget = args.case_seconds
    return settings


def draw(report: Report, files: list[str], facts: dict) -> None:
    """Draw the plots, which must not cost the figures if it fails."""
    python = facts.get("python", "").split(" ")[0]
    title = f"CPython {python}, {facts.get('cpu', '')}, {facts.get('system')}"
    try:
        plot.draw(report, files, title)
    except plot.PlotError as error:
        say(f"run.py: {error}")


def prepare(
    args: argparse.Namespace, known: dict[str, case.Case]
) -> tuple[list[case.Case], dict]:
    """Return the cases wanted and the facts: among them the loops found, and
    why others and which cases cannot be measured.

    Raises ValueError for what the command line names wrongly, PlotError and
    OSError for files that could not be written.
    """
    cases = case.pick_cases(known, args.cases)
    args.plot = plot.usable(args.plot or [])
    files = [args.json, args.results, args.chart, *args.plot]
    for name in filter(None, files):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
    found, without_loops = find_loops(args.loops, args.python)
    machine = [args.python, str(HERE / "harness" / "machine.py")]
    facts = schedule.run_json(machine, 20.0)
    facts["loops"] = found
    facts["without_loops"] = without_loops
    facts["without"] = find_missing(cases, facts)
    return cases, facts


def write_results(args: argparse.Namespace, data: dict) -> None:
    """Write the report and its chart, of this run and of the one beside it."""
    also = json.loads(Path(args.also).read_text()) if args.also else None
    if args.results:
        Path(args.results).write_text(markdown.text(data, also))
    if args.chart:
        try:
            chart.draw(data, args.chart)
        except plot.PlotError as error:
            say(f"run.py: {error}")
    if args.readme:
        try:
            readme.write(args.readme, data, also)
        except ValueError as error:
            say(f"run.py: {error}")


def main() -> int:
    """Run as the command line says; return the exit status."""
    args = parse_arguments()
    known = case.all_cases()
    if args.list:
        for name, one in known.items():
            print(f"{one.group:8} {name:22} {one.rows[0].title}")
        return 0
    try:
        cases, facts = prepare(args, known)
    except (ValueError, OSError, plot.PlotError) as error:
        say(f"run.py: {error}; see --list and --help")
        return 2
    kept = [one for one in cases if one.name not in facts["without"]]
    if not kept or not facts["loops"]:
        say("run.py: nothing is left to measure")
        return 2
    settings = settings_of(args)
    facts["load_before"] = os.getloadavg()
    with ExitStack() as stack:
        for name in {name for one in kept for name in one.daemons}:
            port = stack.enter_context(daemons.DAEMONS[name]())
            settings.options[name] = port
        results = schedule.take(
            kept, list(facts["loops"]), settings, Progress()
        )
    facts["load_after"] = os.getloadavg()
    report = Report(cases, results, args.judge)
    report.write(sys.stdout)
    data = report.to_json(settings, facts)
    if args.json:
        Path(args.json).write_text(json.dumps(data, indent=1) + "\n")
    if args.plot:
        draw(report, args.plot, facts)
    write_results(args, data)
    return 1 if any(loop == "fastloop" for _, loop in results.errors) else 0


if __name__ == "__main__":
    sys.exit(main())
