"""The cases of the race fit together, and its pages agree."""

import json
import os
import re
import select
import subprocess
import sys

import pytest

from fastloop.cli.compare import compare

from .conftest import TOP

BENCHMARKS = TOP / "benchmarks"
LIST_ROWS = """
import sys
sys.path.insert(0, sys.argv[1])
from harness import build, case, daemons
for one in case.all_cases().values():
    assert one.group in case.GROUPS, one.name
    assert set(one.programs) <= set(build.PROGRAMS), one.name
    assert set(one.daemons) <= set(daemons.DAEMONS), one.name
    print(*(row.key for row in one.rows))
"""


def asked(program, *words):
    """Return what a program prints that knows the harness: in a process of
    its own, for the names of the benchmarks' packages are common ones."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(BENCHMARKS), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def rows():
    """Return the keys of all rows."""
    return asked(LIST_ROWS).split()


def test_no_key_is_used_twice(rows):
    assert len(rows) == len(set(rows))


WRITE_TABLE = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import chart, markdown
def row(key, own, group="core"):
    figures = {"asyncio": 0.5, "uvloop": 1.0, "rloop": 1.25, "fastloop": own}
    noise = (0.3, 1, 3) if key == "spread" else (0.999, 1, 1.001)
    return {
        "row": key, "case": key, "title": key, "group": group, "unit": "1/s",
        "better": "more", "aside": False, "reach": "", "judge": "median",
        "loops": {
            loop: {
                "figure": figure,
                "repetitions": [
                    {"figure": figure * (part if loop == "fastloop" else 1)}
                    for part in noise
                ],
                "error": None,
            }
            for loop, figure in figures.items()
        },
    }
data = {
    "rows": [row(key, 1.5) for key in chart.ROWS],
    "machine": {"python": "3.14.8 (main)", "cpus": [0, 1]},
    "settings": {"repeat": 5},
    "cut": "time was up",
}
data["rows"][0] = row(data["rows"][0]["row"], 1.1)
data["rows"][1] = row(data["rows"][1]["row"], 1.24)
also = {"rows": [row("two_threads", 0.9), row("spread", 2)]}
markdown.write_table(sys.argv[2], data, also)
"""


