"""The fixture that runs commands in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_helpers import Commands


@pytest.fixture
def fastloop_command(tmp_path: Path) -> Commands:
    """Return what runs `python -m fastloop` in a folder of its own."""
    return Commands(tmp_path)
