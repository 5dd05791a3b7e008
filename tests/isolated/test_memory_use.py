"""How much memory a loop keeps after it had much to do."""

import sysconfig

import pytest

NO_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


@pytest.mark.skipif(
    NO_GIL, reason="each callback has a handle, whose memory is CPython's"
)
def test_a_burst_gives_its_memory_back(fast_script):
    fast_script(
        """
import resource

def nothing():
    pass

def turn(loop):
    loop.call_soon(loop.stop)
    loop.run_forever()

def size():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

loop = new_loop()
turn(loop)
before = size()
for _ in range(1_000_000):
    loop.call_soon(nothing)
assert size() - before > 50_000_000, size() - before
turn(loop)
assert size() - before < 15_000_000, size() - before
loop.close()
"""
    )
