"""What clang-tidy finds in the C.

It takes seconds a file, so a file that it found nothing in is remembered, by
all that clang-tidy would see: its text with the headers in it, the flags, the
configuration and the program.
"""

import hashlib
import os
from pathlib import Path

import pytest

from .conftest import TOP, c_files, short
from .test_compile import FLAGS, libuv_flags

CACHE = Path(
    os.environ.get("FASTLOOP_CACHE") or Path.home() / ".cache" / "fastloop"
)


def fingerprint(tool, path, flags):
    """Return a name for all that the analysis of one file depends on."""
    seen = tool(["clang", "-E", "-C", "-P", str(path), *flags])
    assert seen.returncode == 0, seen.stderr
    version = tool(["clang-tidy", "--version"]).stdout
    config = (TOP / ".clang-tidy").read_text()
    parts = repr([short(path), version, config, flags, seen.stdout])
    return hashlib.sha256(parts.replace(str(TOP), "").encode()).hexdigest()


@pytest.mark.parametrize("path", c_files(".c"), ids=short)
def test_clang_tidy(tool, path):
    flags = [*FLAGS, *libuv_flags()]
    clean = CACHE / "clang-tidy" / fingerprint(tool, path, flags)
    if clean.exists():
        return
    done = tool(["clang-tidy", "--quiet", str(path), "--", *flags])
    assert done.returncode == 0, done.stdout
    clean.parent.mkdir(parents=True, exist_ok=True)
    clean.touch()
