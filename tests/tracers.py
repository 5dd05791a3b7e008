"""Wrappers that behave like those of tracers.

Those of wrapt pass on every attribute of what they wrap, its class and
comparisons too, so that only ``type()`` tells them from it.  ddtrace's leave
the function where it is, and change its code.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest


class Proxy:
    """An object that passes for another one."""

    def __init__(self, wrapped: Any) -> None:
        object.__setattr__(self, "_wrapped", wrapped)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return self._wrapped.__class__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._wrapped, name, value)

    def __eq__(self, other: object) -> bool:
        return bool(self._wrapped == other)

    def __hash__(self) -> int:
        return hash(self._wrapped)


class Wrapper(Proxy):
    """A function or method, which is called through another function.

    That one is called as ``tracer(wrapped, *args, **words)``.
    """

    def __init__(self, wrapped: Any, tracer: Callable[..., Any]) -> None:
        super().__init__(wrapped)
        object.__setattr__(self, "_tracer", tracer)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return Wrapper(self._wrapped.__get__(instance, owner), self._tracer)

    def __call__(self, *args: Any, **words: Any) -> Any:
        return self._tracer(self._wrapped, *args, **words)


def trace(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> list[tuple[Any, ...]]:
    """Wrap an attribute; return a list that collects its calls' arguments."""
    seen: list[tuple[Any, ...]] = []

    def tracer(wrapped: Any, *args: Any, **words: Any) -> Any:
        seen.append(args)
        return wrapped(*args, **words)

    monkeypatch.setattr(owner, name, Wrapper(getattr(owner, name), tracer))
    return seen


def trace_in_place(
    monkeypatch: pytest.MonkeyPatch,
    function: types.FunctionType,
    tracer: Callable[..., Any],
) -> None:
    """Have a function call ``tracer(its old self, *args, **words)``."""
    wrapped = types.FunctionType(function.__code__, function.__globals__)

    def call(*args: Any, **words: Any) -> Any:
        return tracer(wrapped, *args, **words)

    def trampoline(*args: Any, **words: Any) -> Any:
        target: Any = "call"
        return target(*args, **words)

    code = trampoline.__code__
    consts = (call if each == "call" else each for each in code.co_consts)
    monkeypatch.setattr(
        function, "__code__", code.replace(co_consts=tuple(consts))
    )
