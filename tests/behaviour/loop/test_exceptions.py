"""call_exception_handler and what a failing callback sets off."""

import asyncio
import ctypes
import threading

import pytest
from patience import PATIENCE


def fail(*args):
    raise ZeroDivisionError("on purpose")


class Stop(BaseException):
    """What one thread raises in another."""


def test_an_exception_that_another_thread_raises_ends_the_run(loop):
    """dramatiq's limits of time are such ones."""
    started, ended = threading.Event(), []

    def work():
        with pytest.raises(Stop):
            loop.run_forever()
        ended.append(loop.is_running())

    loop.set_exception_handler(lambda loop, context: None)
    loop.call_soon(started.set)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    started.wait()
    number, kind = ctypes.c_ulong(thread.ident), ctypes.py_object(Stop)
    for _ in range(2):  # the first may still meet the callback above
        ctypes.pythonapi.PyThreadState_SetAsyncExc(number, kind)
        loop.call_soon_threadsafe(int)
        thread.join(PATIENCE)
        if not thread.is_alive():
            break
    else:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
    assert ended == [False]


class Unreported(Exception):
    """What a call_exception_handler raises."""


@pytest.fixture
def raising(loop_class):
    """A loop whose call_exception_handler raises."""

    class Raising(loop_class):
        def call_exception_handler(self, context):
            raise Unreported(context["message"])

    made = Raising()
    yield made
    made.call_soon(made.stop)
    made.run_forever()
    made.close()


@pytest.mark.parametrize("debug", [False, True])
def test_exceptions_of_call_exception_handler_leave_the_run(
    raising, pair, debug
):
    raising.set_debug(debug)
    seen = []
    left, right = pair
    right.send(b"x")
    for schedule, *args in (
        (raising.call_soon,),
        (raising.call_soon_threadsafe,),
        (raising.call_later, 0),
        (raising.add_reader, left),
    ):
        schedule(*args, fail)
        raising.call_soon(seen.append, 1)
        with pytest.raises(Unreported, match="Exception in callback"):
            raising.run_forever()
        assert not raising.is_running()
    raising.remove_reader(left)
    raising.call_soon(raising.stop)
    raising.run_forever()
    assert seen == [1] * 4


def test_those_for_a_protocol_leave_the_run_too(raising, pair):
    class Failing(asyncio.Protocol):
        data_received = fail

    connecting = raising.create_connection(Failing, sock=pair[0])
    transport, _ = raising.run_until_complete(connecting)
    pair[1].send(b"x")
    with pytest.raises(Unreported):
        raising.run_forever()
    transport.abort()
