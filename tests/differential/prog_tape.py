"""What a generated program is, and how it is printed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Program:
    """A program; its repr can be pasted into a test.

    ``links`` are (net, side, kind, conf), ``steps`` (iterations, operations),
    ``tapes`` what the ends B do in threads of their own, ``env`` variables
    that are set while the loop is made.
    """

    links: list[Any]
    steps: list[Any]
    tapes: list[Any] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    debug: bool = False

    def __repr__(self) -> str:
        text = "Program(\n"
        for name in ("links", "steps", "tapes"):
            rows = getattr(self, name)
            if rows or name != "tapes":
                inner = "".join(f"        {row!r},\n" for row in rows)
                text += f"    {name}=[\n{inner}    ],\n"
        if self.env:
            text += f"    env={self.env!r},\n"
        if self.debug:
            text += "    debug=True,\n"
        return text + ")"