def write_table(path):
    return subprocess.run(
        [sys.executable, "-c", WRITE_TABLE, str(BENCHMARKS), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_race_writes_a_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- race: begin -->\nold\n<!-- race: end -->\nafter\n"
    )
    done = write_table(page)
    assert done.returncode == 0, done.stderr
    lines = page.read_text().splitlines()
    assert lines[:2] == ["before", "<!-- race: begin -->"]
    assert lines[-2:] == ["<!-- race: end -->", "after"]
    assert "old" not in lines
    assert "| TCP echo, Protocol | 0.50 | 1.25 (rloop) | 1.10 |" in lines
    assert "| TCP echo, streams | 0.50 | 1.25 (rloop) | **1.24** |" in lines
    text = " ".join(lines)
    assert (
        "Of all 10 rows, fastloop is first in 6, even with the best in 1 and"
        in text
    )
    assert "and behind in 2; 1 are inconclusive." in text
    assert "medians of up to 5 alternating runs." in text


def test_a_saved_run_is_reported_again(tmp_path):
    row = {
        "row": "call_soon",
        "case": "call_soon",
        "title": "call_soon, batch",
        "group": "core",
        "unit": "ns",
        "better": "less",
        "aside": False,
        "reach": "90",
        "judge": "median",
        "loops": {
            loop: {
                "figure": figure,
                "repetitions": [{"figure": figure}, {"figure": 1.1 * figure}],
                "error": None,
            }
            for loop, figure in (("asyncio", 400), ("uvloop", 200))
        },
    }
    row["loops"]["fastloop"] = {
        "figure": 100,
        "repetitions": [{"figure": 100}, {"figure": 110}],
        "error": None,
    }
    row["loops"]["rloop"] = {"figure": None, "repetitions": [], "error": "x"}
    machine = dict.fromkeys("date cpu system libc python openssl".split(), "?")
    machine |= {"cpus": [0, 1], "load_before": [1], "packages": {}}
    machine |= {"loops": {"asyncio": "3.14", "uvloop": "1"}}
    machine |= {"without_loops": {"zuvloop": "gone"}, "without": {}}
    data = {"rows": [row], "machine": machine, "cut": ""}
    data["settings"] = {"repeat": 2, "scale": 1.0}
    saved, page = tmp_path / "run.json", tmp_path / "RESULTS.md"
    saved.write_text(json.dumps(data))
    words = [BENCHMARKS / "run.py", "--from", saved, "--results", page]
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "| call_soon, batch |   ns |     400 |    200 |" in done.stdout
    assert "call_soon on rloop failed: x" in done.stdout
    lines = page.read_text().splitlines()
    assert "- call_soon, batch: 100 ns, meant: 90" in lines
    assert "- zuvloop: gone" in lines
    (line,) = (one for one in lines if one.endswith("| first |"))
    assert line.split(" | ")[2:7] == [
        "100 ±5 %",
        "2.00",
        "0.50",
        "uvloop 1.00",
        "2.00 (2.00 to 2.00)",
    ]
    (cells,) = (one for one in lines if one.endswith("| 200 ±5 % |"))
    assert cells == "| call_soon, batch | ns | 400 ±5 % | 200 ±5 % |"


PLACES = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import markdown
def row(own, peer):
    loops = {
        loop: {
            "figure": sorted(figures)[len(figures) // 2],
            "repetitions": [{"figure": figure} for figure in figures],
            "error": None,
        }
        for loop, figures in (("fastloop", own), ("uvloop", peer)) if figures
    }
    return {"better": "less", "aside": False, "judge": "median",
            "loops": loops}
found = row(*json.loads(sys.argv[2]))
print(markdown.place(found))
print(markdown.over_best(found))
print(markdown.with_spread(found, "fastloop"))
"""


@pytest.mark.parametrize(
    ("own", "place"),
    [
        ([50.0, 51.0, 52.0, 50.0, 51.0], "first"),
        ([199.0, 205.0, 190.0, 201.0, 203.0], "**behind**"),
        ([101.0, 100.0, 99.0, 100.0, 101.0], "even"),
        # Told apart, and still within 3 %.
        ([99.0, 99.0, 99.0, 99.0, 99.0], "even"),
        ([20.0, 900.0, 80.0, 4_000.0, 15.0], "inconclusive"),
        ([1.0, 1e9], "inconclusive"),
        ([50.0], "inconclusive"),
        ([], "not measured"),
    ],
)
def test_a_row_has_the_place_that_its_interval_tells(own, place):
    peer = [100.0] * 5
    found, over, _ = asked(PLACES, json.dumps([own, peer])).split("\n", 2)
    assert found == place
    found = compare(own, peer, "less")
    if found and found.high < 100:
        interval = f"({found.low:.2f} to {found.high:.2f})"
        assert over == f"{found.ratio:.2f} {interval}"


def test_figures_that_lie_far_apart_are_shown_by_the_interval_of_the_median():
    own = [float(place) for place in range(1, 11)]
    shown = asked(PLACES, json.dumps([own, own])).splitlines()[-1]
    # The second and the last but one of ten: 97.9 % of all medians.
    assert shown == "6.00 (2.00 to 9.00)"
    assert asked(PLACES, json.dumps([own[4:6], own])).splitlines()[-1] == (
        "6.00 ±8 %"
    )


RUN_JSON = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import schedule
print(json.dumps(schedule.run_json([sys.executable, "-c", sys.argv[2]], 20)))
"""


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("import os; os.abort()", "killed by signal 6: Aborted"),
        ("import os; os.kill(os.getpid(), 40)", "killed by signal 40"),
        ("import os; os.write(1, bytes([255, 10]))", "exit 0: no output"),
        ("print(None)", "exit 0: no output"),
        ("print([1])", "exit 0: no output"),
        ("raise SystemExit('no')", "exit 1: no"),
    ],
)
def test_a_peer_that_crashes_fails_its_row_alone(program, error):
    answer = json.loads(asked(RUN_JSON, program))
    assert answer["error"].startswith(error)


