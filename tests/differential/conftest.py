"""What became of the generated programs, after the tests."""

from __future__ import annotations

from collections import Counter
from typing import Any


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the counts, and what differed without being a difference."""
    counts: Counter[str] = Counter()
    rare: list[str] = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, value in report.user_properties:
                    if name == "programs":
                        counts.update(value)
                    elif name == "rare":
                        rare += value
    if not counts:
        return
    terminalreporter.section("generated programs")
    for text in rare:
        terminalreporter.write_line(f"differed now and then: {text}\n")
    terminalreporter.write_line(
        ", ".join(f"{count} {name}" for name, count in counts.items())
    )
