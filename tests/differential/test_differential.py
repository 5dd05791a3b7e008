"""Generated programs do the same on asyncio's loop and on fastloop.

A failure prints the difference and a small program that shows it, to be pasted
into test_found.py beside this file.  What may differ is written down in
allowed.toml.

FASTLOOP_DIFFERENTIAL       how many programs; 100 by default
FASTLOOP_DIFFERENTIAL_FROM  the first batch's number, to see other programs
FASTLOOP_DIFFERENTIAL_LOG   a file that gets a line for each batch, its world,
                            its number and the counts of ``Tally``, and what
                            differed, but not again and again
"""

from __future__ import annotations

import os
from dataclasses import astuple, fields

import pytest
from diff_compare import RARE, TALLY, Differs, Program, check, forget
from diff_programs import loop_program
from diff_tape import TAPE_BYTES, Tape
from diff_traffic import other_program, stream_program
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

PROGRAMS = int(os.environ.get("FASTLOOP_DIFFERENTIAL", "100"))
FROM = int(os.environ.get("FASTLOOP_DIFFERENTIAL_FROM", "0"))
LOG = os.environ.get("FASTLOOP_DIFFERENTIAL_LOG")
#: Programs of a test: so many take well under the time a test may take.
BATCH = 100 if PROGRAMS >= 1000 else 20
WORLDS = {
    "loop": loop_program,
    "stream": stream_program,
    "other": other_program,
}
#: Of five batches, two are of callbacks and two of connections.
TURNS = ("loop", "stream", "other", "loop", "stream")

pytestmark = pytest.mark.no_refcount


def batches() -> list[tuple[str, int]]:
    """Return the world and the seed of each test."""
    numbers = range(FROM, FROM + max(1, PROGRAMS // BATCH))
    return [(TURNS[n % len(TURNS)], n) for n in numbers]


@pytest.mark.parametrize(("world", "batch"), batches())
def test_same_trace(
    world: str, batch: int, request: pytest.FixtureRequest
) -> None:
    tapes = st.binary(min_size=TAPE_BYTES, max_size=TAPE_BYTES)
    differences = []

    def read(tape: bytes) -> Program:
        return WORLDS[world](Tape(tape))

    @seed(batch)
    @settings(
        max_examples=BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(tapes.map(read))
    def run(program: Program) -> None:
        # Hypothesis would run it again, and call it flaky if it then passes.
        try:
            check(program)
        except Differs as exc:
            differences.append(str(exc))

    before = astuple(TALLY)
    RARE.clear()
    try:
        run()
    finally:
        forget()
    counts = [
        new - old for new, old in zip(astuple(TALLY), before, strict=True)
    ]
    names = [field.name for field in fields(TALLY)]
    # For conftest.py to print.
    request.node.user_properties += [
        ("programs", dict(zip(names, counts, strict=True))),
        ("rare", list(RARE)),
    ]
    if LOG:
        with open(LOG, "a") as file:
            print(world, batch, *counts, *RARE, file=file, sep=" ")
    assert not differences, "\n\n".join(differences)
    assert TALLY.same > before[0], (
        "no run of any of these programs was in time"
    )
