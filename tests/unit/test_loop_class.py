"""What tells a program that a loop is fastloop's."""

import pytest

import fastloop
from fastloop import Loop


class Mine(Loop):
    """A program's own class."""


@pytest.fixture(params=[fastloop.new_event_loop, Mine])
def loop(request):
    loop = request.param()
    yield loop
    loop.close()


def test_the_repr_names_the_public_class(loop):
    name = "Mine" if type(loop) is Mine else "fastloop.Loop"
    assert repr(loop) == f"<{name} running=False closed=False debug=False>"
