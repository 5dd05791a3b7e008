"""The race: its cases fit together, its loops get equal chances, and the
pages say what was measured.
"""

import json
import os
import select
import shutil

import pytest

from fastloop.cli.compare import compare

from .conftest import asked

LIST_ROWS = """
import sys
sys.path.insert(0, sys.argv[1])
from harness import case, daemons
for one in case.all_cases().values():
    assert one.group in case.GROUPS, one.name
    assert set(one.daemons) <= set(daemons.DAEMONS), one.name
    print(*(row.key for row in one.rows))
"""


@pytest.fixture(scope="module")
def rows():
    """Return the keys of all rows."""
    return asked(LIST_ROWS).split()


def test_no_key_is_used_twice(rows):
    assert len(rows) == len(set(rows))


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
        ("import os; os.write(1, bytes([255, 10]))", "exit 0: no output"),
        ("print(None)", "exit 0: no output"),
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


ALTERNATE = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import heat
WORKER = '''
import sys
def pause():
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


COUNT = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import case, schedule
cases = [case.all_cases()[name] for name in ("chain", "import")]
settings = schedule.Settings()
print(json.dumps(schedule.count(cases, ["asyncio"], settings, lambda *now: 0)))
"""


def test_a_case_is_counted_as_it_is_timed():
    """A callback in each iteration is a poll, and a few thousand steps."""
    for tool in ("valgrind", "strace"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    found = json.loads(asked(COUNT))
    assert found.keys() == {"chain"}
    assert round(found["chain"]["asyncio"]["calls"], 2) == 1
    assert 3_000 < found["chain"]["asyncio"]["instructions"] < 100_000


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


# -- pages --------------------------------------------------------------------


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
if len(sys.argv) > 3:
    found["loops"]["fastloop"]["error"] = sys.argv[3]
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
    if found and found.high_95 < 100:
        interval = f"({found.low_95:.2f} to {found.high_95:.2f})"
        assert over == f"{found.ratio:.2f} {interval}"


COUNTED = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import markdown
own, peer, kind = json.loads(sys.argv[2])
counts = {loop: {kind: n} for loop, n in (("fastloop", own), ("rloop", peer))}
row = {"aside": False, "counts": counts}
print(markdown.count_cell(row, kind), markdown.count_place(row, kind))
print(*markdown.count_sentences([row]))
"""


@pytest.mark.parametrize(
    ("own", "peer", "kind", "cell", "place"),
    [
        (2_038, 3_106, "instructions", "2,038 (rloop 3,106)", "first"),
        (1_000, 1_019, "instructions", "1,000 (rloop 1,019)", "even"),
        (2.12, 2.02, "calls", "2.12 (rloop 2.02)", "behind"),
    ],
)
def test_a_row_has_a_place_by_each_count(own, peer, kind, cell, place):
    shown, sentence = asked(COUNTED, json.dumps([own, peer, kind])).split(
        "\n", 1
    )
    assert shown == f"{cell} {place}"
    name = {"calls": "system calls"}.get(kind, "user instructions")
    assert sentence.strip() == (
        f"By {name} for an operation, fastloop is {place} in 1 of 1 rows."
    )
