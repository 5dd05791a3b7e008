"""Programs generated at random: what a seed says, a program does.

Each program has some of the operations only, drawn first, and those often:
what needs three of a kind in one callback is not drowned by the rest.  An
idiom is a few operations that mean little one by one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import prog_datagrams
import prog_taskgen
from prog_tape import Program

SMALL = [0, 1, 2, 3, 10, 100, 101, 999, 1000]
SIZES = [*SMALL, 4000, 9000, 9001, 16384, 30_000, 65_536]
BIG = [*SIZES, 70_000, 131_072, 200_000, 262_144, 300_000, 1_000_000]
BUFFERS = [2048, 4096, 16_384, 65_536, 262_144, 1 << 20, 4 << 20]
DISABLED = """libssl native_tls cork poll_skip native_executor datagram_batch
persistent_fds native_readers""".split()
#: Nets that are no sockets.
PIPES = ("pipe", "pty")
#: What end A does not do at an event.
UNSAFE = {
    # asyncio's answer is not one to follow there (README.md).
    "get_buffer": {
        *("pause", "set_protocol", "write", "lines", "eof", "raise"),
        *("os_close", "drop", "resume", "fork"),
    },
    # asyncio reads before the next link is there, fastloop after it.
    "made": {"hook"},
}


class Chance:
    """One program being drawn."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.reuse = random.Random(f"reuse {seed}")
        self.refused = random.Random(f"refused {seed}")
        self.links: list[Any] = []
        self.tasks = 0
        self.depth = 0

    def often(self, percent: int) -> bool:
        return self.rng.randrange(100) < percent

    def one(self, words: str) -> str:
        return self.rng.choice(words.split())

    def size(self) -> int:
        rng = self.rng
        return rng.choice(
            SMALL if self.often(45) else SIZES if self.often(75) else BIG
        )

    # -- links --------------------------------------------------------------

    def link(self) -> Any:
        rng = self.rng
        nets = ["tcp", "tcp", "tcp", "pair", "pair", "unix", "tcp6"]
        kinds = ["plain", "plain", "buffered", "streams", "streams", "sock"]
        wants = dict.fromkeys(["reader", "feed", "answer", "part"], "streams")
        for name, wanted in {**wants, "sock": "sock"}.items():
            if name in self.names and self.often(60):
                kinds = [wanted]
        hooks = "hook" in self.names and self.often(80)
        if kinds[0] == "plain" and not hooks:
            nets += ["pipe"] + ["pty"] * self.often(30)
        net = rng.choice(nets)
        side = rng.choice(["server", "server", "client"])
        kind = rng.choice(kinds)
        conf: dict[str, Any] = {}
        if net in PIPES:
            return (net, side, "plain", conf)
        if (hooks or self.often(15)) and kind != "sock":
            conf["tls"] = self.tls()
            if hooks:
                conf["tls"]["own"] = True
        if self.often(40 if "order" in self.names else 12):
            conf["own"] = rng.choice([True, "calls"])
        for name in ("snd", "rcv", "b_snd", "b_rcv"):
            if self.often(12):
                conf[name] = rng.choice(BUFFERS)
        if kind == "streams":
            if self.often(25):
                conf["limit"] = rng.choice([1, 16, 100, 1000, 8000])
            if self.often(15):
                conf["watched"] = True
        if kind == "buffered" and self.often(40):
            conf["room"] = rng.choice([1, 7, 1000, 4096])
        if self.often(20):
            conf["keep"] = True
        if self.often(20):
            conf["half"] = True
        return (net, side, kind, conf)

    def tls(self) -> dict[str, Any]:
        conf: dict[str, Any] = {"version": self.rng.choice(["1.2", "1.3"])}
        if self.often(40):
            conf["early"] = self.rng.choice([1, 100, 5000, 20_000])
        if self.often(30):
            conf["own"] = True
        return conf

    def reactions(self, index: int) -> list[Any]:
        made = []
        for _ in range(self.rng.randint(1, 2)):
            event = self.rng.choice(
                ["made", "data", "data", "eof", "lost", "full", "empty"]
                + ["get_buffer"]
            )
            unsafe = UNSAFE.get(event, set())
            ops = [op for op in self.ops(index, 3) if op[0] not in unsafe]
            made.append((event, ops))
        return made

    # -- operations ---------------------------------------------------------

    def pick(self) -> int:
        return self.rng.randrange(len(self.links))

    def ops(self, at: int | None = None, most: int = 6) -> list[Any]:
        made: list[Any] = []
        for _ in range(self.rng.randint(1, most)):
            number = self.pick() if at is None or self.often(20) else at
            made += self.some(number)
        return made

    def some(self, number: int) -> list[Any]:
        """Draw one operation, or an idiom."""
        for _ in range(20):
            name = self.rng.choice(self.names)
            if name in CALLS:
                return [CALLS[name](self, number)]
            made: list[Any] = getattr(self, f"draw_{name}")(number)
            if made:
                return made
        return [("b", number, "send", self.size())]

    def inner(self, most: int = 3) -> list[Any]:
        if self.depth >= 2:
            return []
        self.depth += 1
        made = self.ops(None, most)
        self.depth -= 1
        return made

    def kind(self, number: int) -> str:
        return str(self.links[number][2])

    def has_transport(self, number: int) -> bool:
        return self.kind(number) != "sock"

    def draw_write(self, n: int) -> list[Any]:
        if not self.has_transport(n):
            return [("task", [("sendall", n, self.size())])]
        return [("write", n, *self.sizes())]

    def few(self, least: int = 2) -> list[int]:
        return self.rng.choices(SMALL, k=self.rng.randint(least, 3))

    def sizes(self) -> list[int]:
        if self.often(25):
            return [self.rng.choice(SMALL) for _ in range(3)]
        return [self.size() for _ in range(self.rng.randint(1, 5))]

    def draw_order(self, n: int) -> list[Any]:
        """Write to a connection, then send by another, in one callback."""
        if len(self.links) < 2 or not self.has_transport(n):
            return []
        rng = self.rng
        other = (n + rng.randrange(1, len(self.links))) % len(self.links)
        sends = ("sendfile", other, rng.choice(SIZES))
        if self.links[other][0] in PIPES or self.often(70):
            name = "write" if self.has_transport(other) else "sendall"
            sends = (name, other, rng.choice(SIZES))
        return [("task", [("write", n, *self.few()), sends])]

    def draw_lines(self, n: int) -> list[Any]:
        if not self.has_transport(n):
            return []
        sizes = [self.size() for _ in range(self.rng.randint(0, 4))]
        return [("lines", n, *sizes)]

    def draw_garbage(self, n: int) -> list[Any]:
        """A connection, paused or not, that is not referenced any more."""
        made: list[Any] = []
        if self.often(75):
            made.append(("pause", n))
        for _ in range(self.rng.choice([0, 1, 1, 2])):
            ops = [
                ("write", self.size())
                if self.often(75)
                else self.rng.choice(
                    [
                        ("lines", [self.size(), self.size()]),
                        *[("close",), ("abort",), ("resume_reading",)],
                    ]
                )
                for _ in range(self.rng.randint(1, 3))
            ]
            made.append(("finalizer", n, ops))
        if self.often(20):
            made += self.some(n) if self.depth == 0 else []
        made.append(("drop", n))
        if self.often(70):
            made.append(("gc",))
        return made

    def draw_os_close(self, n: int) -> list[Any]:
        made: list[Any] = []
        if self.often(20):
            made.append(("dup", n))
        if self.often(60):
            made.append(("pause", n))
        made.append(("os_close", n, self.rng.choice(["", "file", "socket"])))
        if self.often(50):
            made.append(("resume", n))
        return made

    def draw_hook(self, n: int) -> list[Any]:
        if "own" not in self.links[n][3].get("tls", {}) or self.depth:
            return []
        self.depth += 1
        ops = self.ops(n, 3)
        self.depth -= 1
        event = self.rng.choice(
            [("b", n, "send", self.size()), ("write", n, *self.sizes())]
        )
        return [("hook", n, ops), event]

    # -- tasks --------------------------------------------------------------

    def draw_task(self, n: int) -> list[Any]:
        self.tasks += 1
        count = self.rng.randint(1, 5)
        return [("task", [self.statement(n) for _ in range(count)])]

    def statement(self, n: int) -> Any:
        rng = self.rng
        if self.often(25):
            ops = self.some(n)
            if ops[0][0] != "task":
                return ops[0]
        kind = self.kind(n)
        if self.often(10):
            return ("turn", n, rng.randint(0, 3))
        if kind == "streams":
            name = rng.choice(
                ["read", "read", "exactly", "exactly", "line", "until"]
                + ["drain"]
            )
            if name == "read":
                return (name, n, rng.choice([-1, 0, *SIZES, *SIZES]))
            if name == "exactly":
                return (name, n, rng.choice(BIG))
            if name == "until":
                return (name, n, rng.randint(0, 4))
            return (name, n)
        if kind == "sock":
            if self.often(50):
                return ("sendall", n, self.size())
            return ("recv", n, rng.choice(SIZES), self.often(30))
        return ("turn", n, rng.randint(0, 3))

    def draw_read(self, n: int) -> list[Any]:
        if self.kind(n) not in ("streams", "sock"):
            return []
        return self.draw_task(n)

    def draw_answer(self, n: int) -> list[Any]:
        """Take part of a request, answer at length, close."""
        rng, conf = self.rng, self.links[n][3]
        answer = [("write", n, self.size(), rng.choice(BIG))]
        end = [("close", n)] if self.often(70) else []
        if self.kind(n) == "plain" and self.links[n][0] not in PIPES:
            conf.setdefault("react", []).append(("data", answer + end))
            return [("b", n, "send", 70_000)]
        if self.kind(n) == "buffered" and "tls" not in conf:
            # A request that fills the buffer, and its EOF right behind it.
            # Over TLS the size of a read decides if the buffer is filled.
            reply = ("soon", [("write", n, rng.choice(SMALL))])
            conf.setdefault("react", []).append(("data", [reply]))
            return [("b", n, "send", conf.get("room", 65536)), ("b", n, "eof")]
        if self.kind(n) != "streams":
            return []
        first = rng.choice(
            [("read", n, rng.choice(SIZES)), ("line", n), ("exactly", n, 100)]
        )
        most = 200_000 if self.often(70) else BIG[-1]
        request = rng.choice([size for size in BIG[7:] if size <= most])
        made = [("task", [first, *answer, *end]), ("b", n, "send", request)]
        return made if self.often(70) else made[::-1]

    def draw_feed(self, n: int) -> list[Any]:
        if self.kind(n) != "streams":
            return []
        return [
            self.rng.choice(
                [
                    ("feed", n, self.rng.choice([8, 10, 1000])),
                    ("feed", n, self.rng.choice([8, 10, 1000])),
                    ("feed_eof", n),
                    ("fail", n),
                ]
            )
        ]

    def draw_reader(self, n: int) -> list[Any]:
        if self.kind(n) != "streams":
            return []
        whats = ["class", "dict", "buffer", "repr", "at_eof", "paused", "keep"]
        if self.often(15):
            return [("settle_waiter", n)]
        return [("reader", n, self.rng.choice(whats))]

    def draw_part(self, n: int) -> list[Any]:
        """Wake a reader that wants more, while others do something to it."""
        if self.kind(n) != "streams":
            return []
        rng = self.rng
        size = rng.choice([100, 1000, 9000])
        looks = ("reader", n, rng.choice(["dict", "class"]))
        woken = rng.choice(
            [
                [("feed", n, rng.choice([8, 10, 1000]))],
                [("b", n, "send", rng.choice(SMALL))],
                [looks, ("settle_waiter", n)],
            ]
        )
        others = []
        if self.often(70):
            reads = [("read", n, 1000), *self.few_statements(n)]
            others.append(("task", reads))
        if self.often(40):
            woken.append(("cancel", -1 - len(others)))
        after = [("turn", n, rng.randint(1, 3)), ("reader", n, "paused")]
        first = ("task", [("exactly", n, size)])
        return [first, ("soon", [*others, *woken, ("task", after)])]

    def draw_tls(self, n: int) -> list[Any]:
        if not self.has_transport(n) or self.links[n][0] in PIPES:
            return []
        rng = self.rng
        version = rng.choice(["1.2", "1.3"])
        server = self.often(60) and self.kind(n) != "streams"
        early = rng.choice([0, 0, 1, 100, 5000, 20_000])
        if (version == "1.3") != server:
            early = 0
        upgrade = ("start_tls", n, version, server, early, self.often(30))
        return [("task", [upgrade, *self.few_statements(n)])]

    def few_statements(self, n: int) -> list[Any]:
        return [self.statement(n) for _ in range(self.rng.randint(0, 2))]

    def draw_sendfile(self, n: int) -> list[Any]:
        if self.links[n][0] in PIPES:
            return []
        return [("task", [("sendfile", n, self.rng.choice(BIG))])]

    def draw_sock(self, n: int) -> list[Any]:
        if self.kind(n) != "sock":
            return []
        if self.often(50):
            return [(self.rng.choice(["add_reader", "remove_reader"]), n)]
        return [("add_writer", n, self.inner())]

    # -- the loop -----------------------------------------------------------

    def draw_chain(self, n: int) -> list[Any]:
        """Timers of no delay, one set by the other, which take long."""
        chain: list[Any] = []
        for _ in range(self.rng.randint(1, 3)):
            asks = [("time",)] * self.often(20)
            chain = [*asks, ("later", 0, self.rng.choice([0, 9, 14]), chain)]
        return [("later", self.rng.choice([1, 3, 5]), 0, []), *chain]

    # -- the whole ----------------------------------------------------------

    def program(self) -> Program:
        rng = self.rng
        self.names = ["write", "send", "read"]
        for _ in range(rng.randint(2, 6)):
            name = rng.choices(*zip(*WEIGHTS.items(), strict=True))[0]
            self.names += [name] * rng.randint(1, 3)
        count = rng.choice([1, 1, 1, 1, 2, 2, 3])
        if "order" in self.names:
            count = max(count, 2)
        self.links = [self.link() for _ in range(count)]
        for number, link in enumerate(self.links):
            if self.often(30) and link[2] != "sock":
                link[3]["react"] = self.reactions(number)
        steps = []
        for _ in range(rng.randint(1, 6)):
            iterations = rng.choice([-1, -1, -1, 0, 1, 2, 3])
            steps.append((iterations, self.ops()))
        if self.often(25):
            # The habit of a transport that writes a header, then a body.
            at, n = rng.randrange(len(steps) + 1), self.pick()
            steps[at:at] = [
                (rng.choice([-1, 1, 2]), [("write", n, *self.few())])
                for _ in range(rng.randint(2, 3))
            ]
        for n, link in enumerate(self.links):
            if link[2] == "streams" and self.often(25):
                # The habit of a reader of large messages.
                size = rng.choice([10_000, 40_000])
                large = [("task", [("exactly", n, size)])]
                steps[0:0] = [(-1, [*large, ("b", n, "send", size)])] * 2
        steps[0:0] = self.refusals()
        self.add_reuses(steps)
        tapes: list[Any] = []
        if self.often(15):
            tapes = [self.tape() for _ in self.links]
        env = {}
        if self.often(25):
            env["FASTLOOP_DISABLE"] = rng.choice(DISABLED)
        if self.often(6):
            env["FASTLOOP_METRICS"] = "1"
        return Program(self.links, steps, tapes, env, self.often(8))

    def refusals(self) -> list[Any]:
        """Request TLS of peers that do not begin it, before bytes flow."""
        rng = self.refused
        made: list[Any] = []
        for n, (net, _side, kind, _conf) in enumerate(self.links):
            if net in PIPES or kind == "sock" or rng.randrange(100) >= 4:
                continue
            does = rng.choice(["eof", "close", "rst", "noise", "silence"])
            server = kind != "streams" and rng.randrange(2) == 0
            refused = ("refused_tls", n, server, does, rng.randint(0, 4))
            made.append((-1, [("task", [refused])]))
        return made

    def add_reuses(self, steps: list[Any]) -> None:
        """Close fds of pipes and sockets while the loop has them."""
        rng = self.reuse
        for n, (net, _side, kind, _conf) in enumerate(self.links):
            if net in PIPES:
                before = ("write", n, rng.choice([1, 1000, 300_000]))
            elif kind == "sock":
                ops = [("write", n, 1)] * rng.randrange(2)
                before = rng.choice(
                    [("add_reader", n), ("add_writer", n, ops)]
                )
            else:
                continue
            if rng.randrange(100) >= 5:
                continue  # hardly any other invariant is judged then
            user = rng.choice(["reader", "writer", "transport", "pipe"])
            reuse = ("reuse", n, rng.choice(["in", "out"]), user)
            at = rng.randrange(len(steps) + 1)
            steps[at:at] = [
                *[(rng.choice([0, 1, -1]), [before])] * rng.randrange(2),
                (rng.choice([-1, 0, 2]), [reuse]),
            ]

    def tape(self) -> list[Any]:
        """Draw what end B does in its own thread."""
        made: list[Any] = []
        for _ in range(self.rng.randint(1, 6)):
            made.append(
                self.rng.choice(
                    [
                        ("send", self.size()),
                        ("send", self.size()),
                        ("recv", self.size() * 4),
                        ("stall", self.rng.randint(1, 12)),
                    ]
                )
            )
        if self.often(20):
            made.append((self.rng.choice(["eof", "rst", "close"]),))
        return made


