"""A loop's own descriptors are closed behind its back.

An os.close() too many may hit them, and so does an os.closerange().
libuv ends the process then, hence interpreters of their own.
"""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="looks for descriptors of epoll"
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
    """Each of them in turn; where it cannot run, that is an exception."""
    script("""
ran = []
waited()  # what it opens for the process is not its own
for number in range(len(waited()[1])):
    loop, own = waited()
    os.close(own[number])
    ran.append(run_and_close(loop))
assert False in ran
os._exit(0)
""")


@pytest.mark.parametrize(
    "use", ["loop.close()", "run_and_close(loop)", "loop.remove_reader(100)"]
)
def test_a_childs_epoll_under_the_sets_number_stays_as_it_is(fast_script, use):
    """The child has closed what it inherited.  asyncio closes that epoll."""
    fast_script(f"""
import select

loop, own = waited()
pid = os.fork()
if pid == 0:
    os.closerange(3, 1024)
    mine = select.epoll()
    assert mine.fileno() in own
    near, far = os.pipe()
    for fd in (near, far):
        os.dup2(fd, 100 + fd)
        os.close(fd)
    mine.register(100 + near, select.EPOLLIN)
    os.write(100 + far, b"x")
    {use}
    assert mine.poll(0) == [(100 + near, select.EPOLLIN)]
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
""")


def test_a_set_that_is_closed_in_a_run_ends_the_run(script):
    script("""
async def main():
    os.close(set_fd)
    while True:
        await asyncio.sleep(0)

loop, own = waited()
set_fd = [
    fd for fd in own if "eventpoll" in os.readlink(f"/proc/self/fd/{fd}")
][0]  # the other one is libuv's
try:
    loop.run_until_complete(main())
except OSError:
    with contextlib.suppress(OSError):
        loop.close()
    os._exit(0)
""")


@pytest.mark.parametrize("spare", range(10))
def test_a_first_loop_with_few_descriptors_raises_or_runs(fast_script, spare):
    """libuv ends the process if none are left for what it makes once."""
    fast_script(f"""
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
soft = max(opened() | {{2}}) + 1 + {spare}
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
with contextlib.suppress(OSError):
    loop = new_loop()
    try:
        assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5
    finally:
        loop.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
loop = new_loop()
assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5
loop.close()
""")
