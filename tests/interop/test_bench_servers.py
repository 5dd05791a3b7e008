"""`bench --http` with uvicorn: the loops, figures and ends."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from interop_process import PATIENCE, Process, child_env

for library in ("psutil", "uvicorn"):
    pytest.importorskip(library, reason=f"{library} is not installed")

LOOPS = ["fastloop", "asyncio"]
APP = """
import asyncio

def seen():
    name = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    with open("seen", "a") as file:
        file.write(name + "\\n")

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        start = (await receive())["type"]
        if FAILS:
            answer = {"message": "the database is away"}
            await send({"type": f"{start}.failed"} | answer)
            return
        await send({"type": f"{start}.complete"})
        await send({"type": f"{(await receive())['type']}.complete"})
        return
    seen()
    head = {"type": "http.response.start", "status": STATUS}
    await send(head | {"headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""

class Bench:
    """`bench --http app:app` in a folder of its own."""

    def __init__(self, folder: Path, start) -> None:
        self.folder = folder
        self._start = start

    def app(self, status=200, fails=False):
        """Write the application that uvicorn serves."""
        text = APP.replace("STATUS", str(status))
        (self.folder / "app.py").write_text(text.replace("FAILS", str(fails)))

    def start(self, *words):
        """Start the shortest measurement."""
        return self._start(
            *("-m", "fastloop", "bench", "--quiet", "--json", "found.json"),
            *("--http", "app:app", "--connections", "2"),
            *("--seconds", "0.4", "--runs", "1", "--loops", ",".join(LOOPS)),
            *words,
            cwd=self.folder,
            env=child_env(),
        )

    def ends(self, child, status=0):
        """Wait for the end, check what is left; return what was said."""
        assert child.child.wait(PATIENCE) == status, child.log
        child.kill()
        assert self.processes() == []
        return child.log

    def processes(self):
        """Processes whose working folder is the test's."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.path.samefile(entry / "cwd", self.folder):
                    found.append((entry / "cmdline").read_text())
            except OSError:
                continue
        return found

    def refused(self):
        """Wait for a refusal; return its one sentence."""
        said = self.ends(self.start(), 2)
        said = said.rstrip().replace("\n", " ")
        assert said.startswith("fastloop: ")
        return said.removeprefix("fastloop: ")

    def wait_for_load(self):
        """Wait until a server is asked again and again."""
        seen, end = self.folder / "seen", time.monotonic() + PATIENCE
        while not seen.exists() or seen.stat().st_size < 1000:
            assert time.monotonic() < end, "there was no load"
            os.sched_yield()

    def found(self):
        """Return what --json kept."""
        return json.loads((self.folder / "found.json").read_text())["fastloop"]


@pytest.fixture
def bench(tmp_path):
    children = []

    def start(*words, **more):
        children.append(Process(sys.executable, *words, **more))
        return children[-1]

    yield Bench(tmp_path, start)
    for child in children:
        child.kill()


def check_figures(found):
    """Figures that no server has otherwise."""
    many = len(os.sched_getaffinity(0))
    for (run,) in found["runs"].values():
        assert run["rate"] > 1
        assert 0 < run["cpu"] * run["rate"] / 1e6 < many + 0.5
        assert 0 < run["p50"] <= run["p90"] <= run["p99"] < 2000
        assert 10 < run["memory"] < 1000  # MiB: an interpreter's


def loops_seen(bench):
    """Loops in the order that servers ran on them."""
    lines = (bench.folder / "seen").read_text().split()
    order = lines[:1]
    for before, name in zip(lines, lines[1:], strict=False):
        if name != before:
            order.append(name)
    return order


def importable(name):
    return importlib.util.find_spec(name) is not None


def test_a_server_runs_on_each_loop_and_is_measured(bench):
    bench.app()
    names = [name for name in ("uvloop", *LOOPS) if importable(name)]
    said = bench.ends(bench.start("--loops", ",".join(names)))
    assert loops_seen(bench) == [*names, *names]  # the share is on asyncio
    found = bench.found()
    assert found["notes"] == found["untaken"] == [] and found["cut"] is None
    assert found["settings"]["server"].startswith("uvicorn ")
    assert found["settings"]["http parser"]
    check_figures(found)
    # A busy machine may leave it too little time for a share.
    words = "of your program's CPU time was seen in asyncio's loop"
    assert (found["share"] is not None) == (words in " ".join(said.split()))
    assert found["share"] is None or 0 < found["share"] < 1


def test_a_server_that_answers_500_is_one_sentence(bench):
    bench.app(status=500)
    said = bench.refused()
    assert said.startswith("app:app answered 500 to GET / on fastloop")


def test_why_a_server_does_not_start_is_said(bench):
    bench.app(fails=True)
    said = bench.refused()
    assert said.startswith("the server on fastloop ended with status ")
    assert "the database is away" in said


def test_ctrl_c_leaves_no_process_of_a_server(bench):
    bench.app()
    child = bench.start("--seconds", "30")
    bench.wait_for_load()
    child.child.send_signal(signal.SIGINT)
    assert bench.ends(child, 130) == "fastloop: stopped\n"
