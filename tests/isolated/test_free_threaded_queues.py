"""Other threads call a loop that no thread runs, or begins to run.

asyncio's heap of timers is not made for other threads.
"""

import pytest
from isolated_scripts import IN_THREADS

BEFORE = IN_THREADS


DRIVERS = {
    "before the first run": "in_threads(2, calls)",
    "between short runs": """
in_threads(3, lambda number: calls(number) if number < 2 else drive(
    lambda: loop.run_until_complete(asyncio.sleep(0))
))""",
    "in iterations outside a run": """
def iterate():
    loop.call_soon(int)  # or it waits
    loop._run_once()
in_threads(3, lambda number: calls(number) if number < 2 else drive(iterate))
""",
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_calls_while_no_thread_runs_the_loop(fast_script, driver):
    """Any thread may begin a run meanwhile."""
    fast_script(
        """
loop = new_loop()
ran = [[], []]
timed = [[], []]
calling = [0, 1]

def calls(number):
    for n in range(1000):
        loop.call_soon(ran[number].append, n)
        timer = loop.call_later(0, timed[number].append, n)
        if n % 2:
            timer.cancel()
        loop._add_callback(asyncio.Handle(int, (), loop))
    calling.remove(number)

def drive(step):
    while calling:
        step()
"""
        + DRIVERS[driver]
        + """
loop.run_until_complete(asyncio.sleep(0.001))
assert not loop._scheduled
loop.close()
for number in range(2):
    assert ran[number] == list(range(1000))
    assert len(timed[number]) == len(set(timed[number]))
    assert set(timed[number]) >= set(range(0, 1000, 2))
"""
    )
