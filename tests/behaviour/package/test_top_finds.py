"""``top`` finds the socket of a process that sees other files, by its pid.

The processes have temporary folders, mounts and pids of their own, as under
systemd's PrivateTmp and in containers.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from patience import PATIENCE

from fastloop.cli import Refused
from fastloop.observe import reading

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/environ"), reason="needs Linux's /proc"
)

SHOW = """
import ctypes, sys, tempfile
import fastloop
{before}
loop = fastloop.new_event_loop()
loop.enable_metrics(socket=True)
print(tempfile.gettempdir(), flush=True)
sys.stdin.read()
loop.close()
"""
#: A mount that only the command sees, over its temporary folder.
MOUNT = 'mount -t tmpfs none "$TMPDIR" && exec "$0" "$@"'
PRIVATE = ["unshare", "--mount", "--propagation", "private"]


@contextlib.contextmanager
def shown(*prefix, before="", **env):
    """Run a process that shows its metrics; give its pid and its folder."""
    usual = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FASTLOOP_METRICS", "TMP", "TEMP"))
    }
    script = SHOW.format(before=before)
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", script],
        env={**usual, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process.pid, process.stdout.readline().rstrip()
    finally:
        process.communicate(timeout=PATIENCE)


def top(*words, prefix=(), status=0):
    """Run `top` once; return its output, or the sentence of a refusal."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "fastloop", "top", "--once", *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == status, done.stderr
    err = re.sub(r"\n(?=.)", " ", done.stderr)
    assert err.count("fastloop: ") == (status != 0)
    return err or done.stdout


def unshared(*options):
    """Whether this user may have other mounts."""
    words = [*PRIVATE, *options, "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(words, capture_output=True).returncode == 0
    )


def test_a_process_may_have_a_temporary_folder_of_its_own(tmp_path):
    with shown(TMPDIR=str(tmp_path)) as (pid, folder):
        assert folder == str(tmp_path)
        name = f"fastloop-{os.geteuid()}/{pid}.sock"
        assert reading.find(str(pid)) == f"{folder}/{name}"
        assert f"process {pid}" in top(str(pid))
    with pytest.raises(Refused, match=f"no process {pid}"):
        reading.find(str(pid))


@pytest.fixture
def short_path():
    """Return a folder: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield path


def test_a_process_may_have_mounts_of_its_own(short_path):
    if not unshared():
        pytest.skip("this user cannot mount")
    words = [*PRIVATE, "sh", "-c", MOUNT]
    with shown(*words, TMPDIR=short_path) as (pid, folder):
        assert not os.listdir(folder)
        path = reading.find(str(pid))
        assert path.startswith(f"/proc/{pid}/root{short_path}/")
        assert f"process {pid}" in top(str(pid))


def test_a_process_may_have_another_pid_in_a_container(short_path):
    if not unshared("--pid", "--fork"):
        pytest.skip("this user cannot make a pid namespace")
    words = [*PRIVATE, "--pid", "--fork", "sh", "-c", MOUNT]
    with shown(*words, TMPDIR=short_path) as (parent, _):
        children = Path(f"/proc/{parent}/task/{parent}/children")
        if not children.exists():
            pytest.skip("the kernel does not tell of children")
        pid = children.read_text().strip()
        path = reading.find(pid)
        assert path.endswith("/1.sock")
        assert "process 1," in top(pid)


def test_a_process_that_hides_its_files_is_a_sentence(tmp_path):
    """As one does that has changed its user, or was given capabilities."""
    prefix = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv: root looks at all processes")
        prefix = ["setpriv", "--bounding-set", "-sys_ptrace"]
    hide = "ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE"
    with shown(before=hide, TMPDIR=str(tmp_path)) as (pid, folder):
        said = top(str(pid), prefix=prefix, status=2)
        assert f"process {pid} does not let this user look" in said
        path = f"{folder}/fastloop-{os.geteuid()}/{pid}.sock"
        assert f"process {pid}" in top(path, prefix=prefix)
