"""Random programs without links: callbacks, futures and tasks."""

from __future__ import annotations

import random
from typing import Any

from prog_tape import Program

KINDS = ["boom", "boom", "exit", "interrupt", "odd", "cancelled", "os"]
HOWS = ["soon", "soon", "soon own", "safe", "due", "due earlier", "due own"]
ENDS = ["result", "result", "result", "cancel", "boom", "os"]
WHEN = ["FIRST_COMPLETED", "FIRST_EXCEPTION", "ALL_COMPLETED"]
DISABLED = ["poll_skip", "raw_steps", "poll_skip,raw_steps"]
#: How often an operation is drawn.
WEIGHTS = {
    "mark": 3,
    "var": 3,
    "raise": 2,
    "stop": 1,
    "call": 12,
    "cancel_call": 4,
    "future": 2,
    "settle": 6,
    "tell": 4,
    "untell": 1,
    "job": 8,
    "cancel_job": 3,
}
#: The same of what only a task does; its other statements are operations.
STATEMENTS = {
    "turn": 4,
    "wait": 4,
    "shield": 2,
    "wait_for": 2,
    "timeout": 2,
    "gather": 3,
    "group": 3,
    "first": 1,
    "try": 2,
    "items": 1,
    "operation": 12,
}


class TaskChance:
    """One program being drawn."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.depth = 0

    def often(self, percent: int) -> bool:
        return self.rng.randrange(100) < percent

    def one(self, weights: dict[str, int]) -> str:
        return self.rng.choices(*zip(*weights.items(), strict=True))[0]

    def nested(self, draw: Any) -> list[Any]:
        """Return a few of what *draw* returns, fewer the deeper."""
        if self.depth >= 3:
            return []
        self.depth += 1
        made = [draw() for _ in range(self.rng.randint(0, 4 - self.depth))]
        self.depth -= 1
        return made

    def operation(self) -> tuple[Any, ...]:
        name, small = self.one(WEIGHTS), self.rng.randrange(6)
        args: dict[str, Any] = {
            "var": lambda: [small],
            "raise": lambda: [self.rng.choice(KINDS)],
            "call": lambda: [
                self.rng.choice(HOWS),
                self.nested(self.operation),
            ],
            "cancel_call": lambda: [small],
            "settle": lambda: [small, self.rng.choice(ENDS)],
            "tell": lambda: [small, self.nested(self.operation)],
            "untell": lambda: [small, self.rng.randrange(6)],
            "job": lambda: [self.script()],
            "cancel_job": lambda: [small],
        }
        return (name, *args.get(name, list)())

    def script(self) -> list[Any]:
        return self.nested(self.statement)

    def statement(self) -> tuple[Any, ...]:
        name, small = self.one(STATEMENTS), self.rng.randrange(6)
        if name == "operation":
            return self.operation()
        scripts = [self.script() for _ in range(self.rng.randint(1, 3))]
        args: dict[str, list[Any]] = {
            "turn": [self.rng.choice([0, 0, 0, -1])],
            "timeout": scripts[:1],
            "gather": [self.often(50), *scripts],
            "group": scripts,
            "first": [self.rng.choice(WHEN), *scripts],
            "try": [scripts[0], scripts[-1]],
            "items": [small % 4, scripts[0]],
        }
        return (name, *args.get(name, [small]))

    def program(self) -> Program:
        rng = self.rng
        steps = [
            (
                rng.choice([-1, -1, 0, 1, 3]),
                [self.operation() for _ in range(rng.randint(1, 7))],
            )
            for _ in range(rng.randint(1, 5))
        ]
        if self.often(20):
            steps[-1][1].append(("abandon",))
        env = {}
        if self.often(40):
            env["FASTLOOP_DISABLE"] = rng.choice(DISABLED)
        return Program([], steps, env=env, debug=self.often(30))


def draw(seed: int) -> Program:
    """Return the program of a seed."""
    return TaskChance(seed).program()
