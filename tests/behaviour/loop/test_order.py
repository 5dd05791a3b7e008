"""The observable order of one turn, compared between asyncio and fastloop.

A scenario schedules callbacks that write a log.  It is run on both loops, and
on fastloop with its fast paths on and off; the logs are printed and must be
equal.  What is read here is architecture: ready callbacks, then the poll's
events, then due timers, then what all these scheduled; stop() lets the turn
finish; a run begins with a look at I/O.
"""

import asyncio
import contextlib
import socket

import pytest

import fastloop

SWITCHES = ["", "poll_skip", "raw_steps", "poll_skip,raw_steps,timerfd"]


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
        """Run until stopped; note how the run ended."""
        try:
            self.loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as exc:
            self.note("left", type(exc).__name__)
        self.note("-- run ended")

    def turn(self):
        self.loop.call_soon(self.loop.stop)
        self.run()


def play(factory, scenario):
    """Return the log of a scenario on a loop of its own."""
    loop = factory()
    loop.set_exception_handler(
        lambda _loop, context: stage.note(
            "report", type(context["exception"]).__name__
        )
    )
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


def ready_events_timers(s):
    left, _ = s.pair()
    s.loop.call_soon(s.noting("soon 1"))
    s.loop.call_at(0, s.noting("timer"))
    s.once(left, "reader")
    s.loop.call_soon(s.noting("soon 2"))
    for _ in range(3):
        s.turn()


def what_they_schedule_comes_after(s):
    left, _ = s.pair()

    def later(name):
        return lambda: s.loop.call_soon(s.noting(name + " later"))

    s.loop.call_soon(s.noting("soon", later("soon")))
    s.loop.call_at(0, s.noting("timer", later("timer")))
    s.once(left, "reader", later("reader"))
    for _ in range(4):
        s.turn()


def stop_in_a_callback(s):
    left, _ = s.pair()
    s.loop.call_soon(s.noting("stop", s.loop.stop))
    s.loop.call_soon(s.noting("same turn"))
    s.loop.call_soon(
        s.noting("again", lambda: s.loop.call_soon(s.noting("next turn")))
    )
    s.loop.call_at(0, s.noting("timer"))
    s.once(left, "reader")
    s.run()
    s.turn()
    s.turn()


def stop_in_a_reader(s):
    left, _ = s.pair()
    s.once(left, "reader stops", s.loop.stop)
    s.loop.call_soon(s.noting("soon"))
    s.loop.call_at(0, s.noting("timer"))
    s.run()
    s.turn()


def stop_in_a_timer(s):
    left, _ = s.pair()
    s.loop.call_at(
        0,
        s.noting(
            "timer stops",
            lambda: (s.loop.stop(), s.loop.call_soon(s.noting("next"))),
        ),
    )
    s.loop.call_at(1, s.noting("second timer"))
    s.once(left, "reader")
    s.loop.call_soon(s.noting("soon"))
    s.run()
    s.turn()


def stop_before_the_run(s):
    left, _ = s.pair()
    s.once(left, "reader")
    s.loop.call_at(0, s.noting("timer"))
    s.loop.call_soon(s.noting("soon"))
    s.loop.stop()
    s.run()
    s.turn()


def stop_alone_looks_at_io(s):
    left, right = s.pair()
    s.once(left, "reader")
    s.loop.stop()
    s.run()
    right.send(b"y")
    s.once(left, "reader again")
    s.turn()


def stop_twice(s):
    s.loop.call_soon(s.loop.stop)
    s.loop.call_soon(s.loop.stop)
    s.loop.call_soon(s.noting("soon"))
    s.run()
    s.loop.stop()
    s.loop.stop()
    s.loop.call_soon(s.noting("second run"))
    s.run()


def timers_among_themselves(s):
    base = s.loop.time() - 10
    for number in (5, 3, 9, 1, 7):
        s.loop.call_at(base + number, s.noting(("timer", number)))
    s.loop.call_later(0, s.noting("zero"))
    s.loop.call_later(-5.5, s.noting("minus"))
    s.turn()
    s.turn()


def timers_made_by_timers(s):
    def again(left):
        s.note(("timer", left))
        if left:
            s.loop.call_later(0, again, left - 1)
            s.loop.call_soon(s.noting(("soon", left)))

    s.loop.call_at(0, again, 4)
    for _ in range(8):
        s.turn()


def zero_timers_and_callbacks_in_turn(s):
    for number in range(5):
        s.loop.call_later(0, s.noting(("timer", number)))
        s.loop.call_soon(s.noting(("soon", number)))
        s.loop.call_soon_threadsafe(s.noting(("threadsafe", number)))
    for _ in range(3):
        s.turn()


def cancelling_each_other(s):
    handles = {}

    def cancel(*names):
        return lambda: [handles[n].cancel() for n in names]

    left, _ = s.pair()
    handles["a"] = s.loop.call_soon(s.noting("a", cancel("b", "timer")))
    handles["b"] = s.loop.call_soon(s.noting("b"))
    handles["c"] = s.loop.call_soon(s.noting("c"))
    handles["timer"] = s.loop.call_at(0, s.noting("timer"))
    handles["timer 2"] = s.loop.call_at(1, s.noting("timer 2"))
    s.once(left, "reader", cancel("timer 2", "c"))
    for _ in range(3):
        s.turn()


def readers_and_writers(s):
    left, right = s.pair()

    def write():
        s.note("writer")
        s.loop.remove_writer(right)
        s.loop.call_soon(s.noting("after the writer"))

    s.loop.add_writer(right, write)
    s.loop.call_soon(s.noting("soon"))
    s.turn()
    s.once(left, "reader", lambda: s.loop.call_soon(s.noting("after")))
    s.turn()
    s.turn()


