"""The thread of a metrics socket, and loops that end at any moment.

The GC may close a loop in any thread and between any two statements, so also
while another loop is shown or forgotten.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from patience import PATIENCE

pytestmark = pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)


@pytest.fixture
def path(tmp_path):
    """Return the path for a socket."""
    return str(tmp_path / "loops.sock")


IMPORT = """
import importlib.abc, sys, threading, fastloop

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "fastloop.observe.stacks":
            thread = threading.Thread(target=other.close)
            thread.start()
            thread.join()

other, loop = fastloop.new_event_loop(), fastloop.new_event_loop()
sys.meta_path.insert(0, Finder())
loop.enable_metrics(socket=sys.argv[1])
assert other.is_closed()
loop.close()
"""


def test_another_thread_may_close_its_loop_during_the_import(loop_kind, path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT, path],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, "")
