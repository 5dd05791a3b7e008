"""``top``: how it finds the socket of a process, and what it shows."""

import asyncio
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from builds import HAS_GIL
from patience import PATIENCE

import fastloop
from fastloop import cli
from fastloop.metrics import LoopMetrics
from fastloop.observe import metrics_socket, reading
from fastloop.observe.metrics_socket import describe_loop
from fastloop.observe.top import _fitted, _text

pytestmark = pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)


@pytest.fixture
def shown(loop, path):
    """Return the path of the socket on which ``loop`` is shown."""
    loop.enable_metrics(socket=path)
    return path


@pytest.fixture
def top(capsys):
    """Return a function that runs top and returns code, output and errors.

    A sentence on stderr has one line, however it was wrapped.
    """

    def top(*arguments):
        code = cli.main(["top", *arguments])
        out, err = capsys.readouterr()
        return code, out, re.sub(r"\n(?=.)", " ", err)

    return top


# -- what it shows ------------------------------------------------------------


async def test_once_as_json(shown, top):
    metrics = {"sleep_time_ns": 0}
    while metrics["sleep_time_ns"] == 0:  # as on a machine that is busy
        await asyncio.sleep(0.01)
        code, out, err = top(shown, "--once", "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        metrics = found["loops"][0]["metrics"]
    assert found["pid"] == os.getpid()
    assert found["loops"][0]["running"] is True
    assert 0 < metrics["utilization"] < 1


async def test_once_as_text(shown, top):
    await asyncio.sleep(0.01)
    code, out, err = top(shown, "--once")
    assert (code, err) == (0, "")
    for name in ("utilization", "lag", "connections", "executor", "slow"):
        assert name in out
    assert re.search(r"in [\d.]+ [kMG]?B/s, out [\d.]+ [kMG]?B/s", out)
    assert "period  since metrics were enabled" in out
    first, later = reading.read(shown), reading.read(shown)
    assert "period  the last " in _text(later, first)
    # Another process has taken over the path: also one with the same pid, in
    # another container.
    since_start = _text(first, None)
    assert _text(first, {**later, "pid": 1}) == since_start
    assert _text(first, later) == since_start


def test_the_lines_of_a_blocked_callback_are_shown(
    loop_kind, path, top, tmp_path
):
    """Not those of the loop and of the command that run it."""
    file = tmp_path / "prog.py"
    file.write_text(
        "import asyncio, sys\n"
        "async def block(): print('now', flush=True); sys.stdin.read()\n"
        "asyncio.run(block())\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "fastloop", "run", str(file)],
        env={**os.environ, "FASTLOOP_METRICS_SOCKET": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "now\n"
    out = ""
    while "blocked in:" not in out and process.poll() is None:
        code, out, err = top(path, "--once")
        assert (code, err) == (0, "")
    process.communicate(timeout=PATIENCE)
    assert (f"{file}:2 block" if HAS_GIL else "without a GIL") in out
    assert "run_forever" not in out and "fastloop/cli" not in out


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (os.fsdecode(b"\xff.py"), "\\udcff.py, process"),
        ("\x1b]0;title\x07.py", "\\x1b]0;title\\x07.py, process"),
    ],
    ids=ascii,
)
def test_what_a_terminal_cannot_show_or_would_obey_is_escaped(
    shown, top, monkeypatch, name, text
):
    monkeypatch.setattr(sys, "argv", [name])
    code, out, err = top(shown, "--once")
    assert (code, err) == (0, "")
    assert out.startswith(text)


def test_a_text_is_cut_to_the_terminal(loop_kind):
    text = "  name  value\nshort\nthird\nlast"
    assert _fitted(text, 8, 5) == "  name  \nshort\nthird\nlast"
    assert _fitted(text, 80, 4) == "  name  value\nshort\nand 2 more lines"
    assert _fitted(text, 3, 1) == "and"


def test_large_figures_and_lines_of_code_fit_80_columns(loop):
    """A line is what a slow or blocked callback is looked up by."""
    loop.enable_metrics()
    one = {"number": 0, **json.loads(json.dumps(describe_loop(loop)))}
    for key, value in one["metrics"].items():
        if isinstance(value, int):
            large = 123_456_789_000 if key.endswith("_ns") else 1_234_567
            one["metrics"][key] = large + value
    one["metrics"] = LoopMetrics.from_dict(one["metrics"])
    about = {"pid": 1234567, "python": "3.14.0", "fastloop": "0.1.0"}
    found = {"program": "serve.py", **about, "loops": [one]}
    assert [row for row in _text(found, None).split("\n") if row[80:]] == []

    path = f"/srv/{'a-long-folder/' * 6}app.py"
    slow = {"name": "Server.handle", "duration_ns": 123_456_789}
    blocked = slow | {"gc_time_ns": 1, "stack": [f"{path}:19 handle"]}
    one["blocked_in"] = [f"{path}:17 work"]
    one["slow"] = [slow | {"stack": [f"{path}:18 handle"]}]
    one["blocked"] = [blocked]
    cut = _fitted(_text(found, None, 80), 80, 100)
    for text in ("17 work", "18 handle: 123 ms, Server", "19 handle: 123 ms"):
        assert f"/app.py:{text}" in cut
    piped = _text(found, None)
    assert all(f"{path}:{line} " in piped for line in (17, 18, 19))


# -- again and again ----------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_top_ends_with_ctrl_c(shown, terminal):
    """Without a traceback."""
    code = (
        "import sys\n"
        "from fastloop.cli import main\n"
        f"sys.exit(main(['top', {shown!r}, '--interval', '0.05']))"
    )
    ours, theirs = os.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    with open(ours, encoding="utf-8") as out:
        lines = itertools.takewhile(lambda line: "lag" not in line, out)
        first = "".join(lines) + next(out)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert ("\x1b" in first) == terminal
    assert (process.returncode, err) == (0, b"")


def test_the_end_of_the_process_is_a_one_line_error(shown, top, monkeypatch):
    reads = itertools.count()

    def read(*arguments):
        if next(reads) == 3:
            metrics_socket._stop_all()
        return reading.read(*arguments)

    monkeypatch.setattr("fastloop.observe.top.read", read)
    code, out, err = top(shown, "--interval", "0.02")
    assert code == 2
    assert "utilization" in out
    assert err == f"fastloop: {shown}: No such file or directory\n"


# -- what it refuses ----------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["own"], "has no socket of the usual name: name the path of its"),
        (["/none"], "/none: No such file"),
        (["4194305"], "no process 4194305"),
        ([f"1{'0' * 30}"], "no process 1000"),
        (["own", "--interval", "0"], "--interval is a number"),
        (["own", "--interval", "nan"], "--interval is a number"),
        (["own", "--interval", "inf"], "--interval is a number"),
    ],
    ids=str,
)
def test_a_refusal_is_one_line(loop_kind, top, words, text):
    if words[0] == "own":
        words = [str(os.getpid()), *words[1:]]
    code, out, err = top(*words, "--once")
    assert (code, out) == (2, "")
    assert err.startswith("fastloop: ") and text in err


