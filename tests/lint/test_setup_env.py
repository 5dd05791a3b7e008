"""A newcomer hears what is missing."""

import os
import shutil
import subprocess
import sys

from .conftest import TOP


def test_all_that_a_new_debian_lacks_is_named_at_once(tmp_path):
    """What needs pkg-config to be seen is named where that is missing too."""
    for name in ("sh", "dirname", "tr", "sort", "cat"):
        os.symlink(shutil.which(name), tmp_path / name)
    for name, text in {"apt-get": "", "id": "echo 1000"}.items():
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
    done = subprocess.run(
        [TOP / "tools/setup-env", "build", "bench", "race", "lint", "fuzz"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    advice = done.stderr.splitlines()[-1]
    assert "as root, type: apt-get update && apt-get install" in advice
    wanted = """gcc libc6-dev libssl-dev libuv1-dev pkg-config python3
    python3-dev python3-venv postgresql redis-server strace valgrind clang
    clang-format clang-tidy libclang-rt-dev"""
    assert set(wanted.split()) <= set(advice.split())


def test_a_copy_of_the_tests_alone_says_what_it_needs(tmp_path):
    for name in ("conftest.py", "builds.py", "patience.py"):
        shutil.copy(TOP / "tests" / name, tmp_path)
    (tmp_path / "test_any.py").write_text("def test_any(loop):\n    pass\n")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stderr.startswith("ERROR: tests/ does not run alone")
    assert "Traceback" not in done.stdout + done.stderr
