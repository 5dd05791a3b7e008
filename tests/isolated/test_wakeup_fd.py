"""Python's signal wakeup fd, which a loop has while it has handlers."""

import signal
import subprocess
import sys

import pytest
from isolated_scripts import LIMIT, environment

BEFORE = """
def take_number_over(end):
    '''Close a descriptor and open a file that gets its number.'''
    number = end.fileno()
    end.close()
    stranger = os.open("stranger", os.O_CREAT | os.O_RDWR)
    if stranger != number:
        os.dup2(stranger, number)
        os.close(stranger)
    os.set_blocking(number, False)
    return number

def set_wakeup_socket():
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    signal.set_wakeup_fd(near.fileno())
    return near, far

signal.signal(signal.SIGUSR1, lambda *args: None)
"""


def test_an_fd_reused_while_a_handler_is_set_gets_no_signals(script):
    script("""
near, far = set_wakeup_socket()
loop = new_loop()
loop.add_signal_handler(signal.SIGUSR2, loop.stop)
number = take_number_over(near)
os.kill(os.getpid(), signal.SIGUSR2)
loop.run_forever()
loop.remove_signal_handler(signal.SIGUSR2)
os.kill(os.getpid(), signal.SIGUSR1)
loop.close()
assert os.read(number, 100) == b""
assert signal.set_wakeup_fd(-1) == -1
""")


def test_a_wakeup_fd_set_by_a_callback_gets_the_signals_and_stays(script):
    script("""
async def main():
    near, far = set_wakeup_socket()
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), signal.SIGUSR1)
    await asyncio.sleep(0.01)
    assert far.recv(10) == bytes([signal.SIGUSR1])
    return near, far

loop = new_loop()
near, far = loop.run_until_complete(main())
loop.close()
assert signal.set_wakeup_fd(-1) == near.fileno()
""")


def test_ctrl_c_after_a_callback_replaced_the_wakeup_fd(script, finish):
    process = script.start("""
sys.stdout.reconfigure(line_buffering=True)
loop = new_loop()
loop.call_soon(signal.set_wakeup_fd, -1)
# So late that the loop has begun to wait.
timer = threading.Timer(0.2, print, ["ready"])
timer.start()
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted")
loop.close()
""")
    process.send_signal(signal.SIGINT)
    assert finish(process) == (0, "interrupted\n", "")


def run_bare(code, *flags):
    """Run a program that imports fastloop itself; return what it wrote."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=environment(),
    )


LATE_THREADING = """
import _thread, os, signal, sys, time
assert "threading" not in sys.modules
done = _thread.allocate_lock()
done.acquire()
def import_it():
    import threading
    {imports}
    done.release()
_thread.start_new_thread(import_it, ())
done.acquire()
import asyncio
{imports}
loop = {factory}()
def send():
    _thread.start_new_thread(interrupt, ())
def interrupt():
    time.sleep(0.2)  # so late that the loop has begun to wait
    os.kill(os.getpid(), signal.SIGINT)
loop.call_soon(send)
try:
    loop.run_forever()
except KeyboardInterrupt:
    print("interrupted")
loop.close()
sys.stdout.flush()
os._exit(0)  # threading._shutdown() expects this to be its main thread
"""


@pytest.mark.parametrize(
    "imports, factory",
    [
        ("import asyncio", "asyncio.SelectorEventLoop"),
        ("import fastloop.loop", "fastloop.new_event_loop"),
    ],
    ids=["asyncio", "fastloop"],
)
def test_ctrl_c_where_another_thread_imported_threading(imports, factory):
    """The threading module then takes that thread for the main one."""
    probe = [
        sys.executable,
        "-c",
        "import sys; print('threading' in sys.modules)",
    ]
    flags = (
        ["-S"] if "True" in subprocess.check_output(probe, text=True) else []
    )
    code = LATE_THREADING.format(imports=imports, factory=factory)
    done = run_bare(code, *flags)
    assert done.stdout == "interrupted\n", done.stderr


def test_a_signal_of_a_forked_child_is_not_its_parents(fast_script):
    fast_script("""
seen = []
loop = new_loop()
loop.add_signal_handler(signal.SIGUSR1, seen.append, "signal")

async def main():
    await asyncio.sleep(0)
    pid = os.fork()
    if not pid:
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(0)
    os.waitpid(pid, 0)
    await asyncio.sleep(0.01)

loop.run_until_complete(main())
pid = os.fork()
if not pid:
    os.kill(os.getpid(), signal.SIGUSR1)
    os._exit(0)
