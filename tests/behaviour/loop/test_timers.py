"""call_later and call_at: when timers fire, in what order."""

import contextlib
import datetime
import decimal
import fractions
import math
import random
import sys

import pytest
from loop_helpers import nothing, spend


@pytest.mark.parametrize(
    "delay", [math.inf, 1e300, 1e18, 2.0**63, 10**30, 1e10, 3600 * 24 * 365]
)
def test_far_timers_let_near_ones_run(loop, iterate, delay):
    handle = loop.call_later(delay, nothing)
    assert handle.when() >= delay
    iterate(2)
    seen = []
    loop.call_later(0.002, lambda: (seen.append(1), loop.stop()))
    loop.run_forever()
    assert seen == [1]
    handle.cancel()


BAD = {
    **dict.fromkeys(["1", b"1", (), None, datetime.timedelta(1)], TypeError),
    10**400: OverflowError,
}


@pytest.mark.parametrize(("bad", "error"), BAD.items(), ids=map(type, BAD))
def test_other_types_are_refused(loop, loop_kind, bad, error):
    """asyncio looks at a moment when it runs."""
    with pytest.raises(error):
        loop.call_later(bad, nothing)
    if loop_kind == "fastloop":
        with pytest.raises(error):
            loop.call_at(bad, nothing)


@pytest.mark.parametrize("nan", [math.nan, type("F", (float,), {})("nan")])
@pytest.mark.parametrize("way", ["call_later", "call_at"])
def test_nan_is_refused(loop_factory, loop_kind, way, nan):
    """At once by fastloop; from 3.13 on asyncio's loop does not run then."""
    if loop_kind == "asyncio" and sys.version_info < (3, 13):
        pytest.skip("asyncio takes it for now")
    loop = loop_factory()
    with contextlib.closing(loop), pytest.raises(ValueError, match="NaN"):
        getattr(loop, way)(nan, loop.stop)
        loop.run_forever()


NUMBERS = [5, 2.5, True, fractions.Fraction(7, 2), decimal.Decimal("0.5")]


@pytest.mark.parametrize("number", NUMBERS, ids=map(type, NUMBERS))
def test_when_returns_the_time_passed_to_call_at(loop, number):
    timer = loop.call_at(number, nothing)
    assert timer.when() == timer._when == number
    timer.cancel()
    assert timer.when() == number


@pytest.mark.parametrize(
    ("chain", "links_before"), [("call_soon", 2), ("call_later", 1)]
)
def test_slow_callbacks_make_a_timer_late_by_one_of_them(
    loop, chain, links_before
):
    """However many iterations are due at once, each looks at the timers."""
    links, came = [], []
    schedule = {
        "call_soon": loop.call_soon,
        "call_later": lambda callback: loop.call_later(0, callback),
    }[chain]

    def slow():
        links.append(slow)
        if len(links) == 1:
            loop.call_later(0.01, lambda: came.append(len(links)))
        spend(0.02)
        if len(links) < 20:
            schedule(slow)
        else:
            loop.stop()

    schedule(slow)
    loop.run_forever()
    assert came == [links_before]


def test_timers_of_the_past_run_in_the_order_of_their_deadlines(loop):
    seen = []
    for when in (-1.0, -2.0, float("-inf"), -1e12, 0.0, -0.0):
        loop.call_at(when, seen.append, when)
    loop.call_at(0.5, loop.stop)
    loop.run_forever()
    assert seen == [float("-inf"), -1e12, -2.0, -1.0, 0.0, -0.0]


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
@pytest.mark.parametrize(("seed", "count"), [(1, 200), (2, 200), (3, 40_000)])
def test_timers_run_in_the_order_of_a_sorted_list(loop, iterate, seed, count):
    """Those of one deadline as they came, which asyncio does not promise."""
    chance, handles, due, ran = random.Random(seed), {}, [], []
    for number in range(5 * count):
        delay = chance.choice([0, 10, 10, chance.random()])
        when = delay + chance.choice([-1e6, 1e6])
        handles[number] = loop.call_at(when, ran.append, number)
        due.append((when, number))
        if chance.random() < 0.5:
            which = chance.choice(range(max(0, number - 99), number + 1))
            handles[which].cancel()
        if number % count == 0:
            due = [one for one in due if not handles[one[1]].cancelled()]
            iterate()
            assert ran == [number for when, number in sorted(due) if when < 0]
            due = [one for one in due if one[0] > 0]
            ran.clear()
    for handle in handles.values():
        handle.cancel()
    assert not loop._scheduled


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
def test_due_timers_need_few_polls(loop):
    """A timer without delay is ready, as a callback is.

    A loop that another process delays polls more often: one of several runs
    is not delayed.
    """
    loop.enable_metrics()

    def polls_of_1000():
        before, left = loop.metrics().polls, 1000

        def tick():
            nonlocal left
            left -= 1
            if left:
                loop.call_later(0, tick)
            else:
                loop.stop()

        tick()
        loop.run_forever()
        return loop.metrics().polls - before

    assert any(polls_of_1000() < 600 for _ in range(10))
