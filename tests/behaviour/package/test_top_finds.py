"""``top`` finds the socket of a process that sees other files, by its pid.

The processes have temporary folders, mounts and pids of their own, as under
systemd's PrivateTmp and in containers.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

from fastloop.cli import Refused
from fastloop.observe import metrics_socket, reading

pytestmark = pytest.mark.skipif(
    not os.path.exists("/proc/self/environ"), reason="needs Linux's /proc"
)

SHOW = """
import ctypes, sys, tempfile
import fastloop
{before}
loop = fastloop.new_event_loop()
loop.enable_metrics(socket={socket})
print(tempfile.gettempdir(), flush=True)
sys.stdin.read()
loop.close()
"""
#: A mount that only the command sees, over its temporary folder.
MOUNT = 'mount -t tmpfs none "$TMPDIR" && exec "$0" "$@"'
PRIVATE = ["unshare", "--mount", "--propagation", "private"]


@contextlib.contextmanager
def shown(*prefix, before="", socket="True", **env):
    """Run a process that shows its metrics; give its pid and its folder."""
    usual = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FASTLOOP_METRICS", "TMP", "TEMP"))
    }
    script = SHOW.format(before=before, socket=socket)
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


@pytest.mark.parametrize("variable", ["TMPDIR", "TEMP"])
def test_a_process_may_have_a_temporary_folder_of_its_own(tmp_path, variable):
    with shown(**{variable: str(tmp_path)}) as (pid, folder):
        assert folder == str(tmp_path)
        name = f"fastloop-{os.geteuid()}/{pid}.sock"
        assert reading.find(str(pid)) == (f"{folder}/{name}", pid)
        assert f"process {pid}" in top(str(pid))
    with pytest.raises(Refused, match=f"no process {pid}"):
        reading.find(str(pid))


def test_a_path_may_be_too_long_for_a_socket(tmp_path):
    """A process reaches its folder by a shorter path."""
    long = tmp_path / ("long" * 30)
    long.mkdir()
    before = f"import os; os.chdir({str(long)!r}); tempfile.tempdir = '.'"
    with shown(before=before, TMPDIR=str(long)) as (pid, _):
        path, _ = reading.find(str(pid))
        assert len(path) > 108
        assert f"process {pid}" in top(str(pid))


def test_a_process_may_have_mounts_of_its_own(tmp_path):
    if not unshared():
        pytest.skip("this user cannot mount")
    words = [*PRIVATE, "sh", "-c", MOUNT]
    with shown(*words, TMPDIR=str(tmp_path)) as (pid, folder):
        assert not os.listdir(folder)
        path, _ = reading.find(str(pid))
        assert path.startswith(f"/proc/{pid}/root{tmp_path}/")
        assert f"process {pid}" in top(str(pid))


def test_a_process_may_have_another_pid_in_a_container(tmp_path):
    if not unshared("--pid", "--fork"):
        pytest.skip("this user cannot make a pid namespace")
    words = [*PRIVATE, "--pid", "--fork", "sh", "-c", MOUNT]
    with shown(*words, TMPDIR=str(tmp_path)) as (parent, _):
        children = Path(f"/proc/{parent}/task/{parent}/children")
        if not children.exists():
            pytest.skip("the kernel does not tell of children")
        pid = children.read_text().strip()
        path, _ = reading.find(pid)
        assert path.endswith("/1.sock")
        assert "process 1," in top(pid)


def test_without_a_name_the_only_process_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(
        reading, "_own_pids", lambda: iter([os.getpid(), *pids])
    )
    pids = []
    with pytest.raises(Refused, match="no process of this user shows"):
        reading.find(None)
    with shown(TMPDIR=str(tmp_path)) as (pid, _):
        pids.append(pid)
        assert reading.find(None)[1] == pid
        with shown(TMPDIR=str(tmp_path)) as (other, _):
            pids.append(other)
            first, second = sorted(pids)
            says = f"processes show their metrics; name one: {first} {second}$"
            with pytest.raises(Refused, match=says):
                reading.find(None)


def test_a_name_that_is_no_socket_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    for name in ("abc", "file", str(tmp_path)):
        sentence = f"fastloop: {name} is neither a pid nor a socket\n"
        assert top(name, status=2) == sentence


@pytest.mark.parametrize(("user", "hint"), [(0, ""), (1, "run top as root, ")])
def test_root_gets_no_advice_to_be_root(monkeypatch, user, hint):
    def refuse(process):
        raise PermissionError

    monkeypatch.setattr(reading, "_places", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    hint += "or name the" if hint else "name the"
    with pytest.raises(Refused, match=f"look at its files: {hint} path"):
        reading.find(str(os.getpid()))


def test_a_socket_of_another_process_is_not_trusted(tmp_path):
    """Anybody may make one with the right name in a shared folder."""
    with shown(TMPDIR=str(tmp_path)) as (pid, folder):
        path, _ = reading.find(str(pid))
        os.unlink(path)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
            sock.listen()
            assert f"{path}: a process other than {pid}" in top(
                str(pid), status=2
            )
        os.unlink(path)
        Path(path).touch()
        assert f"{path} is not a socket of" in top(str(pid), status=2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_socket_of_another_user_is_not_trusted(tmp_path):
    """A file's owner is looked at before anything connects to it."""
    with shown(TMPDIR=str(tmp_path)) as (pid, folder):
        path, _ = reading.find(str(pid))
        os.chown(path, 12345, -1)
        assert f"{path} is not a socket of" in top(str(pid), status=2)


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
        path = f"{folder}/{metrics_socket.socket_name(pid, os.geteuid())}"
        assert f"process {pid}" in top(path, prefix=prefix)


def test_the_socket_of_a_parent_is_not_its_childs(tmp_path):
    """A child has the environment that names the parent's socket."""
    path = str(tmp_path / "parent.sock")
    with shown(FASTLOOP_METRICS_SOCKET=path, socket="None") as (pid, _):
        assert reading.find(str(pid)) == (path, pid)
        assert f"process {pid}" in top(str(pid))
        with subprocess.Popen(
            ["sh", "-c", "echo ready; read _"],
            env={**os.environ, "FASTLOOP_METRICS_SOCKET": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as child:
            assert child.stdout.readline() == b"ready\n"
            assert f"a process other than {child.pid} listens" in top(
                str(child.pid), status=2
            )