os.waitpid(pid, 0)
loop.run_until_complete(asyncio.sleep(0.01))
assert seen == []
loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
loop.run_until_complete(asyncio.sleep(0.01))
assert seen == ["signal"]
loop.close()
""")


def test_a_child_that_runs_its_parents_loop_gets_its_own_signals(script):
    """A daemon adds its handlers, and then forks."""
    script("""
seen = []
loop = new_loop()
loop.add_signal_handler(signal.SIGUSR1, lambda: (seen.append(1), loop.stop()))
loop.run_until_complete(asyncio.sleep(0.001))
pid = os.fork()
if not pid:
    loop.call_later(0.01, os.kill, os.getpid(), signal.SIGUSR1)
    loop.run_forever()
    assert loop.remove_signal_handler(signal.SIGUSR1)
    loop.close()
    os._exit(not seen)
assert os.waitpid(pid, 0)[1] == 0
assert seen == []
loop.close()
""")


def test_a_child_may_run_its_parents_loop_in_a_thread(script):
    """Handlers of signals are then the parent's alone."""
    script("""
loop = new_loop()
loop.add_signal_handler(signal.SIGUSR1, print)
pid = os.fork()
if not pid:
    ran = []
    def run():
        ran.append(loop.run_until_complete(asyncio.sleep(0.001, "done")))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    os._exit(ran != ["done"])
assert os.waitpid(pid, 0)[1] == 0
loop.close()
""")


def test_a_child_waits_whatever_is_in_its_parents_pipe(script):
    script("""
loop = new_loop()
loop.add_signal_handler(signal.SIGUSR1, print)
loop.remove_signal_handler(signal.SIGUSR1)
near, far = os.pipe()
pid = os.fork()
if not pid:
    os.read(near, 1)
    loop.run_until_complete(asyncio.sleep(0.2))
    os._exit(time.process_time() > 0.15)
loop.add_signal_handler(signal.SIGUSR1, print)
signal.raise_signal(signal.SIGUSR1)
os.write(far, b"x")
assert os.waitpid(pid, 0)[1] == 0
loop.close()
""")


@pytest.mark.parametrize("late", ["loop.remove_reader(fd)", "os.close(fd)"])
def test_a_late_end_of_an_fd_leaves_the_handlers(script, late):
    """Its number is not the loop's, although that opens some meanwhile."""
    script(f"""
import contextlib
seen = []
loop = new_loop()
fds = os.pipe()
for fd in fds:
    if {"remove" in late}:
        loop.add_reader(fd, print)
    os.close(fd)
loop.add_signal_handler(signal.SIGUSR1, lambda: (seen.append(1), loop.stop()))
for fd in fds:
    with contextlib.suppress(OSError):
        {late}
loop.call_later(0.01, os.kill, os.getpid(), signal.SIGUSR1)
loop.run_forever()
assert seen == [1]
loop.close()
""")


def test_the_fd_of_a_loop_collected_elsewhere_is_not_reused(fast_script):
    """Only the main thread can tell Python to write to it no more."""
    fast_script(
        """
loops = [new_loop()]
loops[0].add_signal_handler(signal.SIGUSR1, int)
sys.unraisablehook = lambda *args: None
thread = threading.Thread(target=lambda: (loops.clear(), gc.collect()))
thread.start()
thread.join()
opened = [os.open("stranger", os.O_CREAT | os.O_RDWR) for _ in range(20)]
os.kill(os.getpid(), signal.SIGUSR1)
assert os.read(opened[0], 10) == b""
assert os.path.getsize("stranger") == 0
assert not os.get_inheritable(signal.set_wakeup_fd(-1))
""",
        "-W",
        "ignore::ResourceWarning",
    )


@pytest.mark.parametrize("in_a_run", [True, False])
def test_loops_with_signal_handlers_close_while_signals_arrive(
    fast_script, in_a_run
):
    """Other threads close them; the main thread's loop gets the signals."""
    fast_script(f"""
import contextlib, threading
main = new_loop()

def close(loop):
    with contextlib.suppress(ValueError):  # it sets no action in a thread
        loop.close()

async def receive(thread):
    while thread.is_alive():
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.sleep(0)

def receive_in_runs(thread):
    while thread.is_alive():
        signal.raise_signal(signal.SIGUSR1)
        main.run_until_complete(asyncio.sleep(0))

def closing():
    loop = new_loop()
    loop.add_signal_handler(signal.SIGUSR1, int)
    thread = threading.Thread(target=close, args=(loop,))
    thread.start()
    return thread

async def run():
    for _ in range(300):
        await receive(closing())

if {in_a_run}:
    main.run_until_complete(run())
else:
    for _ in range(300):
        receive_in_runs(closing())
main.add_signal_handler(signal.SIGUSR1, main.stop)
main.call_soon(signal.raise_signal, signal.SIGUSR1)
main.run_forever()
main.close()
""")
