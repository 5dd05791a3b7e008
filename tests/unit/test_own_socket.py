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
            _core_helpers.own_socket(near.fileno(), -1)
        near.send(b"open")
        assert far.recv(4) == b"open"


def test_a_socket_object_asks_for_what_it_is_not_told():
    near, far = socket.socketpair()
    with far:
        made = _core_helpers.own_socket(near.detach(), -1)
        with made:
            kind = made.family, made.type, made.proto
            assert kind == (socket.AF_UNIX, socket.SOCK_STREAM, 0)
            assert made.gettimeout() == 0
