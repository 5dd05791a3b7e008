"""run_forever, run_until_complete and stop, and the loop after each."""

import asyncio
import sys

import pytest


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
