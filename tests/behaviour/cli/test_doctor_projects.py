"""`doctor` on small projects: it misses nothing and gives no false alarm."""

from __future__ import annotations

from pathlib import Path

import pytest
from doctor_projects import CLASHES, FINE, HERE

from fastloop.cli import doctor_rules
from fastloop.cli.doctor_files import Program


@pytest.fixture
def installed(monkeypatch):
    """installed(*names) makes these the packages that are installed."""

    def install(*names):
        found = {*names, "aiohttp"}
        monkeypatch.setattr(
            doctor_rules, "find_spec", lambda name: name in found or None
        )
        monkeypatch.setattr(doctor_rules, "version", lambda name: "3.15.0")

    return install


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """judged(files) writes a project; returns what is wrong in it."""

    def judged(files):
        for name, text in files.items():
            path = Path(tmp_path, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.chdir(tmp_path)
        found = Program(Path()).findings([])
        assert not [one.what for one in found if ": not read" in one.what]
        return [one for one in found if one.level == "wrong"]

    return judged


ALL = ("uvloop", "rloop", "aiofastnet")


@pytest.mark.parametrize("here", [(), ALL], ids=["none", "all"])
@pytest.mark.parametrize("name", CLASHES)
def test_a_clash_is_found_once_with_its_place(installed, judged, name, here):
    installed(*here)
    files, place, starts = CLASHES[name]
    found = [one for one in judged(files) if "installed here" not in one.what]
    assert [one.what.partition(": ")[0] for one in found] == [place]
    assert found[0].what.startswith(f"{place}: {starts}")
    assert found[0].fix
    assert "{}" not in found[0].fix


@pytest.mark.parametrize("name", HERE)
def test_a_default_clashes_where_the_package_is_installed(
    installed, judged, name
):
    package, files, place, starts = HERE[name]
    installed(package)
    (found,) = judged(files)
    assert found.what.startswith(f"{place}: {starts}")
    assert found.fix
    installed()
    assert judged(files) == []


@pytest.mark.parametrize("here", [(), ALL], ids=["none", "all"])
@pytest.mark.parametrize("name", FINE)
def test_what_looks_like_a_clash_is_fine(installed, judged, name, here):
    installed(*here)
    assert [one.what for one in judged(FINE[name])] == []


def test_a_guard_that_ends_the_program_hides_no_loop(
    installed, tmp_path, monkeypatch
):
    installed()
    (tmp_path / "app.py").write_text(
        "try:\n    import uvloop\nexcept ImportError as exc:\n"
        "    raise SystemExit('pip install uvloop') from exc\n"
        "uvloop.install()\n"
    )
    monkeypatch.chdir(tmp_path)
    (note,) = Program(Path()).findings([])
    assert note.what == (
        "app.py:5: uvloop.install() picks uvloop where that is installed"
    )
    assert note.level == "note"
    assert note.fix


def test_aiohttp_takes_aiofastnet_from_3_15_on(installed, judged, monkeypatch):
    installed("aiofastnet")
    files = HERE["aiohttp on aiofastnet"][1]
    assert len(judged(files)) == 1
    monkeypatch.setattr(doctor_rules, "version", lambda name: "3.14.5")
    assert judged(files) == []
