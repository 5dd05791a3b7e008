"""Other threads wake a loop while it is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

Loop = asyncio.AbstractEventLoop


def test_threads_wake_and_ask_a_loop_that_is_closed_meanwhile(
    loop_factory: Callable[[], Loop],
) -> None:
    for _ in range(20):
        loop = loop_factory()
        begun, over = threading.Event(), threading.Event()
        faults: list[BaseException] = []

        def disturb(
            loop: Loop = loop,
            begun: threading.Event = begun,
            over: threading.Event = over,
            faults: list[BaseException] = faults,
        ) -> None:
            while not over.is_set():
                try:
                    loop._write_to_self()  # type: ignore[attr-defined]
                    handle = loop.call_soon_threadsafe(int)
                    handle.cancel()
                    repr(loop)
                except RuntimeError as exc:
                    if str(exc) != "Event loop is closed":
                        faults.append(exc)
                except BaseException as exc:
                    faults.append(exc)
                begun.set()

        threads = [threading.Thread(target=disturb) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        over.set()
        for thread in threads:
            thread.join()
        assert faults == []
