"""Loops in interpreters that have a GIL of their own, beside the main one."""

import sys

import pytest
from builds import FREE_THREADED
from isolated_scripts import IN_THREADS
from test_exit import OPEN, SAY

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 13),
    reason="before 3.12 all share one GIL, and 3.12 itself ends badly",
)

#: How a version makes an isolated interpreter and runs code in it.
BEFORE = (
    IN_THREADS
    + """
if sys.version_info >= (3, 14):
    from concurrent import interpreters
    create = interpreters.create
    def run(interpreter, code):
        interpreter.exec(code)
    def destroy(interpreter):
        interpreter.close()
else:
    import _interpreters
    create = lambda: _interpreters.create("isolated")
    destroy = _interpreters.destroy
    def run(interpreter, code):
        failed = _interpreters.run_string(interpreter, code)
        assert failed is None, failed

def descriptors():
    return len(os.listdir("/dev/fd"))
"""
)

ECHOES = """
async def serve(reader, writer):
    while data := await reader.read(1000):
        writer.write(data)
    writer.close()

async def client(address):
    reader, writer = await asyncio.open_connection(*address)
    for number in range(500):
        writer.write(b"%064d" % number)
        assert await reader.readexactly(64) == b"%064d" % number
    writer.close()
    await writer.wait_closed()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    await asyncio.gather(*(client(address) for _ in range(20)))
    server.close()
    await server.wait_closed()
    assert await asyncio.to_thread(pow, 2, 5) == 32
"""


@pytest.fixture
def inside(script):
    """Return the code that runs a program in an interpreter."""

    def inside(code):
        path = script.write(code, "inside.py")
        return f"import runpy; runpy.run_path({str(path)!r})"

    return inside


def test_ten_thousand_echoes_in_each_at_once(script, inside):
    """Two interpreters with a GIL each, and the main one."""
    code = inside(ECHOES + "on_new_loop(main())\n")
    script(
        ECHOES
        + f"""
made = create(), create()
in_threads(3, lambda n: (
    run(made[n], {code!r}) if n < 2 else on_new_loop(main())
))
for one in made:
    destroy(one)
on_new_loop(main())
"""
    )


def test_a_subinterpreter_leaves_nothing(script, inside):
    """What it had open goes with it, the cached poller too.

    So does the module: each has one of the 1,024 thread-specific data keys of
    a process.
    """
    code = inside("new_loop().close()\nnew_loop().close()\n")
    script(f"""
import ctypes

def free_key():
    key = ctypes.c_uint()
    pthread = ctypes.CDLL(None)
    assert pthread.pthread_key_create(ctypes.byref(key), None) == 0
    assert pthread.pthread_key_delete(key) == 0
    return key.value

def cycle():
    interpreter = create()
    run(interpreter, {code!r})
    destroy(interpreter)

cycle()
before = descriptors(), free_key()
for _ in range(5):
    cycle()
assert (descriptors(), free_key()) == before
""")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="sys._is_immortal")
@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
def test_asyncios_classes_are_immortal_for_free_threads_alone(script, inside):
    """With a GIL, and inside another interpreter, they are left alone."""
    code = "new_loop().close()\nassert sys._is_immortal(asyncio.Task) is {}\n"
    script(f"""
interpreter = create()
run(interpreter, {inside(code.format(False))!r})
destroy(interpreter)
{code.format(FREE_THREADED)}
""")


def test_signals_are_the_main_interpreters(script, inside):
    """A loop inside gets none, takes none away, and says so."""
    code = inside("""
loop = new_loop()
try:
    loop.add_signal_handler(signal.SIGUSR1, print)
except (RuntimeError, ValueError):
    pass
else:
    raise AssertionError("a handler in a subinterpreter")
loop.call_later(0.02, loop.stop)
loop.run_forever()
loop.close()
""")
    script(f"""
interpreter = create()
loop = new_loop()
loop.add_signal_handler(signal.SIGUSR1, loop.stop)
job = loop.run_in_executor(None, run, interpreter, {code!r})
loop.run_until_complete(job)
loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
loop.run_forever()
loop.run_until_complete(loop.shutdown_default_executor())
loop.close()
destroy(interpreter)
""")


# --- the end of an interpreter -----------------------------------------------


LEFT = {
    **OPEN,
    "an_idle_thread_which_is_no_daemon": """
loop = sys.loop = new_loop()
thread = loop.run_until_complete(
    loop.run_in_executor(None, threading.current_thread)
)
assert not thread.daemon
loop.close()
""",
}


@pytest.mark.parametrize("name", LEFT)
def test_it_ends_with(script, inside, name):
    """Made, run and destroyed; then the main interpreter is used."""
    done = script(
        f"""
for _ in range(2):
    interpreter = create()
    run(interpreter, {inside(LEFT[name])!r})
    destroy(interpreter)
loop = new_loop()
assert loop.run_until_complete(asyncio.sleep(0.001, 7)) == 7
loop.close()
print("main", flush=True)
""",
        quiet="server" not in name,
    )
    assert done.stdout == 2 * SAY.get(name, "") + "main\n"


def test_left_to_the_end_of_the_process(script, inside):
    """Nobody destroys it: the main interpreter does when it exits."""
    code = inside("""
loop = sys.loop = new_loop()
loop.run_until_complete(asyncio.sleep(0.001))
loop.call_later(10, print)
""")
    done = script(
        f"""
kept = create()
run(kept, {code!r})
print("main", flush=True)
""",
        quiet=False,
    )
    assert done.stdout == "main\n"
