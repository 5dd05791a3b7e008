"""fastloop.cli.compare: when two series of figures differ."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from fastloop.cli.compare import (
    compare,
    figure,
    of_ratios,
    t_quantile,
)
from fastloop.cli.result import Result


@pytest.mark.parametrize(
    ("outside", "freedom", "expected"),
    [
        (0.05, 1, 12.71),
        (0.05, 7, 2.365),
        (0.001, 7, 5.408),
        (0.001, 19, 3.883),
    ],
)
def test_quantiles_are_those_of_the_tables(outside, freedom, expected):
    assert t_quantile(outside, freedom) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("better", "ratio"), [("more", 2.0), ("less", 0.5)])
def test_a_ratio_says_how_many_times_as_good(better, ratio):
    found = compare([2.0, 4.0, 6.0, 8.0], [1.0, 2.0, 3.0, 4.0], better)
    assert found.ratio == pytest.approx(ratio)
    assert found.sure
    assert found.low_95 <= found.ratio <= found.high_95


@pytest.mark.parametrize("figures", [([1.0], [2.0]), ([0.0] * 9, [1.0] * 9)])
def test_too_few_figures_are_not_compared(figures):
    assert compare(*figures, "more") is None


@pytest.mark.parametrize("rounds", [8, 20])
def test_chance_is_taken_for_a_difference_seldom(rounds):
    """40 races of a loop against itself, with 10 % of noise."""
    chance = random.Random(5)

    def figures():
        return [chance.lognormvariate(0, 0.1) for _ in range(rounds)]

    reported = sum(
        compare(figures(), figures(), "less").sure for _ in range(40)
    )
    assert reported <= 1


#: Rounds whose 95 % interval excludes 1 and whose 99.9 % interval does not.
DOUBTED = [1.2, 1.45, 1.0, 1.3, 1.1, 1.35, 1.15, 1.1]


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([1.5] * 8, "own did 1.50 times base (99.9 % interval 1.50 to 1.50)"),
        (DOUBTED, "none (1.20 times, 99.9 % interval 0.95 to 1.52)"),
        (
            [1.005, 1.006] * 4,
            "99.9 % interval 1.00 to 1.01; the difference is below 1 %)",
        ),
        ([1e-9, 1e9], "99.9 % interval 0.00 to over 1000)"),
        ([0.5, 2.0] * 4, "none (1.00 times, 99.9 % interval 0.24 to 4.12)"),
    ],
)
def test_a_verdict_has_the_interval_that_it_is_judged_by(ratios, words):
    said = of_ratios(ratios).verdict("own", "did {}", "base")
    assert words in said.replace("no significant difference", "none")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0.00"),
        (0.001234, "0.00123"),
        (-0.25, "-0.250"),
        (1.234, "1.23"),
        (56.78, "56.8"),
        (12_345.6, "12,346"),
    ],
)
def test_a_figure_has_three_digits_that_matter(value, text):
    assert figure(value) == text


def result(own, base, key="time"):
    """Return a result of runs that have these figures, if not None."""
    metric = (key, key, "s", "less")
    race = SimpleNamespace(kind="program", title="", metrics=[metric])
    found = Result(race, ["asyncio", "fastloop"])
    for loop, values in (("asyncio", base), ("fastloop", own)):
        found.runs[loop] += [
            {} if value is None else {key: value} for value in values
        ]
    return found


def test_only_rounds_with_both_figures_are_compared():
    found = result([None, 2.0, 4.0, 8.0], [1.0, 2.0, 4.0, 8.0])
    compared = found.compared_with("asyncio", found.metrics[0])
    assert (compared.ratio, compared.low_95, compared.high_95) == (1, 1, 1)
    assert (compared.low_999, compared.high_999) == (1, 1)
