"""``top``: how it finds the socket of a process, and what it shows."""

import asyncio
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from builds import HAS_GIL
from patience import PATIENCE

import fastloop
from fastloop import cli
from fastloop.cli import top as module
from fastloop.cli.top import _text, read
from fastloop.metrics import LoopMetrics
from fastloop.observe import metrics_socket
from fastloop.observe.metrics_socket import describe_loop

pytestmark = pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)


@pytest.fixture
def shown(loop, path):
    """Return the path of the socket on which ``loop`` is shown."""
    loop.enable_metrics(socket=True)
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
        code, out, err = top(str(os.getpid()), "--json")
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
    first, later = read(shown), read(shown)
    assert _text(later, first) != _text(later, None)
    # Another loop has the name by now.
    assert _text(first, later) == _text(first, None)


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
        env={
            **os.environ,
            "FASTLOOP_METRICS_SOCKET": "1",
            "TMPDIR": str(Path(path).parent.parent),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "now\n"
    out = ""
    while "blocked in:" not in out and process.poll() is None:
        code, out, err = top(str(process.pid), "--once")
        assert (code, err) == (0, "")
    process.communicate(timeout=PATIENCE)
    assert ("/prog.py:2 block" if HAS_GIL else "without a GIL") in out
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


def test_large_figures_and_lines_of_code_fit_80_columns(loop):
    """A line is what a slow or blocked callback is looked up by."""
    loop.enable_metrics()
    one = {"name": "main", **json.loads(json.dumps(describe_loop(loop)))}
    for key, value in one["metrics"].items():
        if isinstance(value, int):
            large = 123_456_789_000 if key.endswith("_ns") else 1_234_567
            one["metrics"][key] = large + value
    one["metrics"] = LoopMetrics.from_dict(one["metrics"])
    about = {"pid": 1234567, "python": "3.14.0", "fastloop": "0.1.0"}
    found = {"program": "serve.py", **about, "loops": [one]}
    text = _text(found, None)
    assert [row for row in text.split("\n") if row[80:]] == []
    assert "e+" not in text

    path = f"/srv/{'a-long-folder/' * 6}app.py"
    slow = {"name": "Server.handle", "duration_ns": 123_456_789}
    blocked = slow | {"gc_time_ns": 1, "stack": [f"{path}:19 handle"]}
    one["blocked_in"] = [f"{path}:17 work"]
    one["slow"] = [slow | {"stack": [f"{path}:18 handle"]}]
    one["blocked"] = [blocked]
    text = _text(found, None)
    for said in ("17 work", "18 handle: 123 ms, Server", "19 handle: 123 ms"):
        assert f"/app.py:{said}" in text
    assert [row for row in text.split("\n")[1:] if row[80:]] == []


# -- again and again ----------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_top_goes_on_until_ctrl_c(shown, terminal):
    """Without a traceback."""
    code = (
        "import sys\n"
        "from fastloop.cli import main\n"
        f"sys.exit(main(['top', {shown!r}]))"
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
    assert (process.returncode, err) == (130, b"fastloop: stopped\n")


def test_the_end_of_the_process_is_a_one_line_error(shown, top, monkeypatch):
    stops = SimpleNamespace(
        sleep=lambda seconds: metrics_socket.stop(), monotonic_ns=int
    )
    monkeypatch.setattr(module, "time", stops)
    code, out, err = top(shown)
    assert code == 2
    assert "utilization" in out
    assert err == f"fastloop: {shown}: No such file or directory\n"


# -- what it refuses ----------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("4194305", "with FASTLOOP_METRICS_SOCKET=1, or name the path"),
        ("4194305", f"fastloop-{os.geteuid()}/4194305.sock: start process"),
        ("/none", "/none: No such file"),
    ],
)
def test_a_refusal_is_one_line(loop_kind, top, target, text):
    code, out, err = top(target, "--once")
    assert (code, out) == (2, "")
    assert err.startswith("fastloop: ") and text in err


@pytest.mark.skipif(os.getuid() != 0, reason="cannot give a folder away")
def test_a_socket_in_another_users_folder_is_not_read(shown, top):
    os.chown(os.path.dirname(shown), 12345, -1)
    code, out, err = top(str(os.getpid()), "--once")
    assert (code, out) == (2, "")
    assert err.startswith("fastloop: there is no ")


NONE = f"no metrics of fastloop {fastloop.__version__}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"loops": [{"metrics": {}}]}', NONE),
        (b"220 hello\r\n", NONE),
        (b"[]", NONE),
        (None, "no answer in 0.2 s: the process is stopped, or C code holds"),
    ],
)
def test_another_answer_is_a_sentence(
    loop_kind, tmp_path, top, in_thread, monkeypatch, text, says
):
    path = str(tmp_path / "x.sock")
    monkeypatch.setattr(module, "_TIMEOUT_S", PATIENCE if text else 0.2)
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
