"""The loop's share of the CPU time, which `bench` reports, is right."""

from __future__ import annotations

import json
from ast import literal_eval
from pathlib import Path

import pytest
from cli_helpers import Commands
from sampled_programs import PROGRAMS, program

WORKER = "from fastloop.cli.worker import main; main()"
CERTS = Path(__file__).parents[2] / "certs"
#: CPU seconds of a program: 150 looks, so the chance error is about 0.04.
SECONDS = 0.6
#: On a busy machine the truth is as uncertain; without the rules for safe
#: points the error is up to 0.9.
TOLERANCE = 0.3


def sampled(command: Commands, text: str) -> dict[str, float]:
    """Run a program under the sampler; return what that reports."""
    command.write("prog.py", text)
    words = ("asyncio", "sample", "report.json", "prog.py")
    done = command.python("-c", WORKER, *words)
    assert done.returncode == 0, done.stderr
    return literal_eval((command.folder / "report.json").read_text())


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_loops_share_is_that_of_the_program(fastloop_command, name):
    text = program(name, SECONDS, str(CERTS))
    found = sampled(fastloop_command, text)
    truth = json.loads((fastloop_command.folder / "truth.json").read_text())
    assert found["looks"] > 10
    assert found["loop"] / found["total"] == pytest.approx(
        truth, abs=TOLERANCE
    )


def test_no_loop_has_no_share(fastloop_command):
    found = sampled(fastloop_command, "sum(range(10_000_000))")
    assert (found["looks"], found["loop"], found["total"]) == (0, 0, 0)