def test_what_a_measurement_started_ends_with_it(tmp_path):
    held = tmp_path / "fifo"
    os.mkfifo(held)
    with open(os.open(held, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        asked(
            RUN_JSON,
            "import os, subprocess\n"
            f"with open({str(held)!r}, 'w') as file:\n"
            "    subprocess.Popen(['sleep', '600'], stdout=file, stderr=-3)\n"
            "os.abort()",
        )
        # The last that had it open is gone.
        ended = select.poll()
        ended.register(file, select.POLLHUP)
        assert ended.poll(60_000)


FAIL_ONE = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import case, heat, schedule
heat.run = lambda commands, limit: {
    loop: {"error": sys.argv[2]} for loop in commands
}
one = case.Case("case", "core", (case.Row("row", "", ""),), None)
results = schedule.take(
    [one], ["asyncio", "uvloop"], schedule.Settings(repeat=2), print
)
print(json.dumps(list(results.errors.values())))
"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("ValueError: one\ntwo", "ValueError: one two"),
        ("OSError: ", "OSError"),
    ],
)
def test_an_error_is_one_line_of_the_report(error, line):
    errors = asked(FAIL_ONE, error).splitlines()[-1]
    assert json.loads(errors) == [line, line]


TAKE = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import case, schedule
SPEEDS = {"asyncio": 9, "uvloop": 2, "zuvloop": 1.4, "rloop": 2, "rsloop": 4,
          "fastloop": 1}
taken = []
def take_heat(one, loops, settings, results):
    taken.append(loops)
    results.seconds[one.name] = 0
    for loop in loops:
        figure = {"figure": SPEEDS[loop]}
        results.figures.setdefault(("row", loop), []).append(figure)
    return dict.fromkeys(loops, {})
schedule._take_heat = take_heat
one = case.Case("case", "core", (case.Row("row", "", ""),), None, rounds=2)
settings = schedule.Settings(repeat=3)
shown = []
schedule.take([one], list(SPEEDS), settings, lambda *now: shown.append(now))
print(json.dumps([taken, [now[:2] for now in shown]]))
"""


def test_a_peer_that_is_far_behind_has_few_repetitions():
    heats, shown = json.loads(asked(TAKE))
    taken = [loop for loops in heats for loop in loops]
    counts = {loop: taken.count(loop) for loop in taken}
    # Ratios are over asyncio and uvloop: they stay, however far behind.
    assert counts == {
        "asyncio": 6,
        "uvloop": 6,
        "zuvloop": 6,
        "rloop": 4,
        "rsloop": 2,
        "fastloop": 6,
    }
    assert len(taken) == len(shown) == 30
    assert shown[-1] == [36, 36]


TAKE_MORE = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import case, schedule
SPEEDS = {"faster": 0.5, "even": 1, "doubtful": 1.04}
taken = []
def take_heat(one, loops, settings, results):
    results.seconds[one.name] = 0
    for loop in loops:
        taken.append([one.name, loop])
        figures = results.figures.setdefault((one.name, loop), [])
        speed = {"asyncio": 9, "uvloop": 1, "c-uv": 0.5}.get(loop)
        noise = 1 + 0.01 * (len(figures) % 3) * (one.name == "doubtful")
        figures.append({"figure": speed or noise * SPEEDS[one.name]})
    return dict.fromkeys(loops, {})
schedule._take_heat = take_heat
loops = ["asyncio", "uvloop", "fastloop", "c-uv"]
cases = [
    case.Case(name, "core", (case.Row(name, "", ""),), None, tuple(loops))
    for name in SPEEDS
]
settings = schedule.Settings(repeat=3, more=2)
results = schedule.take(cases, loops, settings, lambda *now: None)
print(json.dumps([taken, results.left_out]))
"""


def test_an_inconclusive_case_has_more_repetitions():
    taken, left_out = json.loads(asked(TAKE_MORE))
    counts = {tuple(pair): taken.count(pair) for pair in taken}
    for name in ("faster", "even"):
        assert {counts[name, loop] for loop in ("uvloop", "fastloop")} == {3}
    # Only those that may be the best.
    found = {loop: n for (name, loop), n in counts.items() if name[0] == "d"}
    assert found == {
        "asyncio": 3,
        "uvloop": 5,
        "fastloop": 5,
        "c-uv": 3,
    }
    assert len(taken) + left_out == 5 * 3 * 4


def test_each_round_takes_all_loops_and_another_one_first():
    heats, _ = json.loads(asked(TAKE))
    assert [len(set(one)) for one in heats] == [6, 6, 5, 5, 4, 4]
    assert len({one[0] for one in heats[:4]}) == 4


