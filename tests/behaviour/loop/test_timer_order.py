"""The order of timers that callbacks set and make late by being busy."""

import math
import random
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


class Times:
    """Timers that set further ones and are busy, by a seed."""

    def __init__(self, loop, seed):
        self.loop = loop
        self.random = random.Random(seed)
        self.left = 60
        self.waiting = 0
        self.runs = []  # of each iteration: (least, most, when) of a timer
        self.begin = time.monotonic()

    def set_one(self):
        """Set a timer; note between which moments it is due."""
        kind = self.random.choice(["at", "gone by", "zero", "later"])
        delay = self.random.choice([0.0001, 0.0003, 0.001, 0.002, 0.005])
        due = []
        least = time.monotonic()
        if kind in ("zero", "later"):
            if kind == "zero":
                delay = 0
            timer = self.loop.call_later(delay, self.came, due)
            due += [least + delay, time.monotonic() + delay]
        else:
            when = self.begin - 1 if kind == "gone by" else least + delay
            timer = self.loop.call_at(when, self.came, due)
            due += [when, when]
        due.append(timer.when())
        self.waiting += 1

    def next_iteration(self):
        self.runs.append([])
        if self.waiting:
            self.loop.call_soon(self.next_iteration)
        else:
            self.loop.stop()

    def came(self, due):
        self.waiting -= 1
        self.runs[-1].append(due)
        for _ in range(self.random.choice([0, 1, 1, 2, 4])):
            if self.left:
                self.left -= 1
                self.set_one()
                if self.random.random() < 0.3:
                    burn(self.random.choice([0.0001, 0.0005, 0.002, 0.006]))

    def run(self):
        for _ in range(5):
            self.set_one()
        self.loop.call_soon(self.next_iteration)
        self.loop.run_forever()
        return [run for run in self.runs if run]


@pytest.mark.parametrize("seed", range(25))
def test_timers_of_an_iteration_run_in_the_order_of_their_deadlines(
    loop, seed
):
    runs = Times(loop, seed).run()
    assert sum(map(len, runs)) == 65
    resolution = time.get_clock_info("monotonic").resolution
    for run in runs:
        whens = [when for _, _, when in run]
        assert whens == sorted(whens)
        for at, (_, most, _) in enumerate(run):
            for least, _, _ in run[:at]:
                assert least <= most + resolution


def test_a_time_read_before_is_before_no_delay_whichever_is_set_first(loop):
    seen = []

    def arm():
        now = loop.time()
        loop.call_later(0, seen.append, "no delay")
        loop.call_at(now, seen.append, "time")
        loop.call_later(0.01, loop.stop)

    for _ in range(3):
        loop.call_later(0, arm)
        loop.run_forever()
    assert seen == ["time", "no delay"] * 3


def test_timers_of_the_past_run_in_the_order_of_their_deadlines(loop):
    seen = []
    for when in (-1.0, -2.0, float("-inf"), -1e12, 0.0, -0.0):
        loop.call_at(when, seen.append, when)
    loop.call_at(0.5, loop.stop)
    loop.run_forever()
    assert seen == [float("-inf"), -1e12, -2.0, -1.0, 0.0, -0.0]


def test_deadlines_within_a_nanosecond_keep_their_order(loop):
    seen = []
    when = loop.time() + 0.01
    following = [when]
    for _ in range(4):
        following.append(math.nextafter(following[-1], math.inf))
    for at in (3, 1, 4, 0, 2):
        loop.call_at(following[at], seen.append, at)
    loop.call_at(when + 0.01, loop.stop)
    loop.run_forever()
    assert seen == [0, 1, 2, 3, 4]
