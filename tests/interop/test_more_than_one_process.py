"""Several processes: shared ports, restarts without loss, pools, clusters.

The programs are those of docs/more-than-one-process.md, and run as they stand
there.  What is counted is what that page says.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import multiprocessing
import re
import signal
import socket
import threading
from pathlib import Path

import pytest
from builds import ON_LIBUV
from interop_process import APPS, LOOPS, PATIENCE, free_port
from test_docs import named
from turns import turns

HELD = 8
LATER = 50


@pytest.fixture
def program(start, tmp_path):
    """program(name, *argv): a program of the page as a child."""

    def program(name, *argv, listening=None, **changes):
        file = tmp_path / name
        source = named(name)
        for old, new in changes.items():
            source = source.replace(old, new)
        if not file.exists():  # another child may be reading it
            file.write_text(source, encoding="utf-8")
        return start(str(file), *map(str, argv), listening=listening)

    return program


def asks(port, line=b"a line\n"):
    """What a server answers one line with, until it closes."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(line)
        with sock.makefile("rb") as file:
            return file.read()


# -- one port ----------------------------------------------------------------


def test_processes_that_share_a_port_share_its_load(program):
    port = free_port()
    words = f'"127.0.0.1", {port}, reuse_port=True'
    changes = {"sock=listening": words, "socket.socket(fileno=3)": "None"}
    children = [program("inherited.py", **changes) for _ in range(3)]
    for child in children:
        child.wait_for("serving")
    shares = collections.Counter(
        int(asks(port).split()[0]) for _ in range(600)
    )
    assert shares.keys() == {child.child.pid for child in children}
    # The kernel's hash is even: seven times the deviation of 200 in 600.
    assert all(120 <= share <= 280 for share in shares.values()), shares


# -- restarts ----------------------------------------------------------------


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        yield sock


def test_a_restart_with_an_inherited_socket_loses_nothing(program, listening):
    """Clients connect all the while; each gets an answer."""
    port = listening.getsockname()[1]
    served = collections.Counter()
    lost = []
    enough = threading.Event()

    def clients():
        while not enough.is_set():
            try:
                pid, text = asks(port).split(b" ", 1)
                assert text == b"a line\n"
                served[int(pid)] += 1
            except Exception as exc:
                lost.append(exc)
                return

    child = program("inherited.py", listening=listening)
    child.wait_for("serving")
    threads = [threading.Thread(target=clients) for _ in range(2)]
    for thread in threads:
        thread.start()
    pids = [child.child.pid]
    try:
        for _ in range(3):
            until(lambda: served[pids[-1]] >= 80 or lost)
            follower = program("inherited.py", listening=listening)
            follower.wait_for("serving")
            assert child.stop() == 0, child.log
            child = follower
            pids.append(child.child.pid)
        until(lambda: served[pids[-1]] >= 80 or lost)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    assert lost == []
    assert served.keys() == set(pids)


def until(condition):
    """Wait for what another thread brings about."""
    tick = threading.Event()
    for _ in range(int(PATIENCE * 100)):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it did not come about")


def listens(port):
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


class Held:
    """A request that the server has begun to answer, whose body is missing."""

    def __init__(self, port, stack):
        self.sock = stack.enter_context(
            socket.create_connection(("127.0.0.1", port), PATIENCE)
        )
        self.sock.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
        )
        self.got = b""
        self.pid, self.loop = self.read(rb"\n(\d+) (\w+)\n").groups()

    def read(self, pattern):
        while not (found := re.search(pattern, self.got)):
            data = self.sock.recv(65536)
            assert data, f"closed after {self.got!r}"
            self.got += data
        return found

    def finish(self):
        self.sock.sendall(b"late")
        self.read(rb"late[\s\S]*\r\n0\r\n\r\n")
        self.sock.close()


@pytest.fixture
def hold():
    """hold(port): the begun requests; their connections are closed after."""
    with contextlib.ExitStack() as stack:
        yield lambda port: [Held(port, stack) for _ in range(HELD)]


