"""Races event loops against each other and prints the figures.

    python benchmarks/run.py --quick
    python benchmarks/run.py --cases core --loops uvloop,fastloop --repeat 3

Loops and packages that cannot be imported by the interpreter that is
measured are left out, and the run says so.  README.md has the method.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from harness import (
    build,
    case,
    chart,
    counts,
    daemons,
    loops,
    pages,
    schedule,
)

#: What --quick stands for, and what the JSON keeps of a run.
QUICK = {"repeat": 2, "scale": 0.5, "minutes": 2.5, "limit": 12.0}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names, groups = ",".join(loops.LOOPS), "core,tcp,http,startup"
    cases = f"comma list of cases, globs or groups; default: {groups}"
    add("--loops", help=f"comma list of {names}; default: all found")
    add("--cases", default=groups, help=cases)
    add("--list", action="store_true", help="print the cases and exit")
    add("--repeat", type=int, default=5, help="repetitions of all (5)")
    add("--quick", action="store_true", help="roughly, in under 3 minutes")
    add("--json", metavar="FILE", help="write all raw figures")
    read = "measure nothing: read a run, or the parts of one"
    add("--from", nargs="+", metavar="JSON", dest="saved", help=read)
    add("--count", action="store_true", help="count calls and instructions")
    scale = "times the length of measurements (1)"
    add("--scale", type=float, default=1.0, help=scale)
    add("--minutes", type=float, help="no new measurement after so many")
    limit = "seconds after which a step is given up (60)"
    add("--limit", type=float, default=60.0, help=limit)
    add("--results", metavar="FILE", help="write a Markdown report")
    add("--pages", metavar="FOLDER", help="write its figures into docs there")
    add("--chart", metavar="STEM", help="draw STEM-light.svg, STEM-dark.svg")
    if parser.parse_args().quick:
        parser.set_defaults(**QUICK)
    return parser.parse_args()


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def find_loops(
    wanted: str | None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the version of each loop that can be raced, by name, and why
    others cannot.

    Says on stderr which are left out.  Raises ValueError for a name that is
    not known.
    """
    names = [name.strip() for name in (wanted or "").split(",") if name]
    for name in names:
        if name not in loops.LOOPS:
            raise ValueError(f"no loop is named {name!r}")
    found, without = {}, {}
    for name in names or loops.LOOPS:
        answer = schedule.probe(name)
        if "error" in answer:
            without[name] = answer["error"]
            say(f"without {name}: {answer['error']}")
        else:
            found[name] = answer["version"]
    return found, without


def find_missing(cases: list[case.Case], facts: dict) -> dict[str, str]:
    """Return why cases cannot be measured, by their names; say it too."""
    no_load = build.problem() if any(one.loaded for one in cases) else ""
    without = {}
    for one in cases:
        why = [no_load] if one.loaded else []
        why += map(daemons.missing, one.daemons)
        why += [
            f"{package} is not installed"
            for package in one.packages
            if package not in facts.get("packages", {})
        ]
        if one.free_threaded and facts.get("gil", True):
            why.append("it needs a free-threaded Python")
        if reason := next(filter(None, why), ""):
            say(f"without {one.name}: {reason}")
            without[one.name] = reason
    return without


def measure(args: argparse.Namespace, known: dict[str, case.Case]) -> dict:
    """Take all measurements; return them, {} where there is nothing to take.

    Raises ValueError for what the command line names wrongly.
    """
    cases = case.pick_cases(known, args.cases)
    found, without_loops = find_loops(args.loops)
    facts = schedule.facts(known.values())
    facts |= {"loops": found, "without_loops": without_loops}
    facts["without"] = find_missing(cases, facts)
    kept = [one for one in cases if one.name not in facts["without"]]
    if not kept or not found:
        say("run.py: nothing is left to measure")
        return {}
    facts["load_before"] = os.getloadavg()
    with ExitStack() as stack:
        start_daemons(kept, stack)
        rows, cut = schedule.take(kept, list(found), args, say)
    facts["load_after"] = os.getloadavg()
    return {
        "settings": {name: getattr(args, name) for name in QUICK},
        "machine": facts,
        "cut": cut,
        "rows": rows,
    }


