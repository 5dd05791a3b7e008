"""Polls and clocks that are late: slow_system.py runs under shim.c."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("slow_system.py")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the shim is made for Linux"
)


@pytest.fixture
def total(shim, shim_env):
    """Return a function that runs the program and returns its total."""

    def total(*words):
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", PROGRAM, shim, *words],
            env=shim_env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-500:]
        word, number = done.stdout.split()
        assert word == "total"
        return int(number)

    return total


@pytest.mark.parametrize("microseconds", ["2000", "6000"])
def test_away_between_the_timer_and_the_poll(total, microseconds):
    """libuv 1.44 runs due timers first, and would then wait for ever."""
    assert total("delay", microseconds) == 3


def test_a_wake_up_in_the_first_wait_of_a_loop_ends_it(total):
    """Nothing that the loop prepares for its waits may take the wake-up."""
    assert total("wake", "2000") == 10


def test_slow_polls_are_left_out_as_others(total):
    """A sandbox or a tracer makes a system call long."""
    # Of 1,000: 40, and more where the loop is slow itself, as under a
    # sanitizer on a busy machine, or is preempted for long.
    quick = max(total("slow", "0") for _ in range(3))
    assert min(total("slow", "100") for _ in range(3)) < 300 + quick


@pytest.mark.parametrize("milliseconds", ["4", "50"])
def test_ticks_that_come_late(total, milliseconds):
    """A virtual machine that waits for its processor misses ticks.  A sleep
    below a millisecond is a poll(), which is not counted, then a poll of the
    set, and at most one more for the tick.
    """
    assert total("coarse", milliseconds) in (1, 2)
