"""Layout is the formatters' business; here they are only asked."""

import sys
from concurrent.futures import ThreadPoolExecutor

from .conftest import TOP, c_files, short

PYTHON_PARTS = [
    name
    for name in (
        "fastloop",
        "tests",
        "benchmarks",
        "tools",
        ".ci",
        "noxfile.py",
        "setup.py",
    )
    if (TOP / name).exists()
]


def test_clang_format(tool):
    done = tool(["clang-format", "--dry-run", "-Werror", *map(str, c_files())])
    assert done.returncode == 0, done.stderr[:4000]


def test_ruff_format(tool):
    done = tool(
        [sys.executable, "-m", "ruff", "format", "--check", *PYTHON_PARTS]
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_check(tool):
    done = tool([sys.executable, "-m", "ruff", "check", "-q", *PYTHON_PARTS])
    assert done.returncode == 0, done.stdout + done.stderr


def test_shell_scripts_parse(tool):
    scripts = [
        path
        for folder in ("tools", ".ci", "benchmarks", "tests")
        for path in (TOP / folder).rglob("*")
        if path.is_file() and path.read_bytes()[:2] == b"#!"
    ]
    assert scripts
    shells = [
        (path, line.split("/")[-1].split()[-1])
        for path in scripts
        for line in [path.read_text(encoding="utf-8").split("\n")[0]]
        if line.endswith("sh")
    ]
    with ThreadPoolExecutor() as pool:
        jobs = [
            (path, pool.submit(tool, [shell, "-n", str(path)]))
            for path, shell in shells
        ]
    bad = [short(path) for path, job in jobs if job.result().returncode]
    assert not bad
