"""More signals in one callback than the loop's pipe for them takes."""

import signal
import sys

import pytest

#: More than the loop's pipe takes: 64 KiB on Linux.
FLOOD = 70_000


def flood():
    for _ in range(FLOOD):
        signal.raise_signal(signal.SIGUSR1)


@pytest.fixture
def ignored(monkeypatch):
    """Return the texts of the exceptions that Python ignores and reports."""
    texts = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda args: texts.append(str(args.exc_value))
    )
    return texts


def test_a_flood_of_signals_in_one_callback_reaches_python(loop, ignored):
    seen = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    loop.call_soon(flood)
    loop.call_soon(loop.stop)
    loop.run_forever()
    signal.signal(signal.SIGUSR1, previous)
    assert (len(seen), ignored) == (FLOOD, [])


def test_a_handler_works_during_and_after_a_flood(loop, loop_kind, ignored):
    seen = []

    def send_next():
        loop.add_signal_handler(signal.SIGUSR2, loop.stop)
        signal.raise_signal(signal.SIGUSR2)

    def handle():
        if not seen:
            loop.call_soon(send_next)
        seen.append(1)

    loop.add_signal_handler(signal.SIGUSR1, handle)
    loop.call_soon(flood)
    loop.run_forever()
    for signum in (signal.SIGUSR1, signal.SIGUSR2):
        loop.remove_signal_handler(signum)
    if loop_kind == "fastloop" and sys.platform == "linux":
        assert len(seen) == 65_536  # what the pipe takes
    assert 0 < len(seen) < FLOOD
    # asyncio has Python report each signal that its socket does not take.
    assert loop_kind == "asyncio" or not ignored
