"""call_exception_handler and what a failing callback sets off."""

import asyncio
import socket
import sys

import pytest


def fail(*args):
    raise ZeroDivisionError("on purpose")


def test_context_of_a_failing_callback(loop, iterate, reports):
    handle = loop.call_soon(fail, 1)
    iterate()
    (context,) = reports
    assert set(context) == {"message", "exception", "handle"}
    assert context["handle"] is handle
    assert context["message"].startswith("Exception in callback fail(")
    assert str(context["exception"]) == "on purpose"
    assert context["exception"].__traceback__ is not None


def test_handler_runs_as_in_an_except_block(loop, iterate):
    """logging.exception() and traceback.format_exc() work in it."""
    handled = []

    def handler(lo, context):
        handled.append(sys.exc_info()[1] is context["exception"])

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    loop.call_soon_threadsafe(fail)
    loop.call_later(0, fail)
    future = loop.create_future()
    future.add_done_callback(fail)
    future.set_result(None)
    iterate(4)
    assert handled == [True] * 4
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_handler_that_raises_an_exit_exception(loop, kind):
    def handler(lo, context):
        raise kind

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    with pytest.raises(kind):
        loop.run_forever()
    loop.set_exception_handler(None)
    assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1


class Unreported(Exception):
    """What a call_exception_handler raises."""


@pytest.mark.parametrize("debug", [False, True])
def test_exceptions_of_call_exception_handler_leave_the_run(
    loop_factory, debug
):
    probe = loop_factory()
    probe.close()

    class Own(type(probe)):
        def call_exception_handler(self, context):
            raise Unreported(context["message"])

    own = Own()
    own.set_debug(debug)
    seen = []
    left, right = socket.socketpair()
    with left, right:
        right.send(b"x")
        for schedule in (
            lambda: own.call_soon(fail),
            lambda: own.call_soon_threadsafe(fail),
            lambda: own.call_later(0, fail),
            lambda: own.add_reader(left, fail),
        ):
            schedule()
            own.call_soon(seen.append, 1)
            with pytest.raises(Unreported, match="Exception in callback"):
                own.run_forever()
            assert not own.is_running()
        own.remove_reader(left)
    own.call_soon(own.stop)
    own.run_forever()
    own.close()
    assert seen == [1] * 4


def test_exceptions_of_call_exception_handler_for_a_protocol_leave_the_run(
    loop_factory,
):
    probe = loop_factory()
    probe.close()

    class Own(type(probe)):
        def call_exception_handler(self, context):
            raise Unreported(context["message"])

    class Failing(asyncio.Protocol):
        def data_received(self, data):
            fail()

    own = Own()
    left, right = socket.socketpair()
    with right:
        left.setblocking(False)
        transport, _ = own.run_until_complete(
            own.create_connection(Failing, sock=left)
        )
        right.send(b"x")
        with pytest.raises(Unreported):
            own.run_forever()
        transport.abort()
        own.call_soon(own.stop)
        own.run_forever()
    own.close()


def test_call_exception_handler_patched_on_the_instance(loop, iterate):
    seen = []
    loop.call_exception_handler = seen.append
    loop.call_soon(fail)
    iterate()
    assert isinstance(seen[0]["exception"], ZeroDivisionError)


def test_handler_may_stop_the_loop(loop):
    loop.set_exception_handler(lambda lo, context: lo.stop())
    loop.call_soon(fail)
    loop.run_forever()
    assert not loop.is_running()
