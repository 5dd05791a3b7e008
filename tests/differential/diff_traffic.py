"""What programs of the network and other processes are made of."""

from __future__ import annotations

from diff_compare import Program
from diff_programs import locals_, quiet_kinds, small
from diff_tape import (
    Rule,
    Tape,
    booleans,
    integers,
    just,
    lists,
    nested,
    op,
    sampled,
    tuples,
    weighted,
)

many = integers(0, 11)
sizes = sampled([0, 1, 2, 100, 101, 1000, 4000, 4001, 307_200])
limits = sampled([None, 0, 1, 1000, 65_536])
kinds = sampled(["plain", "plain", "buffered"])

#: What an end can be told to do.
end_leaf = weighted(
    (8, op("write", sizes)),
    (3, op("lines", lists(sizes, high=4))),
    (3, op("eof")),
    (2, op("close")),
    (2, op("abort")),
    (2, op("pause")),
    (2, op("resume")),
    (2, op("limits", limits, limits)),
    (1, op("protocol", kinds)),
    (1, op("info")),
    (3, op("drain")),
    (1, op("bad", sampled(["text", None, 3, [1]]))),
)
end_op = nested(
    end_leaf,
    lambda inner: op("soon", lists(inner, high=3)),
    depth=2,
    often=25,
)
reaction_ops = lists(
    weighted((8, end_op), (1, op("raise", quiet_kinds))), high=3
)
reactions = lists(
    tuples(
        sampled(
            [
                "made",
                "data",
                "eof",
                "lost",
                "pause_writing",
                "resume_writing",
                "get_buffer",
            ]
        ),
        reaction_ops,
    ),
    high=3,
)
protocol_end = tuples(kinds, reactions, booleans())
raw_end = tuples(just("raw"))
an_end: Rule = weighted((3, protocol_end), (1, raw_end))

opening = weighted(
    (3, op("pair", protocol_end, an_end)),
    (3, op("connect", small, an_end, protocol_end)),
)
serving = weighted(
    (3, op("serve", sampled(["tcp", "unix"]))),
    (1, op("server_close", small)),
    (1, op("server_look", small)),
    (1, op("server_wait", small)),
)
on_an_end = op("on", many, end_op)
datagram_op = weighted(
    (4, op("send", sampled([0, 1, 1000, 9000, 60_000, 70_000]))),
    (1, op("send_to", sampled([0, 10]))),
    (1, op("close")),
    (1, op("abort")),
    (1, op("look")),
    (1, op("raise", quiet_kinds)),
)
COMMANDS = [
    "exit 3",
    "cat",
    "head -c 10",
    "kill -9 $$",
    "echo word >&2; exec cat",
]
watching = weighted(
    (3, op("reader", small, integers(1, 3), locals_)),
    (2, op("reader_off", small)),
    (2, op("writer", small, integers(1, 3), locals_)),
    (4, op("feed", small, integers(1, 3))),
)
statement = tuples(
    sampled(["write", "write", "drain", "exactly", "turn"]),
    sampled([1, 100, 4000, 70_000, 200_000]),
)
other = weighted(
    (3, op("datagrams", booleans(), lists(datagram_op, high=3))),
    (8, op("datagram", small, datagram_op)),
    (5, watching),
    (
        2,
        op(
            "streams",
            small,
            lists(statement, high=5),
            lists(statement, high=5),
        ),
    ),
    (2, op("executor", sampled(["", "boom"]), locals_)),
    (2, op("thread", lists(locals_, high=2))),
    (1, op("signal", locals_)),
)
process = op("process", sampled(COMMANDS), sampled([0, 1, 70_000]))


ends = sampled(["clean", "clean", "clean", "abrupt"])
debugs = sampled([False, False, False, True])


def program(tape: Tape, world: str, first: Rule, then: Rule) -> Program:
    """Read a program whose first step is of one kind, the rest of another."""
    end, debug = ends(tape), debugs(tape)
    steps = [
        lists(first, 1, 4)(tape),
        *lists(lists(then, 1, 4), 1, 5)(tape),
    ]
    return Program(world, steps, end, debug)


stream_first = weighted((4, opening), (1, serving))
stream_then = weighted((8, on_an_end), (1, opening), (1, serving))
other_first = weighted((2, other), (1, opening))
other_then = weighted((12, other), (2, on_an_end), (1, process))


def stream_program(tape: Tape) -> Program:
    """Read a program of connections over pairs, TCP and Unix sockets."""
    return program(tape, "stream", stream_first, stream_then)


def other_program(tape: Tape) -> Program:
    """Read one of datagrams, watchers, streams, threads, few processes."""
    return program(tape, "other", other_first, other_then)
