"""Workers behind one listening socket: each serves its share.

A worker that was woken for a connection may never accept it.  Then another
one does, on asyncio at once, on fastloop within about a second.
"""

from __future__ import annotations

import pytest
from builds import ON_LIBUV
from isolated_scripts import REFUSE

pytestmark = pytest.mark.skipif(ON_LIBUV, reason="libuv's wakes all workers")

BEFORE = """
import collections, contextlib, ctypes, resource, select, tempfile
from turns import turns
unix = tempfile.TemporaryDirectory()
listening = socket.create_server(("127.0.0.1", 0), backlog=512)
pids = []

class Tell(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"%d" % os.getpid())
        transport.close()

def child(run):
    "Fork a child that calls run(ready), and wait until it calls ready()."
    gate, opener = os.pipe()
    pids.append(os.fork())
    if pids[-1] == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with its parent
        try:
            run(lambda: os.write(opener, b"x"))
        finally:
            os._exit(1)
    os.close(opener)
    assert os.read(gate, 1) == b"x"
    os.close(gate)
    return pids[-1]

def work(ready):
    loop = new_loop()
    loop.set_exception_handler(lambda *args: None)
    server = loop.run_until_complete(loop.create_server(Tell, sock=listening))
    loop.add_signal_handler(signal.SIGUSR1, server.close)
    loop.add_signal_handler(signal.SIGUSR2, use_up)
    loop.call_soon(ready)
    loop.run_forever()

def use_up():
    "Let this process open no further file."
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with contextlib.suppress(OSError):
        while True:
            os.dup(0)

def wait_for(pid, states):
    state = ""
    while state not in states.split():
        with open(f"/proc/{pid}/stat") as file:
            state = file.read().rpartition(") ")[2][0]

def connect():
    sock = socket.socket(listening.family)
    sock.connect(listening.getsockname())
    return sock

def answer(sock):
    with sock, sock.makefile("rb") as file:
        return int(file.read())

def ask():
    "Which worker answers, when all of them sleep?"
    for pid in pids:
        wait_for(pid, "S T")
    return answer(connect())

def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_for(pid, "T")

@contextlib.contextmanager
def ended():
    "End all children."
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
"""
BEFORE += REFUSE


@pytest.mark.parametrize(
    ("given", "before"),
    [
        ("listening", ""),
        ("socket.create_server(unix.name + '/u', family=socket.AF_UNIX)", ""),
        ("Wrapped(listening)", ""),
        ("listening", "refuse([441], errno.EPERM)  # epoll_pwait2"),
    ],
    ids=["tcp", "unix", "wrapped", "no epoll_pwait2"],
)
def test_idle_workers_take_turns(fast_script, given, before):
    """Whatever kind of socket they are given; gunicorn's wraps one.

    But not on a machine that is busy; and each second a worker's registration
    is renewed, at the end of the kernel's queue.
    """
    fast_script(f"""
    {before}
    class Wrapped:
        def __init__(self, sock):
            self.sock = sock
        def __getattr__(self, name):
            return getattr(self.sock, name)

    listening = {given}
    with ended():
        for _ in range(4):
            child(work)
        shares = collections.Counter(ask() for _ in range(200))
        even = all(48 <= shares[pid] <= 52 for pid in pids)
        assert even or not all(map(turns, pids)), shares
    """)


#: What happens to the worker that is the first to be woken.
FIRST_OF_TWO = {
    "stopped": """
        stop(first)
        assert {ask() for _ in range(9)} == {second}
        os.kill(first, signal.SIGCONT)
    """,
    "killed": """
        stop(first)
        sock = connect()
        os.kill(first, signal.SIGKILL)
        os.waitpid(pids.pop(0), 0)
        assert answer(sock) == second
        assert {ask() for _ in range(9)} == {second}
    """,
    "has no descriptor left": """
        os.kill(first, signal.SIGUSR2)
        assert {ask() for _ in range(9)} == {second}
    """,
    "closes its server": """
        stop(first)
        sock = connect()
        os.kill(first, signal.SIGUSR1)
        os.kill(first, signal.SIGCONT)
        assert answer(sock) in (first, second)
        assert {ask() for _ in range(9)} == {second}
    """,
}


@pytest.mark.parametrize("what", FIRST_OF_TWO)
def test_another_worker_takes_the_connections_of_one_that_cannot(script, what):
    script(f"""
    with ended():
        first, second = child(work), child(work)
        {FIRST_OF_TWO[what].strip()}
    """)


def test_a_set_that_is_woken_and_never_accepts(script):
    """It is the first in the kernel's queue, and another program's."""
    script("""
    def sleep(ready):
        exclusive = select.EPOLLIN | select.EPOLLEXCLUSIVE
        with select.epoll() as epoll:
            epoll.register(listening, exclusive)
            ready()
            epoll.poll()
            signal.pause()

    with ended():
        child(sleep)
        worker = child(work)
        assert {ask() for _ in range(3)} == {worker}
    """)


def test_a_child_of_a_worker_serves_too(script):
    """It runs the loop that its parent listens with."""
    script("""
    def work(ready):
        loop = new_loop()
        loop.run_until_complete(loop.create_server(Tell, sock=listening))
        child(lambda ready: (loop.call_soon(ready), loop.run_forever()))
        os.write(into, b"%d" % pids[-1])
        loop.call_soon(ready)
        loop.run_forever()

    out_of, into = os.pipe()
    with ended():
        child(work)
        pids.append(int(os.read(out_of, 20)))
        served = {ask() for _ in range(9)}
        assert served <= set(pids)
        os.kill(pids.pop(), signal.SIGKILL)
        assert {ask() for _ in range(9)} == set(pids)
    """)