def where(port):
    """Which process and loop answer a request."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    ) as conn:
        conn.request("GET", "/")
        response = conn.getresponse()
        assert response.status == 200
        pid, loop = response.read().split()
        return pid, loop


def test_uvicorn_replaced_on_an_inherited_socket(
    start, loop_kind, listening, hold
):
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    port = listening.getsockname()[1]
    words = ["-m", "uvicorn", "holding:app", "--fd", "3"]
    words += ["--loop", LOOPS[loop_kind], "--no-use-colors"]

    def serve():
        child = start(*words, listening=listening)
        child.wait_for("Application startup complete")
        return child

    old = serve()
    held = hold(port)
    assert {each.loop.decode() for each in held} == {loop_kind}
    new = serve()
    old.child.send_signal(signal.SIGTERM)
    old.wait_for("Waiting for connections to close")
    for _ in range(LATER):
        assert where(port) == (b"%d" % new.child.pid, loop_kind.encode())
    for each in held:
        each.finish()
    old.wait_for("lifespan ends")
    old.child.wait(PATIENCE)
    assert "Traceback" not in old.log + new.log


def worker_options(worker: str, loop_kind: str) -> tuple[str, ...]:
    """What starts that kind of worker on that kind of loop."""
    if worker == "uvicorn":
        name = f"{loop_kind.capitalize()}Worker"
        return ("-k", f"gunicorn_fastloop.{name}")
    own = ("-k", "asgi", "--asgi-loop", "asyncio")
    if loop_kind == "fastloop":
        own += ("-c", str(APPS / "gunicorn_fastloop.py"))
    return own


@pytest.mark.parametrize("worker", ["uvicorn", "asgi"])
def test_gunicorn_reloads_with_requests_begun(start, loop_kind, worker, hold):
    if worker == "uvicorn":
        reason = "uvicorn-worker is not installed"
        pytest.importorskip("uvicorn_worker", reason=reason)
    else:
        reason = "this gunicorn has no ASGI worker"
        pytest.importorskip("gunicorn.workers.gasgi", reason=reason)
    child = start(
        *("-m", "gunicorn", "holding:app", "--workers", "2"),
        *("--bind", "127.0.0.1:0", "--graceful-timeout", "30"),
        *worker_options(worker, loop_kind),
    )
    port = int(child.wait_for(r"Listening at: http://[\d.]+:(\d+)")[1])
    child.wait_for("lifespan begins", times=2)
    held = hold(port)
    assert {each.loop.decode() for each in held} == {loop_kind}
    old = {each.pid for each in held}
    child.child.send_signal(signal.SIGHUP)
    child.wait_for("lifespan begins", times=4)
    # An old worker closes what it accepted and has not read a request from.
    child.wait_for("(?i)shutting down", times=2)
    for _ in range(LATER):
        pid, loop = where(port)
        assert pid not in old
        assert loop.decode() == loop_kind
    for each in held:
        each.finish()
    child.wait_for("lifespan ends", times=2)
    assert child.stop() == 0
    assert "Traceback" not in child.log


# -- workers -----------------------------------------------------------------


def commands(server, port, tmp_path):
    """What starts two workers of a server, and what they say when ready."""
    if server == "uvicorn":
        loop = ("--loop", LOOPS["fastloop"])
        words = ["-m", "uvicorn", "holding:app", "--workers", "2", *loop]
        return [*words, "--port", str(port)]
    if server == "hypercorn":
        words = ["-m", "hypercorn", "hypercorn_app:app", "--workers", "2"]
        return [*words, "-k", "asyncio", "--bind", f"127.0.0.1:{port}"]
    file = tmp_path / "serve_granian.py"
    file.write_text(named("serve_granian.py"), encoding="utf-8")
    return [str(file), "holding:app", str(port)]


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "granian"])
def test_workers_of_a_server(start, server, tmp_path):
    pytest.importorskip(server, reason=f"{server} is not installed")
    port = free_port()
    child = start(*commands(server, port, tmp_path))
    child.wait_for("lifespan begins", times=2)
    until(lambda: listens(port))  # which a worker does after that
    answers = [where(port) for _ in range(LATER)]
    assert {loop for _, loop in answers} == {b"fastloop"}
    assert b"%d" % child.child.pid not in {pid for pid, _ in answers}
    child.stop()
    assert "Traceback" not in child.log


def shares(port, count):
    """How many of 200 requests each of so many workers answers.

    A request comes when all of them sleep.
    """
    pids = set()
    while len(pids) < count:
        pids.add(where(port)[0].decode())
    answers = collections.Counter()
    for _ in range(200):
        while any(state(pid) != "S" for pid in pids):
            pass
        answers[where(port)[0].decode()] += 1
    if not all(map(turns, pids)):  # the machine is busy
        return {200 // count}
    assert answers.keys() == pids
    return set(answers.values())


def state(pid):
    """Whether a process runs (R) or sleeps (S)."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    return stat.rpartition(") ")[2][0]


@pytest.mark.skipif(ON_LIBUV, reason="libuv's poller wakes all workers")
@pytest.mark.parametrize("server", ["uvicorn", "uvicorn_worker", "gasgi"])
def test_workers_share_connections_evenly(start, server):
    """Also once they were replaced, and once there are more and fewer."""
    if server == "uvicorn":
        pytest.importorskip("uvicorn", reason="uvicorn is not installed")
        loop = ("--loop", LOOPS["fastloop"])
        words = ("-m", "uvicorn", "holding:app", "--port", "0", *loop)
        bound = r"running on http://[\d.]+:(\d+)"
    else:
        own = server == "gasgi"
        module = "gunicorn.workers.gasgi" if own else server
        pytest.importorskip(module, reason=f"there is no {module}")
        kind = worker_options("asgi" if own else "uvicorn", "fastloop")
        bind = ("--bind", "127.0.0.1:0")
        words = ("-m", "gunicorn", "holding:app", *bind, *kind)
        bound = r"Listening at: http://[\d.]+:(\d+)"
    child = start(*words, "--workers", "4")
    port = int(child.wait_for(bound)[1])
    child.wait_for("lifespan begins", times=4)
    # uvicorn looks ten times a second whether it shall end: then the next one
    # in the queue may be woken instead.
    assert shares(port, 4) <= {49, 50, 51}
    child.child.send_signal(signal.SIGHUP)
    child.wait_for("lifespan begins", times=8)
    child.wait_for("lifespan ends", times=4)
    assert shares(port, 4) <= {49, 50, 51}
    child.child.send_signal(signal.SIGTTIN)
    child.wait_for("lifespan begins", times=9)
    assert shares(port, 5) <= {39, 40, 41}
    child.child.send_signal(signal.SIGTTOU)
    child.wait_for("lifespan ends", times=5)
    assert shares(port, 4) <= {49, 50, 51}
    child.stop()
    assert "Traceback" not in child.log


# -- other processes ---------------------------------------------------------


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pools_and_processes_from_a_running_loop(program, method):
    child = program("pool.py", method)
    assert child.child.wait(PATIENCE) == 0, child.log
    child.wait_for(rf"{sum(n**3 for n in range(200))}\n")


def test_dasks_workers_and_client(start):
    pytest.importorskip("distributed", reason="distributed is not installed")
    child = start("-m", "fastloop", "run", "dask_cluster.py")
    assert child.child.wait(PATIENCE) == 0, child.log
    child.wait_for(rf"{{'fastloop.loop'}} {sum(range(101))}\n")
