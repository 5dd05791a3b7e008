"""The order within one iteration.

Ready callbacks, then the poll's events, then due timers, then what all these
scheduled; stop() lets the iteration finish; a run begins with a poll.
"""

import threading

import pytest
from net_helpers import Recorder, open_on_pair

FIRST = ["callback", "second callback", "reader", "timer", "second timer"]
THEN = [f"after the {name}" for name in ("callback", "reader", "timer")]


@pytest.fixture
def due(loop, pair):
    """Return what schedules things that are due at once; it returns their log.

    It takes a function that a callback, a reader and a timer call.
    """

    def due(then):
        log = []

        def run(name):
            log.append(name)
            then(name)
            loop.call_soon(log.append, f"after the {name}")

        def readable():
            loop.remove_reader(pair[0])
            run("reader")

        loop.call_at(0, run, "timer")
        loop.call_at(0, log.append, "second timer")
        loop.add_reader(pair[0], readable)
        pair[1].send(b"x")
        loop.call_soon(run, "callback")
        loop.call_soon(log.append, "second callback")
        return log

    return due


@pytest.mark.parametrize("stops", ["before", "callback", "reader", "timer"])
def test_an_iteration_ends_before_what_it_schedules(loop, due, iterate, stops):
    log = due(lambda name: loop.stop() if name == stops else None)
    if stops == "before":
        loop.stop()
    loop.run_forever()
    assert log == FIRST
    iterate()
    assert log == FIRST + THEN


def test_threadsafe_calls_come_before_what_they_precede(loop, pair, iterate):
    log = []
    lost = Recorder(lost=lambda *_: log.append("lost"))
    opening, _, far = open_on_pair(loop, "stream", lambda: lost)
    transport, _ = loop.run_until_complete(opening)

    def from_a_thread():
        loop.call_soon_threadsafe(log.append, "of the thread")
        pair[1].send(b"x")

    def readable():
        loop.remove_reader(pair[0])
        log.append("reader")

    def work():
        loop.call_soon_threadsafe(log.append, "threadsafe")
        transport.abort()
        loop.call_soon_threadsafe(log.append, "threadsafe again")
        loop.call_soon(log.append, "soon")
        thread = threading.Thread(target=from_a_thread)
        thread.start()
        thread.join()

    loop.add_reader(pair[0], readable)
    loop.call_soon(work)
    with far:
        iterate(2)
    assert log == [
        "threadsafe",
        "lost",
        "threadsafe again",
        "soon",
        "of the thread",
        "reader",
    ]
