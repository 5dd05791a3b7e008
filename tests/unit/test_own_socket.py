"""The socket object of an accepted connection: fastloop/_core_helpers.py."""

from __future__ import annotations

import socket

import pytest

from fastloop import _core_helpers


def test_an_interrupted_socket_object_leaves_the_fd_to_its_caller(monkeypatch):
    class Interrupted(socket.socket):
        def __init__(self, **words: int) -> None:
            super().__init__(**words)
            raise KeyboardInterrupt

    monkeypatch.setattr(_core_helpers, "socket_type", Interrupted)
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(KeyboardInterrupt):
            _core_helpers.own_socket(near.fileno())
        near.send(b"open")
        assert far.recv(4) == b"open"
