"""What the sources and the built module may name: CPython and globals."""

import re

import pytest

from .c_text import read, without_comments
from .conftest import c_files, short

PRIVATE = re.compile(r"\b_Py[A-Z_]\w*|\bpycore_\w+")
#: _PyBytes_Resize is documented and has no public twin; the two casts are
#: what CPython's documentation of METH_FASTCALL uses.
DOCUMENTED = {"_PyBytes_Resize", "_PyCFunction_CAST", "_PyCFunctionFast"}
#: What 3.13 made public was called so in 3.12; the one place for that.
BEFORE_3_13 = {"_PyObject_ClearManagedDict", "_PyObject_VisitManagedDict"}

#: Looks a name up that is made for the occasion.
BY_TEXT = re.compile(r"PyObject_(CallMethod|\w+AttrString)\(")
#: A function's name is in the first column, as PEP 7 wants it.
DEFINITION = re.compile(r"^(\w+)\(", re.M)
#: Functions that run once an interpreter, where that is shorter.
RUN_ONCE = re.compile(
    r"fl_\w+_register|import_\w+|find_c_kwnames|module_exec|check_layout"
    r"|add_\w+"
)

#: Tables that CPython declares without const and never writes, and what the
#: C run-time adds to every module.
TABLES = re.compile(
    r"(^|_)(methods|functions|members|getset|getsets|slots|spec|module|moduledef|def"
    r"|kwlist|kwnames|keywords|parser|procs)(\.\d+|\.lto_priv\.\d+)*$"
)
RUNTIME = {
    "_DYNAMIC",
    "_GLOBAL_OFFSET_TABLE_",
    "__TMC_END__",
    "__dso_handle",
    "__bss_start",
    "_edata",
    "_end",
    "completed.0",
}


#: A fork concerns the whole process, and so does their count.
PROCESS = {
    "fl_forks",
    "forks_code",
    "forks_once",
    "bio_method",
    "libssl",
    "library_lock",
    "library_searched",
    "last_ssl",
    # So is what the system has.
    "fl_clock_has_ticks",
    "has_pwait2",
    # And the one thread of the process that sends corked writes.
    "fl_sender_idle",
    "sender",
    "sender_once",
}


@pytest.mark.parametrize("path", c_files(), ids=short)
def test_no_private_api(path):
    used = set(PRIVATE.findall(without_comments(read(path), strings=True)))
    if short(path) == "src/py/compat.h":
        used -= BEFORE_3_13
    assert not used - DOCUMENTED


@pytest.mark.parametrize("path", c_files(), ids=short)
def test_names_are_interned(path):
    """CPython's type cache keeps each name it sees, and one slot for each.

    A string made anew for every look-up pushes real names out of it, and is
    growth in the search for leaks.
    """
    text = without_comments(read(path))
    for found in BY_TEXT.finditer(text):
        function = DEFINITION.findall(text, 0, found.start())[-1]
        assert RUN_ONCE.fullmatch(function)


def test_no_writable_globals(built, tool):
    done = tool(["nm", "--defined-only", str(built)])
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert any(row[-1] == "PyInit__core" for row in rows), "no symbols"
    writable = {name for _, kind, name in rows if kind in "bBdDcCsSgG"}
    state = {n for n in writable - RUNTIME - PROCESS if not TABLES.search(n)}
    const = without_relocated_constants(state, built, tool)
    assert not const, "state belongs to the module, a loop or an object"


def without_relocated_constants(names, built, tool):
    """NAMES less those in sections the loader makes read-only."""
    done = tool(["readelf", "-W", "-S", "-s", str(built)])
    section = dict(re.findall(r"\[ *(\d+)\] (\.\S+)", done.stdout))
    kept = set()
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) == 8 and words[7] in names:
            place = section.get(words[6], "")
            if place not in (".data.rel.ro", ".init_array", ".fini_array"):
                kept.add(words[7])
    return kept


def test_only_the_entry_point_is_exported(built, tool):
    done = tool(["nm", "-D", "--defined-only", str(built)])
    names = {line.split()[-1] for line in done.stdout.splitlines()}
    assert names - {"_init", "_fini"} == {"PyInit__core"}


def test_hardened(built, tool):
    done = tool(["readelf", "-W", "-l", "-d", str(built)])
    assert "GNU_RELRO" in done.stdout
    assert "BIND_NOW" in done.stdout
