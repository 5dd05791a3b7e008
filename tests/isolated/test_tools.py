"""Tools that watch a program: tracers, debuggers, profilers, dumpers."""

import subprocess
import sys
import sysconfig

import pytest
from isolated_scripts import FACTORIES, LIMIT, environment

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


def test_settrace_sees_every_line(script):
    done = script("""
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
""")
    assert done.stdout == "ok\n"


# A cProfile.Profile hears of every thread's calls, and before 3.15 it has no
# lock but the GIL: without one it loses its memory as soon as a second thread
# makes a call, with a ThreadPoolExecutor alone too (CPython's gh-116738).
LOCKED_PROFILE = ("-X", "gil=1")


def test_setprofile_and_cprofile(script):
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")
    done = script(
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
        *(LOCKED_PROFILE if free_threaded else ()),
    )
    assert done.stdout == "ok\n"


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="sys.monitoring is new in 3.12"
)
def test_monitoring(script):
    done = script("""
names = set()
monitoring = sys.monitoring
monitoring.use_tool_id(2, "test")
monitoring.register_callback(
    2, monitoring.events.PY_START, lambda code, at: names.add(code.co_name)
)
monitoring.set_events(2, monitoring.events.PY_START)
run()
monitoring.set_events(2, 0)
monitoring.free_tool_id(2)
assert {"main", "child", "callback", "in_a_thread"} <= names
print("ok")
""")
    assert done.stdout == "ok\n"


def test_coverage(script):
    pytest.importorskip("coverage", reason="coverage is not installed")
    program = script.write(
        BEFORE + "run()\nif not sys.argv:\n    never = 1\n", "covered.py"
    )
    done = script(f"""
import coverage
watch = coverage.Coverage(data_file=None, include=[{str(program)!r}])
watch.start()
import runpy
runpy.run_path({str(program)!r})
watch.stop()
_, lines, missing, _ = watch.analysis({str(program)!r})
text = open({str(program)!r}).read().splitlines()
print([text[number - 1].strip() for number in missing])
""")
    assert done.stdout == "['never = 1']\n"


def test_pdb_steps_through_a_coroutine(script):
    done = script(
        """
import pdb

async def main():
    before = 1
    pdb.Pdb(nosigint=True, readrc=False).set_trace()
    after = await asyncio.sleep(0.001, 5)
    return before + after

loop = new_loop()
print("result", loop.run_until_complete(main()))
loop.close()
""",
        stdin="p before\nnext\np before + 41\nw\ncontinue\n",
    )
    assert "42\n" in done.stdout
    assert "result 6\n" in done.stdout


def test_pdb_in_a_callback(script):
    done = script(
        """
import pdb

def callback():
    value = 17
    pdb.Pdb(nosigint=True, readrc=False).set_trace()
    loop.stop()

loop = new_loop()
loop.call_soon(callback)
loop.run_forever()
loop.close()
print("ended")
""",
        stdin="p value\nup\ncontinue\n",
    )
    assert "17\n" in done.stdout
    assert done.stdout.endswith("ended\n")


def test_quitting_the_debugger_leaves_the_loop(script):
    done = script(
        """
import bdb, pdb

def callback():
    pdb.Pdb(nosigint=True, readrc=False).set_trace()
    value = 1

seen = []
loop = new_loop()
loop.set_exception_handler(lambda lo, cx: seen.append(cx["exception"]))
loop.call_soon(callback)
loop.call_soon(loop.stop)
try:
    loop.run_forever()
except SystemExit:
    pass
loop.close()
print([type(exc) for exc in seen] in ([], [bdb.BdbQuit]))
""",
        stdin="quit\ny\n",
    )
    assert done.stdout.endswith("True\n")


def test_faulthandler_of_a_sleeping_loop(script):
    """The loop sleeps on: a dump of a thread that runs may be cut."""
    done = script(
        """
import faulthandler
loop = new_loop()
loop.call_soon(lambda: faulthandler.dump_traceback_later(0.05, exit=True))
loop.run_forever()
""",
        status=1,
        quiet=False,
    )
    assert "Timeout (0:00:00.05" in done.stderr
    assert "program.py" in done.stderr


def test_faulthandler_of_a_callback_by_signal(script):
    done = script(
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
        quiet=False,
    )
    assert "deep_in_a_callback" in done.stderr


def test_tracemalloc(script):
    done = script("""
import tracemalloc
tracemalloc.start(10)
run()
gc.collect()
before = tracemalloc.take_snapshot()
for _ in range(20):
    run()
gc.collect()
after = tracemalloc.take_snapshot()
tracemalloc.stop()
here = [tracemalloc.Filter(False, tracemalloc.__file__)]
after, before = after.filter_traces(here), before.filter_traces(here)
stats = after.compare_to(before, "filename")
grown = sum(stat.size_diff for stat in stats)
print("ok" if grown < 60_000 else stats[:5])
""")
    assert done.stdout == "ok\n"


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="3.11 finds no origin of such objects"
)
def test_tracemalloc_names_the_origin_of_a_resource_warning(script):
    done = script(
        """
import warnings

def make():
    return new_loop()

warnings.simplefilter("always")
loop = make()
del loop
gc.collect()
""",
        "-X",
        "tracemalloc=5",
        quiet=False,
    )
    assert "unclosed event loop" in done.stderr
    assert "Object allocated at" in done.stderr


def test_dev_mode_with_warnings_as_errors(script):
    script("run()\ngc.collect()\n", "-X", "dev", "-W", "error")


def test_optimized_and_isolated_interpreters(script):
    script("run()\n", "-OO")
    script("run()\n", "-X", "importtime", quiet=False)


ALLOCATORS = ["debug", "malloc", "pymalloc_debug"]
if sysconfig.get_config_var("Py_GIL_DISABLED"):
    ALLOCATORS = ["debug", "mimalloc", "mimalloc_debug"]
elif not sysconfig.get_config_var("WITH_PYMALLOC"):
    ALLOCATORS = ["debug", "malloc"]


@pytest.mark.parametrize("allocator", ALLOCATORS)
def test_allocators(script, allocator):
    script("run()\n", PYTHONMALLOC=allocator)


def test_an_audit_hook_may_send_a_datagram_of_its_own(script):
    script("""
class Log:
    to = None

    def __call__(self, event, args):
        if event == "socket.sendto" and self.to:
            to, self.to = self.to, None
            self.transport.sendto(b"log", to)

async def main():
    peers = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
    for peer in peers:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(100)
    log = Log()
    sys.addaudithook(log)
    loop = asyncio.get_running_loop()
    log.transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0)
    )
    log.to = peers[1].getsockname()
    log.transport.sendto(b"data", peers[0].getsockname())
    assert peers[1].recv(10) == b"log"
    assert peers[0].recv(10) == b"data"
    log.transport.close()
    for peer in peers:
        peer.close()

loop = new_loop()
loop.run_until_complete(main())
loop.close()
""")


def test_a_patch_of_submit_made_before_the_loop_is_imported(loop_kind):
    """A tracer is usually what a program imports first."""
    imports, factory = FACTORIES[loop_kind]
    program = f"""
import asyncio
from concurrent.futures import ThreadPoolExecutor
original = ThreadPoolExecutor.submit
def submit(self, fn, *args):
    print("seen", flush=True)
    return original(self, fn, *args)
ThreadPoolExecutor.submit = submit
{imports}
loop = {factory}()
loop.run_until_complete(loop.run_in_executor(None, print, "ran"))
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.stdout == "seen\nran\n"
