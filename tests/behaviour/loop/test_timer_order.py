"""The order of timers that callbacks set and make late by being busy."""

import time

import pytest


def burn(seconds):
    """Keep the thread busy for so long; return the time at the end."""
    end = now = time.monotonic()
    end += seconds
    while now < end:
        now = time.monotonic()
    return now


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
        burn(0.02)
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
