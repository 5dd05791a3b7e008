"""Count the instructions of some operations, and compare with before.

    python tests/counts/count.py            fail if one takes 1 % more
    python tests/counts/count.py --write    store the counts as they are

Callgrind counts the user instructions of fastloop's extension and of libuv.
They are the same on each machine, whatever else it does.  A commit that means
to change one writes expected.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXPECTED = HERE / "expected.json"
#: By how much a count may exceed what is expected.  In how many iterations the
#: loop gets a job's result depends on its thread.
TOLERANCE = 0.01
#: Operations of which all objects are counted too, as "..._whole": here
#: fastloop can leave its work to CPython.
WHOLE = {"streams_echo", "client"}
TOLERANCES = {"executor_job": 1.0, **{f"{key}_whole": 0.02 for key in WHOLE}}
#: The objects that are counted.  Not libc: what malloc() and locks take
#: depends on how memory lies, and on other threads.
COUNTED = re.compile(r"/_core\.[^/]*\.so|/libuv")
#: But not these: how often the loop offers the GIL depends on the clock.
UNCOUNTED = re.compile("fl_gil_|poll_offering_gil")


def cost_by_object(profile: Path) -> dict[str, int]:
    """Return how many instructions each object ran itself."""
    costs: dict[str, int] = {}
    names: dict[tuple[str, str], str] = {}
    current, is_call, is_counted = "", False, True
    for line in profile.read_text().splitlines():
        if line.startswith(("ob=", "cob=", "fn=", "cfn=")):
            kind, _, rest = line.partition("=")
            number, _, name = rest.partition(" ")
            name = names.setdefault((kind[-2:], number), name)
            if kind == "ob":
                current = name
            elif kind == "fn":
                is_counted = not UNCOUNTED.match(name)
        elif line.startswith("calls="):
            is_call = True  # the next line is the cost of the called function
        elif line[:1].isdigit() or line[:1] in "+-*":
            cost = int(line.split()[1]) if " " in line else 0
            if not is_call and is_counted:
                costs[current] = costs.get(current, 0) + cost
            is_call = False
    return costs


def counted(profile: Path, whole: bool) -> int:
    costs = cost_by_object(profile)
    return sum(n for name, n in costs.items() if whole or COUNTED.search(name))


def measure() -> dict[str, float]:
    """Return each operation's instructions."""
    with tempfile.TemporaryDirectory() as folder:
        return measure_in(Path(folder))


def measure_in(folder: Path) -> dict[str, float]:
    """Return them, by profiles in a folder."""
    profile = folder / "profile"
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--dump-before=libuv_version"]
        + [f"--callgrind-out-file={profile}", sys.executable]
        + [HERE / "operations.py"],
        # No more: to look a variable up takes longer the more there are.
        env={
            "PATH": os.environ["PATH"],
            "PYTHONHASHSEED": "0",
            # Which polls are skipped depends on the clock.
            "FASTLOOP_DISABLE": "poll_skip",
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    found = {}
    for at, line in enumerate(done.stdout.splitlines()):
        name, n = line.split()
        # Of three dumps for each operation, the first is of what came before.
        dumps = [folder / f"profile.{3 * at + part}" for part in (2, 3)]
        for whole in range(1 + (name in WHOLE)):
            once, twice = (counted(dump, bool(whole)) for dump in dumps)
            key = name + "_whole" * whole
            found[key] = round((twice - once) / int(n), 1)
    return found


def compare(found: dict[str, float], expected: dict[str, float]) -> list[str]:
    """Print the counts; return the names of those that are too high."""
    worse = []
    for name, count in found.items():
        ratio = count / expected[name] if expected.get(name) else 0
        too_many = not 0 < ratio <= 1 + TOLERANCES.get(name, TOLERANCE)
        if too_many:
            worse.append(name)
        print(
            f"{name:20} {count:10,.0f} {ratio:8.3f} of what is expected"
            + ("  TOO MANY" if too_many else "")
        )
    return worse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    found = measure()
    if options.write:
        EXPECTED.write_text(json.dumps(found, indent=2) + "\n")
    expected = json.loads(EXPECTED.read_text())
    if compare(found, expected):
        print("Once more: what depends on a thread may be less.")
        again = measure()
        found = {name: min(found[name], again[name]) for name in found}
        if worse := compare(found, expected):
            sys.exit(f"more than is expected: {', '.join(worse)}")


if __name__ == "__main__":
    main()
