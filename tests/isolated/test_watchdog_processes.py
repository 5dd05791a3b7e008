"""The watchdog in a process of its own: its end, and forks."""

import pytest
from builds import FREE_THREADED
from isolated_scripts import FORKED

needs_gil = pytest.mark.skipif(
    FREE_THREADED, reason="there is no watchdog without a GIL"
)

BEFORE = (
    FORKED
    + """
import logging

came = threading.Event()

class Log(logging.Handler):
    def emit(self, record):
        if "has blocked the loop" in record.getMessage():
            came.set()

logging.getLogger("asyncio").addHandler(Log())

def names():
    return [thread.name for thread in threading.enumerate()]

def watchdogs():
    return names().count("fastloop-watchdog")

def block(loop):
    '''Block until the watchdog has reported it.'''
    came.clear()
    loop.call_soon(lambda: came.wait(60) and loop.stop())
    loop.run_forever()
    assert came.is_set()
"""
)
#: It is a warning to fork with threads, and to forget a loop.
FLAGS = ("-W", "ignore::DeprecationWarning", "-W", "ignore::ResourceWarning")


@needs_gil
def test_a_forked_child_has_none_until_it_starts_one(fast_script):
    fast_script("""
loop = new_loop()
loop.enable_metrics(watchdog_s=0.02)
block(loop)
timed = len(gc.callbacks)

def run():
    assert watchdogs() == 0 and len(gc.callbacks) == timed - 1
    loop.call_soon(time.sleep, 0.2)     # nobody reports it
    loop.call_soon(loop.stop)
    before = loop.metrics().blocked_callbacks
    loop.run_forever()
    assert loop.metrics().blocked_callbacks == before
    loop.enable_metrics(watchdog_s=0.02)
    assert watchdogs() == 1 and len(gc.callbacks) == timed
    block(loop)
    loop.close()
    assert watchdogs() == 0

assert child(run) == 0
block(loop)
loop.close()
assert watchdogs() == 0
""")


@needs_gil
@pytest.mark.parametrize("end", ["", "sys.exit()", "loop.close()"])
def test_it_keeps_no_process_alive(fast_script, end):
    fast_script(f"""
loop = new_loop()
loop.enable_metrics(watchdog_s=3600)
other = new_loop()
other.enable_metrics(watchdog_s=0.02)
block(other)
assert watchdogs() == 2
{end}
""")


@pytest.mark.skipif(
    not FREE_THREADED, reason="this Python cannot run without a GIL"
)
def test_it_is_refused_without_a_gil(fast_script):
    done = fast_script("""
loop = new_loop()
try:
    loop.enable_metrics(watchdog_s=1)
except RuntimeError as exc:
    print(exc)
print(watchdogs())
loop.close()
""")
    assert done.stdout.startswith("there is no watchdog without a GIL: ")
    assert done.stdout.endswith("\n0\n")
