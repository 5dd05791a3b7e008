"""FASTLOOP_DISABLE=loop: every way to fastloop leads to asyncio's own loop."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker
from patience import PATIENCE

PAGE = Path(__file__).parents[3] / "docs" / "elsewhere.md"
SHOW = """
import asyncio

async def show():
    print(type(asyncio.get_running_loop()).__module__)
    return "done"
"""
WAYS = {
    "run": "import fastloop; assert fastloop.run(show()) == 'done'",
    "metrics": "import fastloop; fastloop.run(show(), metrics=True)",
    "factory": """
import fastloop
with asyncio.Runner(loop_factory=fastloop.new_event_loop) as runner:
    runner.run(show())
""",
    "install": "import fastloop; fastloop.install(); asyncio.run(show())",
    "command": "asyncio.run(show())",
}


@pytest.mark.parametrize("names", ["loop", "cork, loop"])
@pytest.mark.parametrize("way", WAYS)
def test_a_program_gets_asyncios_loop(way, names):
    command = ["-m", "fastloop", "run"] if way == "command" else []
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command, "-c", SHOW + WAYS[way]],
        env=os.environ | {"FASTLOOP_DISABLE": names},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout == "asyncio.unix_events\n", done.stderr
    said = "fastloop: FASTLOOP_DISABLE=loop: this is asyncio's own loop\n"
    assert done.stderr == said * (way == "command")


@pytest.mark.parametrize(
    ("platform", "implementation", "chosen"),
    [
        ("linux", "CPython", "asyncio-fastloop"),
        ("darwin", "CPython", "asyncio-fastloop"),
        ("win32", "CPython", "winloop"),
        ("linux", "PyPy", None),
        ("win32", "PyPy", None),
    ],
)
def test_the_marker_lines_choose_what_runs_there(
    platform, implementation, chosen
):
    lines = [
        line.split("; ")
        for line in PAGE.read_text("utf-8").splitlines()
        if "platform_python_implementation ==" in line
    ]
    assert len(lines) == 2
    there = {
        "sys_platform": platform,
        "platform_python_implementation": implementation,
    }
    found = [name for name, mark in lines if Marker(mark).evaluate(there)]
    assert found == ([chosen] if chosen else [])
