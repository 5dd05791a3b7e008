"""`bench --http` with real servers: their loops, figures and ends."""

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

for library in ("psutil", "pyperf"):
    pytest.importorskip(library, reason=f"{library} is not installed")

SERVERS = ("uvicorn", "hypercorn", "granian", "aiohttp")
LOOPS = ["fastloop", "asyncio"]
#: Each server has this in front, and calls seen() for each request.
NOTES = """
import asyncio, os
from multiprocessing import set_start_method
from aiohttp import web

def seen():
    name = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    with open("seen", "a") as file:
        file.write(name + "\\n")
"""
ASGI = """
started = {"type": "http.response.start", "headers": []}

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
AIOHTTP = """
async def answer(request):
    seen()
    return web.Response(text="ok", status=STATUS)

async def fail(app):
    if FAILS:
        raise RuntimeError("the database is away")

app = web.Application()
app.add_routes([web.get("/", answer)])
app.on_startup.append(fail)
"""


class Bench:
    """`bench --http app:app` in a folder of its own."""

    def __init__(self, folder: Path, start) -> None:
        self.folder = folder
        self._start = start

    def app(self, server, status=200, fails=False, before=""):
        """Write the application that a server serves."""
        pytest.importorskip(server, reason=f"{server} is not installed")
        text = AIOHTTP if server == "aiohttp" else ASGI
        text = text.replace("STATUS", str(status))
        text = NOTES + before + text.replace("FAILS", str(fails))
        (self.folder / "app.py").write_text(text)
        return server

    def start(self, server, *words, **env):
        """Start the shortest measurement of a server."""
        return self._start(
            *("-m", "fastloop", "bench", "--quiet", "--json", "found.json"),
            *("--http", "app:app", "--server", server, "--connections", "2"),
            *("--seconds", "0.4", "--runs", "1", "--loops", ",".join(LOOPS)),
            *words,
            cwd=self.folder,
            env=child_env(**env),
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

    def refused(self, server, *words, **env):
        """Wait for a refusal; return its one sentence."""
        said = self.ends(self.start(server, *words, **env), 2)
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


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_runs_on_each_loop_and_is_measured(bench, server):
    bench.app(server)
    names = [name for name in ("uvloop", *LOOPS) if importable(name)]
    words = ("--load", "own", "--loops", ",".join(names))
    said = bench.ends(bench.start(server, *words))
    assert loops_seen(bench) == [*names, *names]  # the share is on asyncio
    found = bench.found()
    assert found["notes"] == found["untaken"] == [] and found["cut"] is None
    assert found["settings"]["server"].startswith(f"{server} ")
    assert found["settings"]["http parser"]
    check_figures(found)
    if server == "granian":  # its process is not the one that is looked at
        assert found["share"] is None
        return
    # A busy machine may leave it too little time for a share.
    words = "of your program's CPU time was seen in asyncio's loop"
    assert (found["share"] is not None) == (words in " ".join(said.split()))
    assert found["share"] is None or 0 < found["share"] < 1


def importable(name):
    return importlib.util.find_spec(name) is not None


def test_processes_that_granian_spawns_run_on_each_loop(bench):
    """From Python 3.14 on it spawns them, before it forks."""
    bench.app("granian", before="set_start_method('spawn', force=True)\n")
    bench.ends(bench.start("granian", "--load", "own"))
    assert loops_seen(bench) == [*LOOPS, *LOOPS]
    check_figures(bench.found())


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_answers_500_is_one_sentence(bench, server):
    bench.app(server, status=500)
    said = bench.refused(server, "--load", "own")
    assert said.startswith("app:app answered 500 to GET / on fastloop")


@pytest.mark.parametrize("server", SERVERS)
def test_why_a_server_does_not_start_is_said(bench, server):
    bench.app(server, fails=True)
    said = bench.refused(server, "--load", "own")
    assert said.startswith("the server on fastloop ended with status ")
    assert "the database is away" in said


@pytest.mark.parametrize("server", SERVERS)
def test_an_application_of_another_kind_is_one_sentence(bench, server):
    bench.app("uvicorn" if server == "aiohttp" else "aiohttp")
    pytest.importorskip(server, reason=f"{server} is not installed")
    said = bench.refused(server)
    which = "no" if server == "aiohttp" else "an"
    assert said.endswith(f": app:app is {which} aiohttp.web.Application")


@pytest.mark.parametrize("server", SERVERS)
def test_ctrl_c_leaves_no_process_of_a_server(bench, server):
    bench.app(server)
    words = ("--load", "own", "--seconds", "30")
    child = bench.start(server, *words)
    bench.wait_for_load()
    child.child.send_signal(signal.SIGINT)
    assert bench.ends(child, 130) == "fastloop: stopped\n"
