"""What tells a program that a loop is fastloop's."""

import asyncio
from unittest import mock

import fastloop
from fastloop import Loop


class Mine(Loop):
    """A program's own class."""


def test_the_repr_names_the_public_class():
    state = "running=False closed=False debug=False>"
    loop, mine = fastloop.new_event_loop(), Mine()
    try:
        assert repr(loop) == f"<fastloop.Loop {state}"
        assert repr(mine) == f"<Mine {state}"
    finally:
        loop.close()
        mine.close()


def test_a_patch_of_asyncios_method_takes_effect():
    loop, mine = fastloop.new_event_loop(), Mine()
    try:
        with mock.patch.object(
            asyncio.BaseEventLoop, "call_exception_handler", autospec=True
        ) as patched:
            loop.call_exception_handler({"message": "one"})
            mine.call_exception_handler({"message": "two"})
        assert [call.args for call in patched.call_args_list] == [
            (loop, {"message": "one"}),
            (mine, {"message": "two"}),
        ]
    finally:
        loop.close()
        mine.close()
