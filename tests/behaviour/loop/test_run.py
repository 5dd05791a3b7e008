"""run_forever, run_until_complete and stop, and the loop after each."""

import asyncio
import socket
import sys

import pytest


def test_parameters_may_be_named(loop):
    here, there = socket.socketpair()
    with here, there:
        loop.add_reader(fd=here, callback=loop.stop)
        loop.add_writer(here, callback=loop.stop)
        assert loop.remove_reader(fd=here) is True
        assert loop.remove_writer(fd=here) is True
    assert loop.run_until_complete(future=asyncio.sleep(0, 3)) == 3
    for call in (
        loop.run_until_complete,
        loop.remove_reader,
        loop.add_reader,
    ):
        for wrong in ({}, {"other": 1}):
            with pytest.raises(TypeError):
                call(**wrong)
        with pytest.raises(TypeError):
            call(1, fd=2, future=2)


def test_asyncgen_hooks_of_an_outer_loop_are_restored(loop, iterate):
    def firstiter(generator):
        pass

    def finalizer(generator):
        pass

    old = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=firstiter, finalizer=finalizer)
    try:
        iterate()
        assert sys.get_asyncgen_hooks() == (firstiter, finalizer)
    finally:
        sys.set_asyncgen_hooks(*old)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    "way", ["soon", "later", "threadsafe", "reader", "task"]
)
def test_exit_exceptions_leave_the_run(loop, pair, kind, way):
    def leave():
        raise kind("leaving")

    async def leave_a_task():
        await asyncio.sleep(0)
        loop.call_soon(seen.append, 1)
        leave()

    left, right = pair
    seen = []
    if way == "soon":
        loop.call_soon(leave)
        loop.call_soon(seen.append, 1)
    elif way == "later":
        loop.call_later(0.001, leave)
    elif way == "threadsafe":
        loop.call_soon_threadsafe(leave)
    elif way == "reader":
        loop.add_reader(left, leave)
        right.send(b"x")
    with pytest.raises(kind, match="leaving"):
        if way == "task":
            loop.run_until_complete(leave_a_task())
        else:
            loop.run_forever()
    loop.remove_reader(left)
    assert not loop.is_running()
    assert asyncio._get_running_loop() is None
    assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5
    assert seen == [1] * (way in ("soon", "task"))
