"""The race: a row's place is its interval's."""

import json

import pytest

from fastloop.cli.compare import compare

from .conftest import asked

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
