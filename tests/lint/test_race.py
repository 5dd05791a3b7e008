"""The cases of the race fit together, and its loops get equal chances."""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from .conftest import BENCHMARKS, asked

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


TAKE_LUCKY = """
import json
import sys
import time
sys.path.insert(0, sys.argv[1])
from harness import case, schedule
SPEEDS = {"uvloop": 2, "zuvloop": 1.4, "rsloop": 0.5, "fastloop": 1}
taken = []
def take_heat(one, loops, settings, results):
    taken.append(loops)
    results.seconds[one.name] = 0
    for loop in loops:
        figure = {"figure": SPEEDS[loop]}
        results.figures.setdefault(("row", loop), []).append(figure)
    results.errors[one.name, "rsloop"] = "crash"
    if len(taken) == 2:
        time.sleep(0.3)
    return dict.fromkeys(loops, {})
schedule._take_heat = take_heat
one = case.Case("case", "core", (case.Row("row", "", ""),), None)
settings = schedule.Settings(repeat=3, budget=0.2)
results = schedule.take([one], list(SPEEDS), settings, lambda *now: None)
print(json.dumps([taken, results.cut]))
"""


def test_a_loop_that_failed_spares_no_other_one():
    """Its figures may have been lucky."""
    taken, cut = json.loads(asked(TAKE_LUCKY))
    assert "zuvloop" in taken[1]
    # What was left out was not taken.
    number = sum(map(len, taken))
    assert cut == f"time was up after {number} of 12 measurements"


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


LOUD = """
import asyncio
print('{"level": "info"}')
print("loading...", end="")
__version__ = "7"
new_event_loop = asyncio.new_event_loop
"""
PROBE = """
import os
import sys
sys.path.insert(0, sys.argv[1])
from harness import schedule
os.environ["PYTHONPATH"] = sys.argv[2]
print(schedule.probe("rloop", sys.executable))
"""


def test_what_a_library_prints_is_no_answer(tmp_path):
    (tmp_path / "rloop.py").write_text(LOUD)
    assert asked(PROBE, str(tmp_path)) == "{'version': '7'}\n"


ORPHAN = """
import os
import signal
import sys
sys.path.insert(0, sys.argv[1])
from harness import heat
words = [sys.argv[1] + "/harness/worker.py", "asyncio", "call_soon", "--pause"]
worker = heat.Worker([sys.executable, *words], 60.0)
assert worker.step("") is None
print(worker._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_stopped_loop_ends_with_the_race_that_is_killed():
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN, str(BENCHMARKS)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL
    with suppress(ProcessLookupError):
        worker = os.pidfd_open(int(done.stdout))
        ended = select.poll()
        ended.register(worker, select.POLLIN)
        try:
            assert ended.poll(30_000)
        finally:
            os.close(worker)


HANGUP = """
import signal
import sys
sys.path.insert(0, sys.argv[1])
import run
signal.signal(signal.SIGHUP, signal.SIG_IGN)
sys.argv = ["run.py", "--list"]
run.main()
print(*map(signal.getsignal, (signal.SIGHUP, signal.SIGTERM)))
"""


def test_a_race_under_nohup_goes_on():
    hangup, _, term = asked(HANGUP).splitlines()[-1].partition(" ")
    assert hangup == "1"  # SIG_IGN
    assert "default_int_handler" in term


@pytest.mark.parametrize("name", ["timers_due_heap", "threadsafe_wake"])
def test_a_case_that_counts_its_time_itself_pauses_for_the_others(name):
    worker = str(BENCHMARKS / "harness" / "worker.py")
    done = subprocess.run(
        [sys.executable, worker, "asyncio", name, "--pause"],
        input="go\n" * 4 + "end\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    *ready, answer = done.stdout.splitlines()
    assert ready == ["ready"] * 5, done.stderr
    # The first word has it set up.
    assert len(json.loads(answer)["figures"][name]["samples"]) == 3


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


RATIOS = """
import sys
sys.path.insert(0, sys.argv[1])
from harness.schedule import ratios
own = [{"figure": 2.0 * turn, "turn": turn} for turn in (1, 2, 3, 4)]
base = [{"figure": 4.0 * turn, "turn": turn} for turn in (1, 4)]
print(ratios(own, base, "less"))
"""


def test_a_loop_that_was_spared_turns_is_compared_in_the_others():
    assert asked(RATIOS) == "[2.0, 2.0]\n"


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
    heats, kept = json.loads(asked(ALONE))
    assert heats == [["asyncio"], ["uvloop"], ["fastloop"]]
    # No samples of the same time, which would be compared one by one.
    assert kept == {"figure": 1.5, "takes": [1.0, 2.0], "turn": 1}


ALONE = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import case, heat, schedule
heats = []
def run(commands, limit):
    heats.append(list(commands))
    figures = {"row": case.figure([1.0, 2.0])}
    return {loop: {"figures": figures} for loop in commands}
heat.run = run
one = case.Case("case", "core", (case.Row("row", "", ""),), None, alone=True)
loops = ["asyncio", "uvloop", "fastloop"]
settings = schedule.Settings(repeat=1)
results = schedule.take([one], loops, settings, lambda *now: None)
print(json.dumps([heats, results.figures["row", "asyncio"][0]]))
"""


MAPPED = """
import asyncio
import ctypes
import sys
sys.path.insert(0, sys.argv[1])
from harness import first_client
class Info(ctypes.Structure):
    # The fourth is the number of blocks that are mapped.
    _fields_ = [(f"field{number}", ctypes.c_size_t) for number in range(10)]
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
def mapped():
    before = mallinfo().field3
    blocks = [bytes(256 * 1024) for _ in range(64)]
    return mallinfo().field3 - before
print(mapped() > 0)
"""


def test_no_read_maps_memory_after_the_first_client_has_left():
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        pytest.skip("it needs glibc 2.33")
    visit = "first_client.have_one(asyncio.new_event_loop)\n"
    assert asked(MAPPED) == "True\n"
    assert asked(MAPPED.replace("print", visit + "print")) == "False\n"


SERVE = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/servers"]
import serving
serving.first_client.have_one = lambda new_loop: print("a client left")
async def main():
    print("it listens")
words = ["--loop=asyncio", *sys.argv[2:]]
serving.serve(serving.parser(None).parse_args(words), main)
"""
WORK = """
import sys
sys.path.insert(0, sys.argv[1])
from harness import worker
def have_one(new_loop):
    raise ValueError("a client left")
worker.first_client.have_one = have_one
sys.argv[1:] = ["asyncio", "call_soon"]
worker.main()
"""


def test_a_client_leaves_each_server_and_program_first():
    assert asked(SERVE) == "a client left\nit listens\n"
    assert asked(SERVE, "--unvisited") == "it listens\n"
    assert asked(WORK) == '{"error": "ValueError: a client left"}\n'
