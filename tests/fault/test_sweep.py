"""Calls that the corpus's programs make fail, some of each call's place.

sweep.py does the work, in a process of its own.
"""

from pathlib import Path

import pytest

SWEEP = Path(__file__).with_name("sweep.py")


@pytest.mark.parametrize(
    "words",
    [
        "--most 1 --kinds system,memory,lasting",
        "--most 1 --kinds python",
        "--most 2 --harmless",
    ],
)
def test_programs_end_in_order_when_a_call_fails(run_program, words):
    """What is harmless, such as a short read, is not noticed."""
    assert run_program(SWEEP, *words.split()).endswith("\ntotal 0\n")
