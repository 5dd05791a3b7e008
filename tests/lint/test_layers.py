"""The folders of src/ are layers: nothing includes upwards, or in a circle."""

import re
from pathlib import Path

import pytest

from .c_text import includes, read, without_comments
from .conftest import LAYERS, SRC, c_files, short

CALL = re.compile(r"\bfl_\w+(?=\()")
POLLER = re.compile(r"\buv_(?:poll|timer|async)_\w+\(")


def layer(path: Path) -> str:
    parts = path.relative_to(SRC).parts
    return parts[0] if len(parts) > 1 else ""


def our_includes(path: Path) -> list[Path]:
    return [SRC / name for ours, name in includes(read(path)) if ours]


def test_every_folder_is_a_layer():
    assert {layer(path) for path in c_files()} <= set(LAYERS)


@pytest.mark.parametrize("path", c_files(), ids=short)
def test_includes_point_downwards(path):
    rank = LAYERS.index(layer(path))
    for target in our_includes(path):
        assert target.is_file(), f"{target.name}: name it from src/"
        assert LAYERS.index(layer(target)) <= rank, (
            f"{short(path)} includes {short(target)}, of a higher layer"
        )


def test_no_include_cycles():
    graph = {path: our_includes(path) for path in c_files()}
    done: set[Path] = set()

    def visit(path: Path, trail: tuple[Path, ...]) -> None:
        assert path not in trail, " -> ".join(map(short, (*trail, path)))
        if path not in done:
            for target in graph.get(path, []):
                visit(target, (*trail, path))
            done.add(path)

    for path in graph:
        visit(path, ())


def test_no_files_call_in_a_circle():
    """A .c counts with its .h."""
    text: dict[str, str] = {}
    for path in c_files():
        stem = str(path.relative_to(SRC).with_suffix(""))
        text[stem] = text.get(stem, "") + without_comments(read(path))
    home = {
        name: stem
        for stem, code in text.items()
        for name in re.findall(r"^(fl_\w+)\([^;{]*\)\s*\{", code, re.M)
    }
    assert home["fl_loop_flush_corked"] == "core/flush"
    below = {
        stem: {home.get(name, stem) for name in CALL.findall(code)} - {stem}
        for stem, code in text.items()
    }
    while below:
        bottom = [
            name for name, uses in below.items() if not uses & below.keys()
        ]
        assert bottom, f"a circle: {sorted(below)}"
        for name in bottom:
            del below[name]


def test_the_map_names_each_file():
    """In the list of src/README.md, by its folder; a header by its .c."""
    folder, named = "", {"/module"}
    for line in read(SRC / "README.md").split("```")[1].splitlines():
        if head := re.match(r"(\w+)/ ", line):
            folder = head[1]
        elif entry := re.match(r"  (\w+)[.][ch] ", line):
            named.add(f"{folder}/{entry[1]}")
    assert named == {f"{layer(path)}/{path.stem}" for path in c_files()}


def test_base_is_plain_c():
    for path in c_files():
        if layer(path) == "base":
            names = {name for _, name in includes(read(path))}
            assert not names & {"Python.h", "uv.h"}, short(path)


def test_waiting_goes_through_the_poller():
    for path in c_files():
        if path.stem != "poller_uv":
            found = POLLER.findall(without_comments(read(path)))
            assert not found, f"{short(path)} calls {found[0]}...)"


@pytest.mark.parametrize("path", c_files(".c"), ids=short)
def test_each_source_has_a_header(path):
    name = re.sub(r"^(poller|datagram)_\w+", r"\1", path.name)  # share it
    if name != "module.c":
        assert path.with_name(name).with_suffix(".h").is_file()
