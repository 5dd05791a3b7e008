"""What the lint tests share: the tree, and the tools that look at it.

A tool that is missing is a skip for a newcomer and a failure where
FASTLOOP_LINT_STRICT=1 says that all tools must be there (`make lint`, CI).
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
SRC = TOP / "src"
#: Layers of src/, lowest first; a file includes its own and lower ones only.
LAYERS = (
    "base",
    "py",
    "core",
    "loop",
    "transport",
    "tls",
    "streams",
    "sock",
    "executor",
    "compat",
    "",
)

Tool = Callable[..., "subprocess.CompletedProcess[str]"]


def c_files(*suffixes: str) -> list[Path]:
    """The C files under src/, so that a test never passes on none."""
    wanted = suffixes or (".c", ".h")
    found = sorted(p for p in SRC.rglob("*") if p.suffix in wanted)
    assert found, f"no {wanted} files under {SRC}"
    return found


def short(path: Path) -> str:
    """PATH as the failure message should name it."""
    return str(path.relative_to(TOP))


@pytest.fixture(scope="session")
def tool() -> Tool:
    """Runs a command of the system and gives what it printed."""

    def run(
        command: Sequence[str], text: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        if shutil.which(command[0]) is None:
            message = f"{command[0]} is not installed"
            if os.environ.get("FASTLOOP_LINT_STRICT"):
                pytest.fail(message)
            pytest.skip(message)
        return subprocess.run(
            command, input=text, capture_output=True, text=True, cwd=TOP
        )

    return run


@pytest.fixture(scope="session")
def built() -> Path:
    """The built extension module's file."""
    core = pytest.importorskip(
        "fastloop._core",
        reason="the extension is not built",
        exc_type=ImportError,
    )
    return Path(core.__file__)