def joined(files: list[str], known: dict[str, case.Case]) -> dict:
    """Return the run that several make, each of a part of the cases; "also"
    is the one without a GIL."""
    runs = [json.loads(Path(one).read_text()) for one in files]
    data, without, parts = runs[0], {}, {}
    rows = {row["row"]: row for one in runs for row in one["rows"]}
    for file, run in zip(files, runs, strict=True):
        without |= run["machine"]["without"]
        if not run["machine"].get("gil", True):
            data["also"] = run
            continue
        name = Path(file).stem.removeprefix("race-part-")
        parts[name] = run["settings"]["repeat"]
    if len(parts) > 1:
        data["parts"] = parts
        without = dict.fromkeys(known, "it is in no part") | without
    order = {name: place for place, name in enumerate(known)}
    data["rows"] = sorted(
        rows.values(), key=lambda row: order.get(row["case"], 0)
    )
    data["cut"] = next((one["cut"] for one in runs if one["cut"]), "")
    for row in data["rows"]:
        without.pop(row["case"], None)
    data["machine"]["without"] = without
    return data


def start_daemons(cases: list[case.Case], stack: ExitStack) -> None:
    for name in {name for one in cases for name in one.daemons}:
        stack.enter_context(daemons.running(name))


def count_more(
    args: argparse.Namespace, known: dict[str, case.Case], data: dict
) -> None:
    """Add counts to the rows of a run; say why that is impossible."""
    if missing := [tool for tool in counts.TOOLS if not shutil.which(tool)]:
        say(f"nothing is counted: {' and '.join(missing)} cannot be found")
        return
    rows = {row["row"]: row for row in data["rows"]}
    picked = case.pick_cases(known, args.cases)
    cases = [one for one in picked if one.rows[0].key in rows]
    wanted = args.loops.split(",") if args.loops else loops.LOOPS
    names = [name for name in data["machine"]["loops"] if name in wanted]
    with ExitStack() as stack:
        start_daemons(cases, stack)
        found = schedule.count(cases, names, say)
    for key, each in found.items():
        rows[key].setdefault("counts", {}).update(each)


def write(args: argparse.Namespace, data: dict) -> None:
    """Write the files asked for; a chart that fails costs no other file."""
    if args.json:
        Path(args.json).write_text(json.dumps(data, indent=1) + "\n")
    if args.results:
        Path(args.results).write_text(pages.text(data))
    try:
        if args.chart:
            chart.write(data, args.chart)
            print(f"The chart is {args.chart}-light.svg.")
    except ValueError as error:
        say(f"run.py: {error}")
    if args.pages:
        for sentence in pages.write(args.pages, data):
            say(f"run.py: {sentence}")


def main() -> int:
    args = parse_arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C: end what was started, and save what was measured; but
        # nohup has it go on.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    known = case.all_cases()
    if args.list:
        for name, one in known.items():
            print(f"{one.group:8} {name:22} {one.rows[0].title}")
        return 0
    try:
        for name in filter(None, (args.json, args.results, args.chart)):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
        if args.saved:
            data = joined(args.saved, known)
        else:
            data = measure(args, known)
        if args.count and data:
            if args.json:  # counting takes long, and may be ended
                Path(args.json).write_text(json.dumps(data) + "\n")
            count_more(args, known, data)
    except (ValueError, OSError) as error:
        say(f"run.py: {error}; see --list and --help")
        return 2
    if not data:
        return 2
    print(f"{pages.plain(data)}\nbenchmarks/README.md explains the rows.")
    write(args, data)
    failed = (
        row["loops"].get("fastloop", {}).get("error") for row in data["rows"]
    )
    return 1 if any(failed) else 0


if __name__ == "__main__":
    sys.exit(main())
