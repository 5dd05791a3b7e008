"""The fixture of a folder for the socket that shows metrics."""

import os

import pytest

from fastloop.observe import metrics_socket


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Return the path of this process's socket, in a folder of the test's."""
    monkeypatch.setattr(metrics_socket.tempfile, "tempdir", str(tmp_path))
    yield metrics_socket.path_of(os.getpid(), os.geteuid())
    metrics_socket.stop()
