"""Each call of whole scenarios fails once, of those that a seed draws.

sweep.py does the work, in a process of its own.  Without `--most` it goes
through all of them: `python tests/fault/sweep.py`, a minute or several.
"""

from pathlib import Path

import pytest
from builds import FREE_THREADED

SWEEP = Path(__file__).with_name("sweep.py")
#: Of each scenario, which has some hundreds.
MOST = 12


@pytest.fixture
def sweep(run_program):
    """Return a function that sweeps, and fails with what was found."""

    def sweep(*words):
        assert run_program(SWEEP, *words).endswith("\ntotal 0\n")

    return sweep


def test_a_scenario_ends_and_its_loop_works_after_each_failure(sweep):
    sweep("--most", str(MOST))


def test_short_reads_and_writes_are_not_noticed(sweep):
    sweep("--kinds", "cut")


def test_interrupted_and_blocking_calls_are_not_noticed(sweep):
    """It would block, a signal interrupted it, and the like."""
    names = ("http", "protocol_echo", "buffered_echo", "tls_echo")
    sweep("--kinds", "system", "--harmless", *names, "datagrams", "shutdown")


@pytest.mark.parametrize(
    ("function", "scenarios"),
    [
        # It is raised, or closes the transport.
        ("epoll_ctl", ["protocol_echo", "shutdown"]),
        # Neither end of a connection was sent what waited in a MemoryBIO.
        ("PyObject_GetAttr", ["tls_object_echo"]),
        # The thread kept a loop's hooks, and they the loop.
        ("PyObject_Call", ["signals"]),
        # OpenSSL 3.6 made an OSError of it, which asyncio does not report.
        pytest.param(
            "PyMem_RawRealloc",
            ["tls_echo"],
            marks=pytest.mark.skipif(
                FREE_THREADED, reason="without a GIL SSLObject does the TLS"
            ),
        ),
    ],
)
def test_each_call_of_a_function_fails(sweep, function, scenarios):
    sweep("--kinds", "system,python", "--functions", function, *scenarios)
