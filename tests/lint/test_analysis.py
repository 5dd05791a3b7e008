"""What clang-tidy finds in the C."""

import pytest

from .conftest import c_files, short
from .test_compile import BUILDS, FLAGS, libuv_flags


@pytest.mark.parametrize("path", c_files(".c"), ids=short)
def test_clang_tidy(tool, path):
    flags = [*FLAGS, *BUILDS["debug"], *libuv_flags()]
    done = tool(["clang-tidy", "--quiet", str(path), "--", *flags])
    assert done.returncode == 0, done.stdout
