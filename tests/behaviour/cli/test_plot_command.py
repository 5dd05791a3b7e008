"""`python -m fastloop plot`: what it draws, and which files it refuses."""

from __future__ import annotations

import copy
import json

import pytest

from fastloop.cli import Refused
from fastloop.cli.page import write_page
from fastloop.cli.result import Result

for library in ("matplotlib", "psutil", "pyperf"):
    pytest.importorskip(library, reason=f"{library} is not installed")

SHORT = ("--quiet", "--runs", "2", "--loops", "asyncio,fastloop")
PROGRAM = "import asyncio; asyncio.run(asyncio.sleep(0))"
WRONG = "is not what fastloop bench --json wrote: "
UNITS = {"time": "s", "cpu": "s", "memory": "MiB"}
FOUND = {
    "format": 1,
    "kind": "program",
    "what": "prog.py",
    "loops": ["asyncio", "fastloop"],
    "metrics": [
        {"key": key, "title": key, "unit": unit, "better": "less"}
        for key, unit in UNITS.items()
    ],
    "runs": {
        "asyncio": [{"time": 2.0, "cpu": 1.0, "memory": 20.0}],
        "fastloop": [{"time": 1.0, "cpu": 0.0, "memory": 20.0}],
    },
    "share": None,
    "untaken": [],
    "notes": [],
    "cut": None,
    "settings": {"command": "python -m fastloop bench prog.py"},
    "machine": {"python": "3.11.2 (cpython)", "cpu": "x", "date": "today"},
    "method": [],
}


@pytest.mark.parametrize("name", ["chart.svg", "chart.png", "page.html"])
def test_plot_draws_what_was_kept(fastloop_command, name):
    fastloop_command("bench", *SHORT, "--json", "found.json", "-c", PROGRAM)
    fastloop_command("plot", "found.json", "-o", name)
    drawn = (fastloop_command.folder / name).read_bytes()
    if name.endswith(".png"):
        assert drawn.startswith(b"\x89PNG")
        return
    text = drawn.decode()
    assert "prefers-color-scheme: dark" in text
    if name.endswith(".html"):
        assert "<tr><th></th><th>asyncio</th><th>fastloop</th>" in text
    assert text.count("<svg") == (1 if name.endswith(".svg") else 4)
    for outside in ("http://127", "https://", "<script", "<link"):
        assert outside not in text.replace("https://matplotlib", "")


def test_one_round_is_drawn_without_a_warning(fastloop_command):
    """There is nothing to compare, and so no interval."""
    fastloop_command.write("found.json", json.dumps({"fastloop": FOUND}))
    done = fastloop_command("plot", "found.json", "-o", "page.html")
    assert done.stderr == ""


def test_figures_of_nothing_are_drawn_without_a_warning(tmp_path):
    """The clock of CPU time may be too coarse for a short program."""
    found = changed(("runs", "asyncio", 0, "cpu"), 0)
    write_page(Result(found), str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").exists()


def test_plot_refuses_what_bench_did_not_write(fastloop_command):
    assert "cannot read" in fastloop_command.refused("plot", "none.json")
    fastloop_command.write("other.json", "{}")
    said = fastloop_command.refused("plot", "other.json")
    assert said == f"other.json {WRONG}it has no figures of bench"
    edited = changed(("metrics", 1), None)
    fastloop_command.write("edited.json", json.dumps({"fastloop": edited}))
    said = fastloop_command.refused("plot", "edited.json")
    assert said == (
        f"edited.json {WRONG}metric 2: key is missing or of the wrong type"
    )
    fastloop_command.write("found.json", json.dumps({"fastloop": FOUND}))
    said = fastloop_command.refused("plot", "found.json", "-o", "x.gif")
    assert ".svg, .png and .html" in said


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "it is not JSON"),
        (b"\xff{", "it is not JSON"),
        (b"{'fastloop': 1}", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it has no figures of bench"),
        (b'{"fastloop": []}', "it has no figures of bench"),
        (
            b'{"benchmarks": [{"runs": [{"values": [1.0]}]}], "version": '
            b'"1.0", "metadata": {"name": "of pyperf"}}',
            "it has no figures of bench",
        ),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, text, fault):
    path = tmp_path / "found.json"
    path.write_bytes(text)
    with pytest.raises(Refused, match=WRONG + fault):
        Result.load(str(path))


MISSING = object()


def changed(place, value):
    """Return what bench found with one place set, or taken away."""
    found = copy.deepcopy(FOUND)
    node = found
    for key in place[:-1]:
        node = node[key]
    if value is MISSING:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return found


def places(node, place=()):
    """Every place of what bench found."""
    keys = node if isinstance(node, dict) else ()
    for key in range(len(node)) if isinstance(node, list) else keys:
        yield (*place, key)
        yield from places(node[key], (*place, key))


@pytest.mark.parametrize(
    "value",
    [MISSING, None, "x", "", 3, -1, 1e308, float("nan"), [], {}, [1], True],
    ids=lambda value: "missing" if value is MISSING else repr(value),
)
def test_a_file_edited_by_hand_is_drawn_or_refused(tmp_path, value):
    """Nothing else is raised, wherever the value is."""
    path = tmp_path / "found.json"
    refused = 0
    for place in places(FOUND):
        edited = changed(place, value)
        path.write_text(json.dumps({"fastloop": edited}))
        try:
            result = Result.load(str(path))
        except Refused as exc:
            assert WRONG in str(exc) and "\n" not in str(exc)
            refused += 1
            continue
        result.sentences()
        if len(place) < 3:  # the page takes long
            write_page(result, str(tmp_path / "page.html"))
    assert refused > 8


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("metrics", 1), MISSING, "the metric cpu is not there once"),
        (("metrics", 0, "key"), "x", "the metric time is not there once"),
        (("metrics", 0, "unit"), "h", "metric 1 has an unknown unit"),
        (("runs", "fastloop"), MISSING, "runs: fastloop is missing"),
        (("runs", "asyncio", 0, "time"), MISSING, "run 1 of asyncio: time"),
        (("runs", "asyncio", 0, "cpu"), "1", "run 1 of asyncio: cpu is"),
        (("runs", "asyncio", 0, "cpu"), 1e308, "run 1 of asyncio: cpu is"),
        (("loops", 1), "asyncio", "there is no loop, or one twice"),
        (("share",), 3, "share is missing or of the wrong type"),
    ],
)
def test_what_is_wrong_with_an_edited_file_is_said(
    tmp_path, place, value, fault
):
    path = tmp_path / "found.json"
    path.write_text(json.dumps({"fastloop": changed(place, value)}))
    with pytest.raises(Refused, match=WRONG + fault):
        Result.load(str(path))
