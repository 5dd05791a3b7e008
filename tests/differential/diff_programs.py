"""What programs of callbacks, timers, futures and tasks are made of."""

from __future__ import annotations

from diff_compare import Program
from diff_tape import (
    Rule,
    Tape,
    booleans,
    integers,
    lists,
    nested,
    op,
    sampled,
    weighted,
)

small = integers(0, 5)
kinds = sampled(
    ["boom", "boom", "os", "cancelled", "timeout", "exit", "interrupt", "base"]
)
quiet_kinds = sampled(["boom", "os", "cancelled", "timeout", "base"])
#: Slots: mostly in the past, for what lies ahead costs time.
slots = sampled([0, 0, 0, 0, 0, -1, -1, -1, -2, -2, -3, -3, 1, 2])


leaf = weighted(
    (4, op("log")),
    (2, op("var", small)),
    (2, op("raise", kinds)),
    (1, op("stop")),
    (3, op("cancel", small)),
    (1, op("look", small)),
    (2, op("future")),
    (4, op("result", small, small)),
    (2, op("fail", small, sampled(["boom", "os", "timeout"]))),
    (2, op("cancel_future", small)),
    (1, op("callback_off", small, small)),
    (2, op("cancel_task", small)),
    (1, op("current")),
)
#: What may be done off the main strand: nothing that others see.
local = nested(
    weighted(
        (3, op("log")), (1, op("var", small)), (1, op("raise", quiet_kinds))
    ),
    lambda inner: op("soon_dropped", lists(inner, high=3)),
    depth=2,
)
locals_ = lists(local, high=3)


def scripts(ops: Rule) -> Rule:
    """Return a rule for what coroutines do."""
    simple = weighted(
        (2, op("turn", integers(1, 3))),
        (2, op("sleep", slots)),
        (4, op("wait", small)),
        (2, op("join", small)),
        (2, op("shield", small)),
        (2, op("wait_for", slots, small)),
        (1, op("return", small)),
        (2, op("throw", kinds)),
        (1, op("queue", integers(0, 4), integers(0, 2))),
        (6, ops),
    )

    def more(inner: Rule) -> Rule:
        block = lists(inner, high=3)
        blocks = lists(block, high=3)
        return weighted(
            (1, op("shield_script", block)),
            (1, op("wait_for_script", slots, block)),
            (2, op("timeout", slots, block)),
            (2, op("gather", blocks, booleans())),
            (2, op("group", blocks)),
            (
                1,
                op(
                    "first",
                    lists(block, low=1, high=3),
                    sampled(
                        ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]
                    ),
                ),
            ),
            (2, op("try", block, block)),
            (1, op("finally", block, block)),
            (1, op("agen", block, integers(0, 4))),
            (1, op("lock", block)),
        )

    return lists(nested(simple, more, depth=2), low=1, high=4)


def compound(inner: Rule) -> Rule:
    """Return a rule for operations with operations inside."""
    body = lists(inner, high=4)
    return weighted(
        (5, op("soon", body, booleans())),
        (2, op("soon_safe", body)),
        (2, op("soon_dropped", body)),
        (4, op("later", slots, body, booleans())),
        (2, op("timers", lists(slots, low=2, high=4))),
        (3, op("callback", small, body)),
        (1, op("thread", lists(locals_, high=3))),
        (
            1,
            op("executor", sampled(["", "", "boom", "cancel"]), locals_),
        ),
        (1, op("signal", locals_)),
    )


loop_op = nested(leaf, compound, depth=3)
anything = weighted((3, loop_op), (2, op("task", scripts(loop_op))))


steps = lists(lists(anything, 1, 5), 1, 4)
ends = sampled(["clean", "clean", "abrupt"])
debugs = sampled([False, False, True])


def loop_program(tape: Tape) -> Program:
    """Read a program of callbacks, timers, futures and tasks."""
    end, debug = ends(tape), debugs(tape)
    return Program("loop", steps(tape), end, debug)
