"""Debug mode: slow callbacks, thread checks, argument checks, origins."""

import asyncio
import logging
import re
import socket
import sys
import time

import pytest


def nothing(*args):
    pass


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
    for wrong in (None, "1", 1j):
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


def test_slow_call_of_a_waiting_socket_is_logged(debug, warned, pair):
    class Slow(socket.socket):
        def recv(self, *args):
            if tries:
                slow()
            tries.append(1)
            return super().recv(*args)

    tries = []
    debug.slow_callback_duration = 0.01
    near, far = pair
    with Slow(fileno=near.detach()) as sock:
        sock.setblocking(False)
        task = debug.create_task(debug.sock_recv(sock, 5))
        debug.run_until_complete(asyncio.sleep(0))
        assert tries == [1]
        far.send(b"data")
        assert debug.run_until_complete(task) == b"data"
    (text,) = (text for text in warned("recv") if "<Task" not in text)
    assert re.match(r"Executing <.*> took \d+\.\d{3} seconds", text)


@pytest.mark.parametrize(("debugs", "limit"), [(True, 5), (False, 0.001)])
def test_callbacks_that_are_not_logged(loop, iterate, warned, debugs, limit):
    """Fast ones, and slow ones without debug mode."""
    loop.set_debug(debugs)
    loop.slow_callback_duration = limit
    loop.call_soon(slow)
    iterate()
    loop.set_debug(False)
    assert warned() == []


@pytest.mark.parametrize("method", ["call_soon", "call_at", "call_later"])
def test_wrong_thread_is_refused(debug, in_thread, method):
    raised = []

    def other():
        args = () if method == "call_soon" else (0,)
        try:
            getattr(debug, method)(*args, nothing)
        except RuntimeError as exc:
            raised.append(str(exc))
        debug.call_soon_threadsafe(debug.stop)

    debug.call_soon(lambda: in_thread(other))
    debug.run_forever()
    assert raised == [
        "Non-thread-safe operation invoked on an event loop other than "
        "the current one"
    ]


def test_other_threads_may_schedule_before_the_run(debug, in_thread):
    seen = []
    in_thread(debug.call_soon, seen.append, 1).join()
    debug.run_until_complete(asyncio.sleep(0))
    assert seen == [1]


METHODS = {
    "call_soon": (),
    "call_later": (0,),
    "call_at": (0,),
    "call_soon_threadsafe": (),
    "run_in_executor": (None,),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [1, None], ids=str)
def test_non_callables_are_refused(debug, method, bad):
    with pytest.raises(TypeError, match="a callable object was expected by"):
        getattr(debug, method)(*METHODS[method], bad)


@pytest.mark.parametrize("outside", [0, 3])
def test_origin_tracking_is_on_while_running(debug, iterate, outside):
    sys.set_coroutine_origin_tracking_depth(outside)
    seen = []
    debug.call_soon(
        lambda: seen.append(sys.get_coroutine_origin_tracking_depth())
    )
    try:
        iterate()
        assert seen == [asyncio.constants.DEBUG_STACK_DEPTH]
        assert sys.get_coroutine_origin_tracking_depth() == outside
    finally:
        sys.set_coroutine_origin_tracking_depth(0)


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


def test_only_a_close_that_is_not_refused_is_logged(loop_factory, caplog):
    loop = loop_factory()
    loop.set_debug(True)

    async def close():
        with pytest.raises(RuntimeError, match="running event loop"):
            loop.close()

    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        loop.run_until_complete(close())
        assert not [text for text in caplog.messages if "Close" in text]
        loop.close()
        assert [text for text in caplog.messages if "Close" in text]


@pytest.mark.parametrize("patched", [False, True])
def test_a_callback_that_turns_debug_mode_on_is_not_timed(
    loop, warned, monkeypatch, patched
):
    """The time at which it began was not recorded."""

    class TurnsOn(asyncio.Protocol):
        def connection_made(self, transport):
            loop.set_debug(True)

    near, far = socket.socketpair()
    if patched:
        run = asyncio.Handle._run
        monkeypatch.setattr(asyncio.Handle, "_run", lambda self: run(self))
    loop.slow_callback_duration = 3600
    with near, far:
        if patched:
            loop.call_soon(loop.set_debug, True)
            loop.run_until_complete(asyncio.sleep(0))
        else:
            connect = loop.create_connection(TurnsOn, sock=near)
            transport, _ = loop.run_until_complete(connect)
            transport.abort()
            loop.run_until_complete(asyncio.sleep(0))
    assert loop.get_debug()
    assert warned() == []


@pytest.mark.parametrize("way", ["remove", "replace"])
def test_ctrl_c_in_the_cancel_of_a_callback_leaves_the_run(loop, pair, way):
    """In debug mode cancel() makes the repr of the arguments."""

    made = []

    class Interrupted:
        def __repr__(self):
            made.append(1)
            if len(made) == 1:
                raise KeyboardInterrupt
            return "Interrupted()"

    def work():
        if way == "remove":
            loop.remove_reader(pair[0])
        else:
            loop.add_reader(pair[0], print)

    loop.set_debug(True)
    loop.add_reader(pair[0], print, Interrupted())
    loop.call_soon(work)
    loop.call_soon(loop.call_soon, loop.call_soon, loop.stop)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.set_debug(False)
    loop.remove_reader(pair[0])