def level_triggered_reader_each_turn(s):
    left, _ = s.pair()
    s.loop.add_reader(left, s.noting("reader"))

    def step(number):
        s.note(("step", number))
        if number:
            s.loop.call_soon(step, number - 1)
        else:
            s.loop.stop()

    s.loop.call_soon(step, 12)
    s.run()


def failing_callbacks(s):
    def fail():
        raise ZeroDivisionError

    left, _ = s.pair()
    s.loop.call_soon(s.noting("fails", fail))
    s.loop.call_at(0, s.noting("timer fails", fail))
    s.once(left, "reader fails", fail)
    s.loop.call_soon(s.noting("soon"))
    s.turn()
    s.turn()


def leaving_by_exception(s):
    def leave():
        raise KeyboardInterrupt

    left, _ = s.pair()
    s.loop.call_soon(s.noting("one"))
    s.loop.call_soon(s.noting("leaves", leave))
    s.loop.call_soon(s.noting("two"))
    s.loop.call_at(0, s.noting("timer"))
    s.once(left, "reader")
    s.run()
    s.turn()
    s.turn()


def leaving_from_a_timer(s):
    def leave():
        s.loop.call_soon(s.noting("scheduled while leaving"))
        raise SystemExit

    s.loop.call_at(0, s.noting("leaves", leave))
    s.loop.call_at(1, s.noting("second timer"))
    s.loop.call_soon(s.noting("soon"))
    s.run()
    s.turn()


def futures_and_callbacks(s):
    future = s.loop.create_future()
    future.add_done_callback(s.noting("first"))
    future.add_done_callback(
        s.noting("second", lambda: s.loop.call_soon(s.noting("later")))
    )
    s.loop.call_soon(s.noting("before"))
    s.loop.call_soon(s.noting("sets", lambda: future.set_result(1)))
    s.loop.call_soon(s.noting("after"))
    for _ in range(4):
        s.turn()


def tasks_and_callbacks(s):
    async def child(name, count):
        for number in range(count):
            s.note((name, number))
            await asyncio.sleep(0)
        return name

    async def main():
        s.loop.call_soon(s.noting("soon"))
        first = s.loop.create_task(child("a", 3))
        second = s.loop.create_task(child("b", 2))
        s.loop.call_later(0, s.noting("timer"))
        s.note(await first)
        s.loop.call_soon(s.noting("between"))
        s.note(await second)

    s.loop.run_until_complete(main())
    s.note("done")
    s.turn()


def a_task_and_its_reader(s):
    left, right = s.pair(ready=False)

    async def main():
        future = s.loop.create_future()
        s.loop.add_reader(
            left, lambda: future.done() or future.set_result(left.recv(9))
        )
        s.loop.call_soon(s.noting("soon"))
        right.send(b"data")
        s.note(await future)
        s.loop.remove_reader(left)

    s.loop.run_until_complete(main())


def run_until_complete_leaves_one_turn(s):
    async def main():
        s.loop.call_soon(
            s.noting("one", lambda: s.loop.call_soon(s.noting("two")))
        )
        s.note("main")

    s.loop.run_until_complete(main())
    s.note("-- completed")
    s.turn()


def stopped_run_until_complete(s):
    future = s.loop.create_future()
    s.loop.call_soon(s.noting("stop", s.loop.stop))
    s.loop.call_soon(s.noting("soon"))
    try:
        s.loop.run_until_complete(future)
    except RuntimeError as exc:
        s.note(str(exc))
    s.turn()


def transports(s):
    class Protocol(asyncio.Protocol):
        def __init__(self, name):
            self.name = name

        def connection_made(self, transport):
            s.note((self.name, "made"))
            self.transport = transport

        def data_received(self, data):
            s.note((self.name, "data", bytes(data)))
            if self.name == "right":
                self.transport.write(data.upper())
                s.loop.call_soon(s.noting("soon of right"))
            else:
                self.transport.close()
                s.note("left closes")

        def eof_received(self):
            s.note((self.name, "eof"))

        def connection_lost(self, exc):
            s.note((self.name, "lost", exc))
            ended.append(1)
            if len(ended) == 2:
                done.set_result(None)

    ended = []
    done = s.loop.create_future()

    async def main():
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        first, _ = await s.loop.create_connection(
            lambda: Protocol("left"), sock=left
        )
        s.note("left connected")
        await s.loop.create_connection(lambda: Protocol("right"), sock=right)
        s.note("right connected")
        first.write(b"hello")
        s.loop.call_soon(s.noting("soon"))
        await done

    s.loop.run_until_complete(main())


SCENARIOS = [
    ready_events_timers,
    what_they_schedule_comes_after,
    stop_in_a_callback,
    stop_in_a_reader,
    stop_in_a_timer,
    stop_before_the_run,
    stop_alone_looks_at_io,
    stop_twice,
    timers_among_themselves,
    timers_made_by_timers,
    zero_timers_and_callbacks_in_turn,
    cancelling_each_other,
    readers_and_writers,
    level_triggered_reader_each_turn,
    failing_callbacks,
    leaving_by_exception,
    leaving_from_a_timer,
    futures_and_callbacks,
    tasks_and_callbacks,
    a_task_and_its_reader,
    run_until_complete_leaves_one_turn,
    stopped_run_until_complete,
    transports,
]


@pytest.mark.parametrize("switches", SWITCHES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_same_order_as_asyncio(scenario, monkeypatch, switches):
    compare(scenario, monkeypatch, switches)
