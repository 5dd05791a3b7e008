"""call_exception_handler and what a failing callback sets off."""

import asyncio
import contextvars
import gc
import logging
import socket
import sys
import weakref

import pytest


def fail(*args):
    raise ZeroDivisionError("on purpose")


@pytest.fixture
def bare(loop):
    """Return ``loop`` with the default exception handler."""
    loop.set_exception_handler(None)
    return loop


@pytest.fixture
def logged(caplog):
    """Return a function: the records of the asyncio logger so far."""
    caplog.set_level(logging.ERROR, logger="asyncio")
    return lambda: caplog.records


def test_context_of_a_failing_callback(loop, iterate, reports):
    handle = loop.call_soon(fail, 1)
    iterate()
    (context,) = reports
    assert set(context) == {"message", "exception", "handle"}
    assert context["handle"] is handle
    assert context["message"].startswith("Exception in callback fail(")
    assert str(context["exception"]) == "on purpose"
    assert context["exception"].__traceback__ is not None


def test_handler_gets_the_loop(loop, iterate):
    seen = []
    loop.set_exception_handler(lambda lo, context: seen.append(lo))
    loop.call_soon(fail)
    iterate()
    assert seen == [loop]


@pytest.mark.reports
def test_default_handler_logs(bare, iterate, logged):
    bare.call_soon(fail)
    iterate()
    (record,) = logged()
    assert record.levelno == logging.ERROR
    message = record.getMessage()
    assert message.startswith("Exception in callback fail(")
    assert "\nhandle: <Handle fail(" in message
    assert record.exc_info[0] is ZeroDivisionError


@pytest.mark.reports
def test_default_handler_by_hand(bare, logged):
    bare.call_exception_handler({"message": "mine", "extra": 17})
    bare.default_exception_handler({"message": "direct"})
    bare.call_exception_handler({})
    texts = [r.getMessage() for r in logged()]
    assert texts == [
        "mine\nextra: 17",
        "direct",
        "Unhandled exception in event loop",
    ]


@pytest.mark.reports
def test_handler_that_raises(loop, iterate, logged):
    def handler(lo, context):
        raise AttributeError("handler")

    loop.set_exception_handler(handler)
    loop.call_soon(fail)
    iterate()
    (record,) = logged()
    message = record.getMessage()
    assert message.startswith("Unhandled error in exception handler")
    assert "ZeroDivisionError" in message
    assert record.exc_info[0] is AttributeError


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


@pytest.mark.reports
def test_what_a_handler_raises_has_the_callbacks_exception(
    loop, iterate, logged
):
    def reraise(lo, context):
        raise  # noqa: PLE0704

    def raise_another(lo, context):
        raise AttributeError("handler")

    for handler in (reraise, raise_another):
        loop.set_exception_handler(handler)
        loop.call_soon(fail)
        iterate()
    same, another = (record.exc_info[1] for record in logged())
    assert type(same) is ZeroDivisionError
    assert type(another.__context__) is ZeroDivisionError


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


@pytest.mark.reports
def test_overridden_default_exception_handler(loop_factory):
    probe = loop_factory()
    probe.close()
    seen = []

    class Own(type(probe)):
        def default_exception_handler(self, context):
            seen.append(context["message"])

    own = Own()
    own.call_soon(fail)
    own.call_soon(own.stop)
    own.run_forever()
    own.close()
    assert len(seen) == 1


def test_overridden_call_exception_handler(loop_factory):
    probe = loop_factory()
    probe.close()
    seen = []

    class Own(type(probe)):
        def call_exception_handler(self, context):
            seen.append(context["message"])

    own = Own()
    own.call_soon(fail)
    own.call_later(0, fail)
    own.call_later(0.001, own.stop)
    own.run_forever()
    own.close()
    assert len(seen) == 2


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


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="the handle's context since 3.12"
)
def test_handler_runs_in_the_handles_context(loop, iterate):
    var = contextvars.ContextVar("var", default="outside")
    seen = []
    loop.set_exception_handler(lambda lo, context: seen.append(var.get()))
    context = contextvars.copy_context()
    context.run(var.set, "handle")
    loop.call_soon(fail, context=context)
    iterate()
    assert seen == ["handle"]


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="the task's context since 3.12"
)
def test_handler_runs_in_the_tasks_context(loop):
    var = contextvars.ContextVar("var", default="outside")
    seen = []
    loop.set_exception_handler(lambda lo, context: seen.append(var.get()))

    async def main():
        var.set("task")
        raise ZeroDivisionError

    async def start():
        task = asyncio.ensure_future(main())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task
        gc.collect()

    loop.run_until_complete(start())
    assert seen == ["task"]


def test_traceback_is_not_referenced_after_the_report(loop, iterate):
    class Token:
        pass

    alive = []

    def failing():
        token = Token()
        alive.append(weakref.ref(token))
        raise ZeroDivisionError

    loop.set_exception_handler(lambda lo, context: None)
    loop.call_soon(failing)
    iterate()
    gc.collect()
    assert alive[0]() is None


def test_handler_may_stop_the_loop(loop):
    loop.set_exception_handler(lambda lo, context: lo.stop())
    loop.call_soon(fail)
    loop.run_forever()
    assert not loop.is_running()


def test_handler_may_schedule(loop, iterate):
    seen = []
    loop.set_exception_handler(
        lambda lo, context: lo.call_soon(seen.append, 1)
    )
    loop.call_soon(fail)
    iterate(2)
    assert seen == [1]


def test_no_exception_is_seen_as_being_handled(loop, iterate):
    seen = []
    loop.set_exception_handler(
        lambda lo, context: seen.append(type(context["exception"]))
    )
    loop.call_soon(fail)
    loop.call_soon(lambda: seen.append(sys.exc_info()[0]))
    iterate()
    assert seen == [ZeroDivisionError, None]
