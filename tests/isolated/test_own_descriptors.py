"""A loop's own descriptors: none is left, and what if others close them.

An os.close() too many may hit them, and so does an os.closerange().
"""

from __future__ import annotations

import pytest
from builds import ON_LIBUV

pytestmark = pytest.mark.skipif(
    ON_LIBUV, reason="libuv goes by the numbers of its fds, and aborts"
)

BEFORE = """
import contextlib
kept = []  # a finalizer would close what another loop has by then

def opened():
    found = set()
    for fd in range(3, 200):
        with contextlib.suppress(OSError):
            os.fstat(fd)
            found.add(fd)
    return found

def waited():
    "A loop that has waited, and what it has opened."
    before = opened()
    loop = new_loop()
    loop.run_until_complete(asyncio.sleep(0.001))
    kept.append(loop)
    return loop, sorted(opened() - before)

def run_and_close(loop):
    "Whether it ran."
    def wake():
        with contextlib.suppress(RuntimeError):  # it may be closed by then
            while loop.is_running():
                loop.call_soon_threadsafe(len, "")

    thread = threading.Thread(target=wake)
    try:
        loop.call_soon(thread.start)
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
        thread.join()
        return True
    except (OSError, ValueError):  # of the wake-up descriptor of signals
        return False
    finally:
        with contextlib.suppress(OSError):
            loop.close()
"""


def test_a_loop_whose_descriptors_were_closed_ends_no_process(script):
    """Each of them in turn; without the first, its set, it cannot run."""
    script("""
ran = []
waited()  # what it opens for the process is not its own
for number in range(len(waited()[1])):
    loop, own = waited()
    os.close(own[number])
    ran.append(run_and_close(loop))
assert ran == [False] + [True] * number
os._exit(0)
""")


def test_files_under_a_loops_numbers_stay_open_and_empty(fast_script):
    """asyncio's close() closes them."""
    fast_script("""
for which in slice(1), slice(1, 2), slice(2):
    loop, own = waited()
    for fd in own[which]:
        os.dup2(os.memfd_create("log"), fd)
    assert not which.start or run_and_close(loop)
    loop.close()
    assert not any(os.fstat(fd).st_size for fd in own[which])
os._exit(0)
""")


def test_the_first_loop_of_a_process_leaves_no_descriptor(script):
    script("""
before = opened()
waited()[0].close()
assert opened() == before
""")


def test_a_daemons_child_keeps_its_logs(script):
    """A loop ran before the daemon closed all fds and opened its logs."""
    script("""
waited()[0].close()
os.closerange(3, 1024)
logs = [os.memfd_create("log") for _ in range(30)]
pid = os.fork()
if pid == 0:
    for log in logs:
        os.write(log, b"child")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert [os.pread(log, 9, 0) for log in logs] == [b"child"] * 30
os._exit(0)
""")