def test_a_process_that_hides_its_files_is_a_sentence(
    loop_kind, top, monkeypatch
):
    def listdir(path):
        raise PermissionError

    monkeypatch.setattr(reading.os, "listdir", listdir)
    monkeypatch.setattr(reading, "_IS_LINUX", True)
    said = top(str(os.getpid()), "--once")[2]
    assert "does not let this user look at its files: run top as root" in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            b'{"fastloop": "9.9", "loops": [{}]}',
            f"its process has fastloop 9.9, not {fastloop.__version__}",
        ),
        (b"220 hello\r\n", "no metrics of fastloop's"),
        (b"[]", "no metrics of fastloop's"),
        (None, "no answer in 0.2 s: the process is stopped, or C code holds"),
    ],
)
def test_another_answer_is_a_sentence(
    loop_kind, path, top, in_thread, monkeypatch, text, says
):
    monkeypatch.setattr(reading, "_TIMEOUT_S", PATIENCE if text else 0.2)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        sock.listen()

        def answer():
            with sock.accept()[0] as peer:
                peer.sendall(text)

        if text:
            in_thread(answer)
        code, out, err = top(path, "--once")
    assert (code, out) == (2, "")
    assert err.startswith(f"fastloop: {path}: {says}")


# -- processes that see other files, as under systemd and in containers -------

SHOW = """
import sys, fastloop
loop = fastloop.new_event_loop()
loop.enable_metrics(socket=True)
print(flush=True)
sys.stdin.read()
loop.close()
"""
#: A mount that only the command sees, over its temporary folder.
MOUNT = 'mount -t tmpfs none "$TMPDIR" && exec "$0" "$@"'
#: It has another pid, too.
PRIVATE = [
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork"),
    *("sh", "-c", MOUNT),
]


def unshared(folder):
    """Whether this user may have other mounts and pids."""
    return (
        shutil.which("unshare") is not None
        and subprocess.run(
            [*PRIVATE, "true"],
            env=os.environ | {"TMPDIR": folder},
            capture_output=True,
        ).returncode
        == 0
    )


@pytest.mark.skipif(not reading._IS_LINUX, reason="needs Linux's /proc")
def test_a_process_whose_children_have_the_loops_names_them(loop_kind, top):
    process = subprocess.Popen(
        ["sh", "-c", '"$0" -c "$1"; :', sys.executable, SHOW],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"\n"
    said = " ".join(top(str(process.pid), "--once")[2].split())
    worker = said.rpartition(" ")[2]
    found = top(worker, "--once")[1]
    process.communicate(timeout=PATIENCE)
    assert said.endswith(
        f"but those that it started have: name one of {worker}"
    )
    assert f"process {worker}" in found


@pytest.mark.skipif(not reading._IS_LINUX, reason="needs Linux's /proc")
@pytest.mark.parametrize("prefix", [[], PRIVATE], ids=["folder", "container"])
def test_a_process_with_a_temporary_folder_of_its_own_is_found(
    loop_kind, top, prefix
):
    # Short: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        if prefix and not unshared(folder):
            pytest.skip("this user cannot make namespaces")
        process = subprocess.Popen(
            [*prefix, sys.executable, "-c", SHOW],
            env=os.environ | {"TMPDIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"\n"
        pid = str(process.pid)
        if prefix:
            children = f"/proc/{pid}/task/{pid}/children"
            pid = Path(children).read_text().strip()
        found = reading.find(pid), top(pid, "--once")[1]
        process.communicate(timeout=PATIENCE)
    inside = f"/fastloop-{os.geteuid()}/{1 if prefix else pid}.sock"
    where = f"/proc/{pid}/root" if prefix else ""
    assert found[0] == f"{where}{folder}{inside}"
    assert f"process {1 if prefix else pid}" in found[1]
