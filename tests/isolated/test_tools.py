"""Tools that watch a program: tracers, debuggers, profilers, dumpers."""

import re
import sys
import sysconfig

import pytest

BEFORE = """
async def child(number):
    await asyncio.sleep(0.0005)
    marked = number * 2
    return marked

def callback(future):
    future.set_result(5)

def in_a_thread(number):
    squared = number * number
    return squared

async def main():
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    loop.call_soon(callback, future)
    later = loop.create_future()
    loop.call_later(0.001, callback, later)
    assert await future == 5
    assert await later == 5
    assert await asyncio.gather(*map(child, range(3))) == [0, 2, 4]
    assert await asyncio.to_thread(in_a_thread, 3) == 9

def run():
    loop = new_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
"""


# A cProfile.Profile hears of every thread's calls, and before 3.15 it has no
# lock but the GIL: without one it loses its memory as soon as a second thread
# makes a call, with a ThreadPoolExecutor alone too (CPython's gh-116738).
FREE_THREADED = sysconfig.get_config_var("Py_GIL_DISABLED")
LOCKED_PROFILE = ("-X", "gil=1") if FREE_THREADED else ()
since_312 = pytest.mark.skipif(
    sys.version_info < (3, 12),
    reason="such objects have no origin",
)
#: What to run, the interpreter's options, its input, what it writes.
TOOLS = {
    "settrace": (
        """
seen = set()
def trace(frame, event, arg):
    if frame.f_code.co_filename == __file__:
        seen.add((frame.f_code.co_name, event))
    return trace

sys.settrace(trace)
threading.settrace(trace)
run()
sys.settrace(None)
threading.settrace(None)
for name in ("main", "child", "callback", "in_a_thread"):
    for event in ("call", "line", "return"):
        assert (name, event) in seen, (name, event)
print("ok")
""",
        (),
        None,
        "^ok\n$",
    ),
    "cProfile": (
        """
import cProfile, pstats, io
profile = cProfile.Profile()
profile.runcall(run)
text = io.StringIO()
pstats.Stats(profile, stream=text).print_stats()
for name in ("child", "callback"):
    assert f"({name})" in text.getvalue(), name
print("ok")
""",
        LOCKED_PROFILE,
        None,
        "^ok\n$",
    ),
    "pdb in a coroutine": (
        """
import pdb
stop = pdb.Pdb(nosigint=True, readrc=False).set_trace

async def main():
    before = 1
    stop()
    after = await asyncio.sleep(0.001, 5)
    return before + after

loop = new_loop()
print("result", loop.run_until_complete(main()))
loop.close()
""",
        (),
        "p before\nnext\np before + 41\nw\ncontinue\n",
        "(?s)42\n.*result 6\n",
    ),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_sees_the_program(script, tool):
    code, flags, stdin, says = TOOLS[tool]
    assert re.search(says, script(code, *flags, stdin=stdin).stdout)


#: What is written to stderr.
REPORTS = {
    # The loop sleeps on: a dump of a thread that runs may be cut.
    "faulthandler of a loop that sleeps": (
        """
import faulthandler
loop = new_loop()
loop.call_soon(lambda: faulthandler.dump_traceback_later(0.05, exit=True))
loop.run_forever()
""",
        (),
        1,
        "(?s)Timeout \\(0:00:00.05.*program.py",
    ),
    "faulthandler of a callback": (
        """
import faulthandler
faulthandler.register(signal.SIGUSR1)

def deep_in_a_callback():
    os.kill(os.getpid(), signal.SIGUSR1)
    loop.stop()

loop = new_loop()
loop.call_soon(deep_in_a_callback)
loop.run_forever()
loop.close()
""",
        (),
        0,
        "deep_in_a_callback",
    ),
    "the origin of an unclosed loop": (
        """
import warnings

def make():
    return new_loop()

warnings.simplefilter("always")
loop = make()
del loop
gc.collect()
""",
        ("-X", "tracemalloc=5"),
        0,
        "(?s)unclosed event loop.*Object allocated at",
    ),
}
MARKS = {"the origin of an unclosed loop": [since_312]}


@pytest.mark.parametrize(
    "tool",
    [pytest.param(tool, marks=MARKS.get(tool, ())) for tool in REPORTS],
)
def test_a_tool_reports(script, tool):
    code, flags, status, says = REPORTS[tool]
    done = script(code, *flags, status=status, quiet=False)
    assert re.search(says, done.stderr)


def test_the_debug_allocator(script):
    script("run()\n", PYTHONMALLOC="debug")