#: How a call is drawn that needs nothing of its link but the number.
CALLS: dict[str, Callable[[Chance, int], tuple[Any, ...]]] = {
    "send": lambda self, n: ("b", n, "send", self.size()),
    "b_end": lambda self, n: ("b", n, self.one("eof eof rst close")),
    "b_recv": lambda self, n: ("b", n, "recv", self.size() * 4),
    "b_buffer": lambda self, n: (
        *("b", n, self.one("sndbuf rcvbuf")),
        self.rng.choice(BUFFERS),
    ),
    "close": lambda self, n: (self.one("close close eof abort"), n),
    "pause": lambda self, n: (self.one("pause resume"), n),
    "limits": lambda self, n: (
        *("limits", n, self.rng.choice([None, 0, 1, 1000, 65_536])),
        self.rng.choice([None, None, 0, 1, 1000]),
    ),
    "set_protocol": lambda self, n: (
        *("set_protocol", n),
        self.one("plain buffered streams"),
    ),
    "info": lambda self, n: ("info", n),
    "gc": lambda self, n: ("gc",),
    "raise": lambda self, n: (
        "raise",
        self.one("boom exit interrupt odd cancelled os"),
    ),
    "fork": lambda self, n: ("fork", n, *self.few(1)),
    "noise": lambda self, n: ("noise", n, self.rng.choice([0, 5, 100])),
    "cancel": lambda self, n: (
        "cancel",
        self.rng.randrange(max(1, self.tasks)),
    ),
    "later": lambda self, n: (
        *("later", self.rng.choice([0, 0, 0, 1, 2, 5, 20])),
        *(self.rng.choice([0, 0, 0, 0, 9, 14]), self.inner()),
    ),
    "cancel_timer": lambda self, n: ("cancel_timer", self.rng.randrange(4)),
    "soon": lambda self, n: ("soon", self.inner()),
    "thread": lambda self, n: ("thread", self.inner()),
    "executor": lambda self, n: ("executor", self.inner()),
    "jobs": lambda self, n: (
        "jobs",
        self.rng.choices(
            ["plain", "plain", "raise", "cancel"], k=self.rng.randint(1, 9)
        ),
    ),
    "signal": lambda self, n: ("signal", self.inner()),
    "other_loop": lambda self, n: ("other_loop", self.inner()),
    "datagrams": lambda self, n: prog_datagrams.draw_datagrams(self.rng),
}
#: How often an operation is among those of a program.
WEIGHTS = {
    "order": 2,
    "lines": 4,
    "b_end": 6,
    "b_recv": 4,
    "b_buffer": 2,
    "close": 6,
    "pause": 7,
    "limits": 3,
    "set_protocol": 4,
    "info": 2,
    "garbage": 8,
    "gc": 2,
    "raise": 4,
    "os_close": 7,
    "fork": 1,
    "hook": 6,
    "noise": 2,
    "cancel": 6,
    "answer": 6,
    "feed": 5,
    "reader": 5,
    "part": 3,
    "tls": 7,
    "sendfile": 4,
    "sock": 4,
    "later": 4,
    "chain": 3,
    "cancel_timer": 2,
    "soon": 4,
    "thread": 3,
    "executor": 2,
    "jobs": 2,
    "signal": 2,
    "other_loop": 1,
    "datagrams": 5,
}


def draw(seed: int) -> Program:
    """Return the program of a seed: of five, one has no links."""
    make = prog_taskgen.draw if seed % 5 == 4 else draw_links
    return make(seed)


def draw_links(seed: int) -> Program:
    """Return a program of connections."""
    return Chance(seed).program()
