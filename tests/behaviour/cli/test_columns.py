"""What the commands print fits the 80 columns of a terminal."""

import pytest

from fastloop import cli
from fastloop.cli import COMMANDS
from fastloop.cli.commands import wrapped

COLUMNS = 80


def wide(text):
    """Return the lines that do not fit, and are more than a path."""
    lines = [line for line in text.splitlines() if " " in line]
    return [line for line in lines if len(line) > COLUMNS]


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


@pytest.mark.parametrize(
    ("folder", "last"), [("docs", "Read README.md and docs/ in"), ("", "")]
)
def test_help_names_the_pages_that_are_there(
    monkeypatch, tmp_path, capsys, folder, last
):
    monkeypatch.setattr(cli, "HOME", tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "reference.md").touch()
    cli.main(["--help"])
    found = capsys.readouterr().out.partition("explains each.")[2]
    assert " ".join(found.split()) == (last and f"{last} {tmp_path}.")


def test_what_is_to_be_copied_stays_in_one_line():
    text = f"{'word ' * 14}`python -m fastloop run` and {'x' * 90}"
    lines = wrapped(text).split("\n")
    assert lines[1:] == ["`python -m fastloop run` and", "x" * 90]
