"""Python's signal wakeup fd, which a loop has while it has handlers."""

import signal
import sys

import pytest

BEFORE = """
def set_wakeup_socket():
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    signal.set_wakeup_fd(near.fileno())
    return near, far

signal.signal(signal.SIGUSR1, lambda *args: None)
"""


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
    if script.kind == "asyncio" and sys.version_info >= (3, 12):
        pytest.skip("asyncio takes the wakeup fd from a child from 3.12 on")
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
