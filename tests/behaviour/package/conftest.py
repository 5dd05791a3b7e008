"""The fixture of a socket that shows metrics."""

import pytest

from fastloop.observe import metrics_socket


@pytest.fixture
def path(tmp_path):
    """Return the path for a socket."""
    yield str(tmp_path / "loops.sock")
    metrics_socket._stop_all()
