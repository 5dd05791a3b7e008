"""What the commands print fits the 80 columns of a terminal."""

import pytest

from fastloop.cli import COMMANDS, bench
from fastloop.cli.commands import wrapped
from fastloop.cli.result import Result

COLUMNS = 80


def wide(text):
    """Return the lines that do not fit."""
    return [line for line in text.splitlines() if len(line) > COLUMNS]


@pytest.mark.parametrize(
    "words",
    [["info"], ["--help"], *([one, "--help"] for one in COMMANDS)],
    ids=" ".join,
)
def test_what_a_command_prints_fits(fastloop_command, monkeypatch, words):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    done = fastloop_command(*words, status=None)
    assert wide(done.stdout) == []
    named = COMMANDS if words == ["--help"] else words[:1]
    assert all(name in done.stdout for name in named if "-h" in words[-1])


def test_what_is_to_be_copied_stays_in_one_line():
    text = f"{'word ' * 14}`python -m fastloop run` and {'x' * 90}"
    lines = wrapped(text).split("\n")
    assert lines[1:] == ["`python -m fastloop run` and", "x" * 90]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_a_table_of_bench_fits(capsys, count):
    """Columns that do not fit are below, with the names of the rows again."""
    labels = ["asyncio", "fastloop", "uvloop", "zuvloop", "rloop", "rsloop"]
    labels = labels[:count]
    run = {"rate": 12_345.6, "cpu": 123.4, "memory": 123.4}
    runs = {
        label: [
            {key: value * (1 + (n + place) % 3) for key, value in run.items()}
            for n in range(8)
        ]
        for place, label in enumerate(labels)
    }
    found = {
        "what": "-c " + "import asyncio; " * 9,
        "kind": "http",
        "loops": labels,
        "runs": runs,
        "metrics": [
            {"key": key, "title": title, "unit": unit, "better": "less"}
            for key, title, unit in (
                ("rate", "requests a second", ""),
                ("cpu", "CPU a request", "µs"),
                ("memory", "peak memory", "MiB"),
            )
        ],
        "untaken": [],
        "notes": [],
        "cut": None,
    }
    bench._print(Result(found))
    out = capsys.readouterr().out
    assert wide(out) == []
    for base in labels:
        assert base == "fastloop" or out.count(f"vs {base}") == 1
