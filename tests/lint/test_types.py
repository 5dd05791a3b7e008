"""The package's Python has types, and _core.pyi says what is built.

mypy reads them for each Python that fastloop is for; stubtest compares the
stub with the module that this interpreter has.
"""

import sys

import pytest


@pytest.fixture
def module(tool):
    """Return a function that runs a module of the lint environment."""

    def run(name, *arguments):
        found = tool([sys.executable, "-c", "import mypy"])
        command = [sys.executable, "-m", name, *arguments]
        return tool(command if found.returncode == 0 else ["mypy"])

    return run


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14", "3.15"])
def test_mypy(module, version):
    done = module("mypy", "--strict", "--python-version", version, "fastloop")
    assert done.returncode == 0, done.stdout + done.stderr


def test_stubtest(module, built, tmp_path):
    """The libraries of the command line need not be installed."""
    config = tmp_path / "mypy.ini"
    config.write_text(
        "[mypy]\nignore_missing_imports = true\n"
        "[mypy-matplotlib.*,psutil.*]\n"
        "ignore_missing_imports = true\nfollow_imports = skip\n"
    )
    done = module(
        *("mypy.stubtest", "--concise"),
        *("--mypy-config-file", str(config), "fastloop"),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_unknown_name_of_the_package_is_an_error(module, tmp_path):
    program = tmp_path / "program.py"
    lines = ["import fastloop", "fastloop.run", "fastloop.nope"]
    program.write_text("\n".join(lines), encoding="utf-8")
    done = module("mypy", str(program))
    assert 'Module has no attribute "nope"' in done.stdout, done.stdout
    assert "Found 1 error" in done.stdout