ALTERNATE = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import heat
WORKER = '''
import sys
def pause():
    print("a library's line")
    print("ready", flush=True)
    return sys.stdin.readline() == "go\\\\n"
name = sys.argv[1]
pause()
taken = []
for series in range(2):
    while pause():
        with open(sys.argv[2], "a") as file:
            file.write(name)
        if name == sys.argv[3]:
            %s
        taken.append(series)
print('{"figures": %%s}' %% taken, flush=True)
'''
file, act, bad = sys.argv[2:]
worker = [sys.executable, "-c", WORKER % act]
heat.SHARE_S = 0
commands = {name: [*worker, name, file, bad] for name in "abc"}
print(json.dumps(heat.run(commands, 2.0)))
"""


def test_loops_alternate_sample_by_sample(tmp_path):
    file = tmp_path / "order"
    found = json.loads(asked(ALTERNATE, str(file), "pass", ""))
    assert [len(found[name]["figures"]) for name in "abc"] == [6, 6, 6]
    assert file.read_text() == 2 * "abcbcacab"


@pytest.mark.parametrize(
    ("act", "error"),
    [
        ("import os; os.abort()", "killed by signal 6: Aborted"),
        ("raise OSError('no')", "exit 1: OSError: no"),
        ("import time; time.sleep(600)", "no answer in 2 s"),
        ("sys.exit()", "exit 0: no output"),
    ],
)
def test_a_loop_that_fails_leaves_the_others_their_samples(
    tmp_path, act, error
):
    found = json.loads(asked(ALTERNATE, str(tmp_path / "order"), act, "b"))
    assert found["b"]["error"] == error
    assert [len(found[name]["figures"]) for name in "ac"] == [6, 6]


STOPPED = """
import os
import sys
sys.path.insert(0, sys.argv[1])
from harness import heat
WORKER = "print('ready', flush=True); input(); print('{}', flush=True)"
def state():
    with open(f"/proc/{worker._process.pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
with heat.Worker([sys.executable, "-c", WORKER], 60.0) as worker:
    assert worker.step("") is None
    while state() != "T":
        os.sched_yield()
    print(worker.step(heat.GO))
"""


def test_a_loop_is_stopped_while_the_others_are_measured():
    assert asked(STOPPED) == "{}\n"


PAIRED = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness.schedule import paired
print(round(paired(*json.loads(sys.argv[2]), "less"), 6))
"""


def test_samples_of_the_same_time_are_compared():
    """However much slower the machine was for one of them."""
    own = {"figure": 30.0, "samples": [10.0, 30.0, 50.0]}
    base = {"figure": 60.0, "samples": [20.0, 60.0, 100.0]}
    assert asked(PAIRED, json.dumps([own, base])) == "2.0\n"
    few = {"figure": 90.0, "samples": [90.0]}
    assert asked(PAIRED, json.dumps([own, few])) == "3.0\n"


ENDED = """
import sys
sys.path.insert(0, sys.argv[1])
from harness import heat
HANGS = "import os; print(os.getpid(), file=open(sys.argv[1], 'w', 1))"
HANGS = "import sys; " + HANGS + "; input()"
ASKS = '''
import os, sys
print("ready", flush=True)
sys.stdin.readline()
with open(sys.argv[1]) as file:
    pid = int(file.read())
try:
    os.kill(pid, 0)
    alive = True
except ProcessLookupError:
    alive = False
print('{"alive": %d}' % alive, flush=True)
'''
command = [sys.executable, "-c"]
commands = {
    "hangs": [*command, HANGS, sys.argv[2]],
    "asks": [*command, ASKS, sys.argv[2]],
}
print(heat.run(commands, 2.0))
"""


def test_a_loop_that_hangs_is_ended_before_the_next_one_is_measured(tmp_path):
    """It could take the CPU of the others."""
    assert "{'alive': 0}" in asked(ENDED, str(tmp_path / "pid"))


def test_servers_of_one_address_are_measured_one_by_one():
    found = json.loads(asked(ALONE))
    assert found == [["asyncio"], ["uvloop"], ["fastloop"]]


ALONE = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import case, heat, schedule
heats = []
def run(commands, limit):
    heats.append(list(commands))
    return {loop: {"figures": {"row": {"figure": 1.0}}} for loop in commands}
heat.run = run
one = case.Case("case", "core", (case.Row("row", "", ""),), None, alone=True)
loops = ["asyncio", "uvloop", "fastloop"]
schedule.take([one], loops, schedule.Settings(repeat=1), lambda *now: None)
print(json.dumps(heats))
"""


def test_a_page_without_its_section_is_left_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    done = write_table(page)
    assert done.returncode == 1
    assert "has no section for the race" in done.stderr
    assert page.read_text() == "nothing\n"


@pytest.mark.parametrize(
    "name",
    ["README.md", "docs/performance.md", "docs/one-process-many-loops.md"],
)
def test_a_page_has_a_section_for_the_race(name):
    text = (TOP / name).read_text()
    assert text.count("<!-- race: begin -->\n") == 1
    assert text.count("<!-- race: end -->\n") == 1


QUOTING = ("README.md", "docs/one-process-many-loops.md")


def write_pages(folder, report):
    words = [BENCHMARKS / "run.py", "--page", report, "--pages", folder]
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def pages(tmp_path):
    """A folder with the pages that quote the report."""
    (tmp_path / "docs").mkdir()
    for name in QUOTING:
        (tmp_path / name).write_text((TOP / name).read_text())
    return tmp_path


def test_pages_say_what_the_report_says(pages):
    done = write_pages(pages, BENCHMARKS / "RESULTS.md")
    assert (done.returncode, done.stderr) == (0, "")
    for name in QUOTING:
        assert (pages / name).read_text() == (TOP / name).read_text()


REPORT = """\
- 2026-01-01; a CPU, 2 CPUs, Linux; load before: 0.0
- CPython 3.14.8 (main)
- first: 2 of 4 rows
- even with the best peer (within 3%): 1 of 4 rows
- behind: 1 of 4 rows

| row | unit | fastloop | over uvloop | asyncio | best peer |
| --- | ---: | ---: | ---: | ---: | ---: |
| TCP echo, Protocol, 64 of 1 KiB, server CPU | us | 4 | 1.50 | 0.25 | x 1 |
| TCP echo, streams, 64 of 1 KiB, server CPU | us | 4 | 0.75 | 1.50 |  |
| uvicorn (httptools), plain text, rate | 1/s | 9 | 1.25 | 0.50 |  |

## Every loop's figures

| row | unit | asyncio | uvloop | rloop | fastloop |
| --- | ---: | ---: | ---: | ---: | ---: |
| uvicorn (httptools), plain text, rate | 1/s | 8 | failed | 1 failed | 9 |

| row | unit | asyncio | fastloop |
| --- | ---: | ---: | ---: |
| two threads over one, tasks | times | 1.58 ±10 % | 1.02 ±8 % |
"""


def test_pages_quote_a_report(pages):
    report = pages / "RESULTS.md"
    report.write_text(REPORT)
    done = write_pages(pages, report)
    assert (done.returncode, done.stderr) == (0, "")
    lines = (pages / "README.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("- **")] == [
        "- **TCP echo: 6.0 times asyncio, 1.50 times uvloop**",
        "- **uvicorn: 2.5 times asyncio, 1.25 times uvloop**",
        "- **Streams: 0.5 times asyncio, 0.75 times uvloop**",
    ]
    text = " ".join(lines)
    assert "CPython 3.14, 2 CPUs. Of all 4 rows, fastloop is first in" in text
    text = (pages / "docs/one-process-many-loops.md").read_text()
    assert "|---|---|---|\n| tasks | 1.58 | 1.02 |\n\n" in text


@pytest.mark.parametrize(
    ("left_out", "sentence"),
    [
        (
            "| TCP echo, streams",
            "the report has no ratios of echo_streams_64x1k",
        ),
        ("- behind", "the report does not say: behind"),
        ("| two threads", "the report has no row of two threads"),
    ],
)
def test_a_page_whose_figures_are_missing_is_left(left_out, sentence, pages):
    report = pages / "RESULTS.md"
    report.write_text(REPORT.replace(left_out, "x"))
    done = write_pages(pages, report)
    assert done.returncode == 2
    assert sentence in done.stderr
    (name,) = re.findall(r"(\S+) is left as it is", done.stderr)
    assert (pages / name).read_text() == (TOP / name).read_text()
