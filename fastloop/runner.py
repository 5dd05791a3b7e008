"""Making a loop, running a program on it, and the loop that runs."""

from __future__ import annotations

import asyncio

from . import Loop, is_native
from ._loop import _private
from ._loop._environment import is_off

# Importing typing would take a quarter of the time allowed for fastloop.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any, TypeVar

    _T = TypeVar("_T")


def new_event_loop() -> Loop:
    """Return a new ``fastloop.Loop``, not running and not set as current.

    For ``loop_factory`` arguments, as in ``asyncio.Runner``, for
    ``uvicorn --loop fastloop:new_event_loop`` and for pytest-asyncio.  With
    ``FASTLOOP_DISABLE=loop`` in the environment it is asyncio's own loop, so
    that a deployment can go back without a change of code.  On Windows it is
    asyncio's Proactor loop, or asyncio's selector loop where the program has
    set ``asyncio.WindowsSelectorEventLoopPolicy``.  Raises OSError if the
    system has no file descriptors left.
    """
    if is_off() or (not is_native and _private.has_selector_policy()):
        return asyncio.SelectorEventLoop()  # type: ignore[return-value]
    return Loop()


def get_running_loop() -> Loop:
    """Return the ``fastloop.Loop`` that runs in this thread.

    It is what ``asyncio.get_running_loop()`` returns, with the type that has
    ``metrics()`` and the other methods of fastloop alone.  Raises RuntimeError
    if no loop runs, as asyncio's, and TypeError if another kind of loop does.
    With ``FASTLOOP_DISABLE=loop`` in the environment, and on Windows, that is
    no error, and it returns asyncio's loop, as ``new_event_loop`` does.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, Loop):
        return loop
    if is_off() or not is_native:
        return loop  # type: ignore[return-value]
    raise TypeError(f"the running loop is not fastloop's, but {loop!r}")


def run(
    main: Coroutine[Any, Any, _T],
    *,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> _T:
    """Run a coroutine on a fresh loop and return its result.

    debug turns asyncio's debug mode on or off; None leaves it to the
    environment.  loop_factory makes the loop; the default is
    ``new_event_loop``.  An exception of the coroutine propagates.  Raises
    RuntimeError if a loop is running already in this thread, ValueError or
    TypeError for an object that is not a coroutine, as ``asyncio.run``.
    Implements asyncio's ``asyncio.run()``, with another default loop.
    """
    factory = new_event_loop if loop_factory is None else loop_factory
    if _private.running_loop() is not None:
        raise RuntimeError(
            "fastloop.run() cannot be called from a running event loop"
        )
    with asyncio.Runner(debug=debug, loop_factory=factory) as runner:
        if loop_factory is None:
            # As asyncio.run(): a child watcher needs it, up to 3.13.
            asyncio.set_event_loop(runner.get_loop())
            runner._set_event_loop = True  # type: ignore[attr-defined]
        return runner.run(main)
