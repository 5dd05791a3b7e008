"""The type of a loop for what observes it.

Observers do not import ``fastloop.loop``, because that imports them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from fastloop.metrics import BlockedCallback, LoopMetrics, SlowCallback

    class ObservedLoop(Protocol):
        """What observers and adapters use of a ``fastloop.Loop``."""

        call_later: Callable[..., Any]
        call_soon: Callable[..., Any]

        _thread_id: int | None
        _watchdog: Any
        _recent_slow: tuple[SlowCallback, ...]
        _on_report: (
            Callable[[SlowCallback | BlockedCallback, object], None] | None
        )

        def enable_metrics(
            self,
            *,
            socket: str | bool | None = None,
            watchdog_s: float | None = None,
        ) -> None: ...
        def metrics(self) -> LoopMetrics: ...
        def is_running(self) -> bool: ...
        def is_closed(self) -> bool: ...
        def call_exception_handler(self, context: dict[str, Any]) -> None: ...
        def _running_callback(self) -> tuple[int, int] | None: ...
