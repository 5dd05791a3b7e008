"""The timer queue (src/base/timer_queue.c), alone: against a sorted list.

It is plain C, so it is compiled here by itself and driven through ctypes.
"""

from __future__ import annotations

import bisect
import ctypes
import math
import random
from collections.abc import Iterator

import pytest

# Nothing of the extension runs here; ctypes keeps what it is shown.
pytestmark = pytest.mark.no_refcount

NEVER = math.inf


class Node(ctypes.Structure):
    """FlTimerNode."""

    _fields_ = [("place", ctypes.c_uint64)]


class Queue(ctypes.Structure):
    """FlTimerQueue."""

    _fields_ = [
        ("heap", ctypes.c_void_p),
        ("heap_size", ctypes.c_size_t),
        ("heap_capacity", ctypes.c_size_t),
        ("sequence", ctypes.c_uint64),
        ("next_s", ctypes.c_double),
    ]


@pytest.fixture(scope="module")
def library(compiled) -> ctypes.CDLL:
    loaded = compiled("src/base/timer_queue.c")
    node, queue = ctypes.POINTER(Node), ctypes.POINTER(Queue)
    loaded.fl_timer_queue_push.argtypes = [queue, node, ctypes.c_double]
    loaded.fl_timer_queue_remove.argtypes = [queue, node]
    loaded.fl_timer_queue_pop.argtypes = [queue]
    loaded.fl_timer_queue_pop.restype = node
    return loaded


class Timers:
    """The queue, and beside it the sorted list it must agree with."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.c = library
        self.queue = Queue()
        self.nodes: dict[int, Node] = {}
        self.deadlines: dict[int, float] = {}
        self.model: list[tuple[float, int]] = []
        self.made = 0
        library.fl_timer_queue_init(ctypes.byref(self.queue))

    def push(self, deadline_s: float) -> int:
        node, name = Node(), self.made
        self.made += 1
        assert (
            self.c.fl_timer_queue_push(
                ctypes.byref(self.queue), ctypes.byref(node), deadline_s
            )
            == 0
        )
        self.nodes[name] = node
        self.deadlines[name] = deadline_s
        bisect.insort(self.model, (deadline_s, name))
        return name

    def remove(self, name: int) -> None:
        node = self.nodes.pop(name)
        self.c.fl_timer_queue_remove(
            ctypes.byref(self.queue), ctypes.byref(node)
        )
        assert node.place == 0
        entry = self.deadlines.pop(name), name
        at = bisect.bisect_left(self.model, entry)
        assert self.model.pop(at) == entry

    def pop_due(self, now_s: float) -> list[int]:
        """Pop all that is due, and compare it with the model once."""
        at = bisect.bisect_right(self.model, (now_s, NEVER))
        names = [name for _, name in self.model[:at]]
        del self.model[:at]
        for name in names:
            del self.deadlines[name]
        popped = []
        while self.queue.next_s <= now_s and (
            found := self.c.fl_timer_queue_pop(ctypes.byref(self.queue))
        ):
            popped.append(ctypes.addressof(found.contents))
            assert found.contents.place == 0
        nodes = [self.nodes.pop(name) for name in names]
        assert popped == [ctypes.addressof(node) for node in nodes]
        self.check()
        return names

    def check(self) -> None:
        first = self.model[0][0] if self.model else NEVER
        assert self.queue.next_s == first
        assert self.queue.heap_size == len(self.model)


@pytest.fixture
def timers(library: ctypes.CDLL) -> Iterator[Timers]:
    timers = Timers(library)
    yield timers
    library.fl_timer_queue_free(ctypes.byref(timers.queue))


@pytest.mark.parametrize("seed", range(6))
def test_timers_leave_in_the_order_of_a_sorted_list(
    timers: Timers, seed: int
) -> None:
    """Any mix of pushes, removals and pops; constant delays and others."""
    chance = random.Random(seed)
    now = 0
    for _ in range(4000):
        step = chance.random()
        far = chance.randrange(500), chance.randrange(10**5)
        if step < 0.5:
            delay = chance.choice((0, 10, 10, 10, 1000, *far))
            timers.push(now + delay)
        elif step < 0.75 and timers.nodes:
            timers.remove(chance.choice(list(timers.nodes)))
        else:
            now += chance.randrange(20)
            timers.pop_due(now)
        timers.check()
    timers.pop_due(NEVER)


def test_a_flood_gives_its_memory_back(timers: Timers) -> None:
    for at in range(30_000):
        timers.push(30_000 - at)
    assert timers.queue.heap_capacity > 16384
    timers.pop_due(10**6)
    assert timers.queue.heap_capacity <= 16384
    name = timers.push(5)
    assert timers.pop_due(5) == [name]
