"""Debug mode: slow callbacks, origins and failed transports."""

import asyncio
import logging
import re
import sys
import time

import pytest


@pytest.fixture
def warned(caplog):
    """Return the texts of the asyncio logger's warnings, as they come.

    With a word: of those that have it.  On a busy machine any callback may be
    a slow one.
    """
    caplog.set_level(logging.WARNING, logger="asyncio")

    def texts(word=""):
        return [
            r.getMessage()
            for r in caplog.records
            if r.name == "asyncio"
            and r.levelno == logging.WARNING
            and word in r.getMessage()
        ]

    return texts


def slow(seconds=0.012):
    time.sleep(seconds)


@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
def test_slow_callback_duration_stays_as_it_was_if_it_is_no_number(loop):
    """asyncio fails later, when it compares it."""
    for wrong in (None, 1j):
        with pytest.raises(TypeError):
            loop.slow_callback_duration = wrong
    with pytest.raises(AttributeError):
        del loop.slow_callback_duration
    assert loop.slow_callback_duration == 0.1


@pytest.mark.parametrize("timer", [False, True])
def test_slow_callback_is_logged(debug, iterate, warned, timer):
    debug.slow_callback_duration = 0.01
    if timer:
        debug.call_later(0, slow)
    else:
        debug.call_soon(slow)
    while not warned("slow()"):
        iterate()
    (text,) = warned("slow()")
    shown = "TimerHandle when=" if timer else "Handle slow() at "
    assert text.startswith(f"Executing <{shown}")
    assert "test_debug.py:" in text
    assert 0.012 <= float(re.search(r" took (\d+\.\d{3}) sec", text)[1]) < 20
    assert text.endswith(" seconds")


def test_a_run_follows_set_debug(loop, warned):
    """Origins of coroutines and slow callbacks, at once."""
    loop.slow_callback_duration = 0.01
    seen = []

    async def main():
        for value in (True, False, True):
            loop.set_debug(value)
            # asyncio switches by call_soon_threadsafe when running.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(sys.get_coroutine_origin_tracking_depth() > 0)
            loop.call_soon(slow)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        loop.set_debug(False)
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    assert seen == [True, False, True]
    assert len(warned("slow()")) == 2
    assert sys.get_coroutine_origin_tracking_depth() == 0
