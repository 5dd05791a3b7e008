"""What analyzers find: clang-tidy in the C, stubtest in the stubs."""

import sys

import pytest

from .conftest import c_files, short
from .test_compile import BUILDS, FLAGS, libuv_flags


@pytest.mark.parametrize("path", c_files(".c"), ids=short)
def test_clang_tidy(tool, path):
    flags = [*FLAGS, *BUILDS["debug"], *libuv_flags()]
    done = tool(["clang-tidy", "--quiet", str(path), "--", *flags])
    assert done.returncode == 0, done.stdout


def test_the_stub_says_what_is_built(built, tool, tmp_path):
    # Whether the package's own Python is typed well is not asked here.
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nignore_errors = True\n")
    command = [sys.executable, "-m", "mypy.stubtest", "--concise"]
    command += ["--mypy-config-file", str(config), "fastloop._core"]
    done = tool(command)
    assert done.returncode == 0, done.stdout + done.stderr
