"""Ctrl-C while the default executor starts a thread."""

from __future__ import annotations

import threading
from typing import Any

import pytest

fastloop_executor = pytest.importorskip("fastloop.executor")


class _Interrupted(threading.Thread):
    """A thread whose start is interrupted, before or after it runs."""

    begins = True
    ran = threading.Event()

    def start(self) -> None:
        if self.begins:
            super().start()
            assert self.ran.wait(30)
        raise KeyboardInterrupt


@pytest.mark.parametrize("begins", [True, False])
def test_an_interrupt_while_a_thread_starts(
    monkeypatch: pytest.MonkeyPatch, begins: bool
) -> None:
    monkeypatch.setattr(_Interrupted, "begins", begins)
    monkeypatch.setattr(_Interrupted, "ran", threading.Event())
    executor = fastloop_executor.DefaultExecutor(2)
    calls: list[Any] = []

    def call(number: int) -> int:
        calls.append(number)
        _Interrupted.ran.set()
        return number

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", _Interrupted)
        with pytest.raises(KeyboardInterrupt):
            executor.submit(call, -1)
    assert calls == ([-1] if begins else [])
    futures = [executor.submit(call, number) for number in range(100)]
    assert [future.result(30) for future in futures] == list(range(100))
    threads = set(executor._threads)
    executor.shutdown()
    assert 1 <= len(threads) <= 2
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(calls) == [-1] * begins + list(range(100))
