"""The order within one iteration, compared between asyncio and fastloop.

A scenario schedules callbacks that write a log.  It is run on both loops, and
on fastloop with its fast paths on and off; the logs are printed and must be
equal.  What is read here is architecture: ready callbacks, then the poll's
events, then due timers, then what all these scheduled; stop() lets the
iteration finish; a run begins with a poll.
"""

import asyncio
import contextlib
import socket
import threading

import pytest

import fastloop

SWITCHES = ["", "poll_skip,raw_steps"]


class Stage:
    """A loop, a log, and a socket pair per reader asked for."""

    def __init__(self, loop):
        self.loop = loop
        self.log = []
        self.sockets = []

    def note(self, *what):
        self.log.append(what[0] if len(what) == 1 else what)

    def noting(self, what, then=None):
        """Return a callback that notes ``what`` and calls ``then``."""

        def callback(*args):
            self.note(what)
            if then is not None:
                then()

        return callback

    def pair(self, ready=True):
        """Return a socket, ready to be read or not, and its peer."""
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        self.sockets += [left, right]
        if ready:
            right.send(b"x")
        return left, right

    def once(self, sock, what, then=None):
        """Watch ``sock`` until it was readable once."""

        def callback():
            self.loop.remove_reader(sock)
            sock.recv(100)
            self.note(what)
            if then is not None:
                then()

        self.loop.add_reader(sock, callback)

    def run(self):
        """Run until stopped; note the end."""
        self.loop.run_forever()
        self.note("-- run ended")

    def iterate(self):
        self.loop.call_soon(self.loop.stop)
        self.run()


def play(factory, scenario):
    """Return the log of a scenario on a loop of its own."""
    loop = factory()
    stage = Stage(loop)
    try:
        with contextlib.ExitStack() as stack:
            scenario(stage)
            for sock in stage.sockets:
                loop.remove_reader(sock)
                loop.remove_writer(sock)
                stack.callback(sock.close)
    finally:
        loop.close()
    return stage.log


def compare(scenario, monkeypatch, switches):
    expected = play(asyncio.SelectorEventLoop, scenario)
    monkeypatch.setenv("FASTLOOP_DISABLE", switches)
    got = play(fastloop.new_event_loop, scenario)
    print("asyncio: ", expected)
    print("fastloop:", got)
    assert got == expected
    assert expected, "a scenario that notes nothing compares nothing"


def what_they_schedule_comes_after(s):
    left, _ = s.pair()

    def later(name):
        return lambda: s.loop.call_soon(s.noting(name + " later"))

    s.loop.call_soon(s.noting("soon", later("soon")))
    s.loop.call_at(0, s.noting("timer", later("timer")))
    s.once(left, "reader", later("reader"))
    s.loop.call_soon(s.noting("soon 2"))
    for _ in range(4):
        s.iterate()


def stop_in(where):
    """A scenario whose callback, reader or timer stops the loop."""

    def scenario(s):
        def then(name):
            if name == where:
                s.loop.stop()
            s.loop.call_soon(s.noting(f"after the {name}"))

        left, _ = s.pair()
        for name, schedule in (
            ("callback", s.loop.call_soon),
            ("timer", lambda callback: s.loop.call_at(0, callback)),
        ):
            schedule(s.noting(name, lambda name=name: then(name)))
            schedule(s.noting(f"second {name}"))
        s.once(left, "reader", lambda: then("reader"))
        s.run()
        s.iterate()
        s.iterate()

    scenario.__name__ = f"stop_in_a_{where}"
    return scenario


def stop_before_the_run(s):
    left, _ = s.pair()
    s.once(left, "reader")
    s.loop.call_at(0, s.noting("timer"))
    s.loop.call_soon(s.noting("soon"))
    s.loop.stop()
    s.run()
    s.iterate()


def threadsafe_calls_before_what_they_precede(s):
    left, right = s.pair(ready=False)
    s.once(left, "reader")
    near, far = socket.socketpair()

    class Protocol(asyncio.Protocol):
        def connection_lost(self, exc):
            s.note("lost")

    transport, _ = s.loop.run_until_complete(
        s.loop.create_connection(Protocol, sock=near)
    )

    def from_a_thread():
        s.loop.call_soon_threadsafe(s.note, "of the thread")
        right.send(b"x")

    def work():
        s.loop.call_soon_threadsafe(s.note, "threadsafe")
        transport.abort()
        s.loop.call_soon_threadsafe(s.note, "threadsafe again")
        s.loop.call_soon(s.note, "soon")
        thread = threading.Thread(target=from_a_thread)
        thread.start()
        thread.join()

    s.loop.call_soon(work)
    with far:
        s.iterate()
        s.iterate()


SCENARIOS = [
    what_they_schedule_comes_after,
    *map(stop_in, ["callback", "reader", "timer"]),
    stop_before_the_run,
    threadsafe_calls_before_what_they_precede,
]


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_callbacks_run_in_asyncios_order(scenario, monkeypatch, switches):
    compare(scenario, monkeypatch, switches)
