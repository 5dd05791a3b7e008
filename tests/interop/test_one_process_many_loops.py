"""One loop in each thread behind one port, with a GIL and without.

The program is that of docs/one-process-many-loops.md, as it stands there.
"""

from __future__ import annotations

import collections
import sysconfig

import pytest
from builds import ON_LIBUV
from interop_process import free_port
from test_docs import named
from test_more_than_one_process import asks
from turns import turns

THREADS = 3


def test_loops_in_threads_share_the_load_of_a_port(start, tmp_path):
    pytest.importorskip("fastloop._core", reason="fastloop is not built")
    file, port = tmp_path / "many_loops.py", free_port()
    file.write_text(named(file.name), encoding="utf-8")
    child = start(str(file), str(port), str(THREADS))
    gil = child.wait_for(r"serving (.*) a GIL")[1]
    free = sysconfig.get_config_var("Py_GIL_DISABLED")
    assert gil == ("without" if free else "with")
    shares = collections.Counter(int(asks(port)) for _ in range(600))
    assert child.child.pid not in shares  # the main thread serves nothing
    if free and not ON_LIBUV:  # else threads that wait for the GIL are late
        assert len(shares) == THREADS
        # A thread that a busy machine has not let wait yet loses its turn.
        even = max(shares.values()) <= 220
        assert even or turns(child.child.pid) < THREADS, shares
    assert child.stop() == 0, child.log
    assert "Traceback" not in child.log


def test_uvicorn_serves_in_threads(start, tmp_path):
    pytest.importorskip("uvicorn")
    file, port = tmp_path / "uvicorn_threads.py", free_port()
    file.write_text(named(file.name), encoding="utf-8")
    child = start(str(file), str(port), str(THREADS))
    child.wait_for("Application startup complete", THREADS)
    ask = b"GET / HTTP/1.0\r\n\r\n"
    answers = [asks(port, ask) for _ in range(100)]
    assert all(b"200 OK" in answer for answer in answers)
    idents = {int(answer.split()[-1]) for answer in answers}
    assert len(idents) <= THREADS and child.child.pid not in idents
    assert child.stop() == 0, child.log
    assert child.log.count("Finished server process") == THREADS
    assert "Traceback" not in child.log
