"""TLS connections that are called from within their own calls.

Protocols, transports below and classes in place of ssl.SSLObject write, bring
records or end in the midst of any call: fuzz/fuzz_tls.py has what they do and
what may not happen.  Here are the inputs of its corpus, and random inputs.
"""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent.parent / "fuzz"
CORPUS = (FUZZ / "corpus" / "tls.txt").read_text().split()
BLOCKS, PROGRAMS = 4, 100
#: How often a step is: what spoils a record or ends a connection is rare, else
#: most programs end at once; writes are often.
WEIGHTS = [
    {4: 20, 5: 20, 7: 1, 8: 1, 9: 1}.get(byte >> 1 & 15, 8)
    for byte in range(256)
]


@pytest.fixture(scope="module")
def run_input():
    """Return what runs an input."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FUZZ)
        fuzz, harness = map(importlib.import_module, ("fuzz_tls", "harness"))
    loops = fuzz.loops()
    run = fuzz.runner(loops)
    yield lambda data: run(harness.Tape(data))
    for loop in loops:
        loop.close()


def test_inputs_of_the_corpus_find_nothing(run_input):
    for line in CORPUS:
        run_input(bytes.fromhex(line))


@pytest.mark.parametrize("block", range(BLOCKS))
def test_inputs_by_chance_find_nothing(run_input, block):
    for seed in range(block * PROGRAMS, (block + 1) * PROGRAMS):
        chance = random.Random(seed)
        data = bytearray(chance.choices(range(256), WEIGHTS, k=400))
        # The contexts; two of three programs have methods that call back.
        data[1] = chance.choice([0, 24, 28]) + chance.randrange(4)
        try:
            run_input(data)
        except BaseException as exc:
            exc.add_note(f"seed {seed}")
            raise
