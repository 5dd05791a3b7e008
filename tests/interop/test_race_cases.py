"""Each case of the race that is cheap runs, for a moment, on both loops.

Figures of so short a run say nothing and are not looked at.
"""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from interop_process import PATIENCE

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: `make bench` runs the others, and what grows takes seconds.
GROUPS = ("tls", "streams", "sockets", "memory", "web", "apps", "tail")

LIST_CASES = """
import json, sys
sys.path.insert(0, sys.argv[1])
from harness import build, case
print(json.dumps([
    [
        one.name, one.group, one.programs, one.packages, one.daemons,
        [build.PROGRAMS[name][1] for name in one.programs],
    ]
    for one in case.all_cases().values()
]))
"""
PREPARE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from harness import build, daemons
try:
    for program in json.loads(sys.argv[2]):
        build.build(program)
except build.BuildError as error:
    print(error)
for name in json.loads(sys.argv[3]):
    print(daemons.missing(name))
"""
SERVE = """
import sys
sys.path.insert(0, sys.argv[1])
from harness import daemons
with daemons.DAEMONS[sys.argv[2]]() as port:
    print(port, flush=True)
    sys.stdin.read()
"""


def asked(program, *words):
    """Return what a program prints that knows the harness: in a process of
    its own, for the names of its packages are common ones."""
    done = subprocess.run(
        [sys.executable, "-c", program, str(BENCHMARKS), *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CASES = {
    name: rest
    for name, *rest in json.loads(asked(LIST_CASES))
    if rest[0] in GROUPS
}


@pytest.fixture(scope="module")
def port_of():
    """Return a function that starts a daemon once and returns its port."""
    with contextlib.ExitStack() as stack:
        ports = {}

        def start(name):
            if name not in ports:
                daemon = stack.enter_context(
                    subprocess.Popen(
                        [sys.executable, "-c", SERVE, str(BENCHMARKS), name],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
                ports[name] = daemon.stdout.readline().strip()
            return ports[name]

        yield start


def marked(name):
    """Return a case's parameter; mark it if it needs no server or library."""
    *_, daemons, libraries = CASES[name]
    needs = daemons or any(libraries)
    marks = [] if needs else [pytest.mark.needs_no_server]
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("loop", ["asyncio", "fastloop"])
@pytest.mark.parametrize("name", [*map(marked, CASES)])
def test_case_gives_a_figure_for_each_row(name, loop, port_of):
    _, programs, packages, daemons, _ = CASES[name]
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed")
    missing = asked(PREPARE, json.dumps(programs), json.dumps(daemons))
    if missing:
        pytest.skip(f"the case needs what is not here: {missing}")
    options = [f"--option={one}={port_of(one)}" for one in daemons]
    done = subprocess.run(
        [
            sys.executable,
            str(BENCHMARKS / "harness" / "worker.py"),
            loop,
            name,
            "--seconds=0.03",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert "error" not in answer, done.stderr
    figures = answer["figures"]
    assert figures
    assert all(one["figure"] >= 0 for one in figures.values())


BUILD = """
import sys
sys.path.insert(0, sys.argv[1])
from harness import build
print(build.problem("tail_load") or build.path("tail_load"))
"""


def echo_one(listening, started):
    """Echo what one connection sends; say when it has sent something."""
    with listening.accept()[0] as sock:
        while data := sock.recv(65_536):
            started.set()
            sock.sendall(data)


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="its generator needs it")
def test_time_in_which_the_generator_of_tails_stood_still_is_not_counted():
    program = asked(BUILD)
    if not Path(program).exists():
        pytest.skip(f"the generator cannot be built: {program}")
    started = threading.Event()
    words = {"connections": 1, "size": 64, "rate": 500, "seconds": 0.2}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        echo = threading.Thread(target=echo_one, args=(listening, started))
        echo.start()
        words["port"] = listening.getsockname()[1]
        given = [str(one) for key in words for one in (f"--{key}", words[key])]
        with subprocess.Popen([program, *given], stdout=-1) as generator:
            assert started.wait(PATIENCE)
            generator.send_signal(signal.SIGSTOP)
            while state_of(generator.pid) != "T":
                pass
            stopped = time.monotonic()
            while time.monotonic() < stopped + 0.05:
                state_of(generator.pid)
            held_up = time.monotonic() - stopped
            generator.send_signal(signal.SIGCONT)
            answer = json.loads(generator.communicate(timeout=PATIENCE)[0])
        echo.join(PATIENCE)
    assert answer["held_up"] >= held_up
    assert answer["answered"] >= 90
