"""What tells a program that a loop is fastloop's."""

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
