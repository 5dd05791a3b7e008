"""The start of the executor's threads, and what interrupts it."""

import asyncio
import threading

import pytest
from patience import PATIENCE


class _Interrupted(threading.Thread):
    """A thread whose start is interrupted, before or after it runs."""

    begins = True
    ran = threading.Event()

    def start(self):
        if self.begins:
            super().start()
            assert self.ran.wait(PATIENCE)
        raise KeyboardInterrupt


@pytest.mark.parametrize("begins", [True, False])
def test_an_interrupt_while_a_thread_starts(loop, monkeypatch, begins):
    """The executor works on, and no other call is lost or made twice."""
    monkeypatch.setattr(_Interrupted, "begins", begins)
    monkeypatch.setattr(_Interrupted, "ran", threading.Event())
    calls = []

    def call(number):
        calls.append(number)
        _Interrupted.ran.set()
        return number

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", _Interrupted)
        with pytest.raises(KeyboardInterrupt):
            loop.run_in_executor(None, call, -1)
    futures = [loop.run_in_executor(None, call, n) for n in range(100)]
    results = loop.run_until_complete(asyncio.gather(*futures))
    assert results == list(range(100))
    loop.run_until_complete(loop.shutdown_default_executor())
    assert sorted(n for n in calls if n >= 0) == list(range(100))
