"""Libraries that watch a program by patching the standard thread pool.

Tracers and error reporters replace ThreadPoolExecutor.submit, to carry a
request's scope into the thread that works for it.  The default executor and
the user's own must go through whatever is there.
"""

import asyncio
import contextvars
import functools
from concurrent.futures import ThreadPoolExecutor

import pytest
from tracers import Wrapper, trace_in_place

scope = contextvars.ContextVar("scope", default="none")


def in_the_callers_context(monkeypatch, original):
    """A submit() that runs each job in its caller's context."""

    @functools.wraps(original)
    def submit(self, fn, *args, **kwargs):
        context = contextvars.copy_context()
        return original(self, context.run, fn, *args, **kwargs)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit)


def by_other_code(monkeypatch, original):
    """As ddtrace's: the same function with other code."""

    def tracer(submit, pool, fn, *args, **kwargs):
        context = contextvars.copy_context()
        return submit(pool, context.run, fn, *args, **kwargs)

    trace_in_place(monkeypatch, original, tracer)


def by_an_object(monkeypatch, original):
    """One that is no function, and sets the caller's scope for a job."""

    def wrapper(submit, fn, *args, **kwargs):
        value = scope.get()

        def with_scope(*args, **kwargs):
            token = scope.set(value)
            try:
                return fn(*args, **kwargs)
            finally:
                scope.reset(token)

        return submit(with_scope, *args, **kwargs)

    wrapped = Wrapper(original, wrapper)
    monkeypatch.setattr(ThreadPoolExecutor, "submit", wrapped)


@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize(
    "patch", [in_the_callers_context, by_other_code, by_an_object]
)
async def test_a_patched_submit_carries_each_requests_scope(
    loop, pool, monkeypatch, patch, used_before
):
    async def request(number):
        scope.set(f"request {number}")
        return await loop.run_in_executor(pool, scope.get)

    if used_before:
        await loop.run_in_executor(pool, int)
    patch(monkeypatch, ThreadPoolExecutor.submit)
    scopes = await asyncio.gather(*(request(number) for number in range(5)))
    assert scopes == [f"request {number}" for number in range(5)]


PATCHED_FIRST = """
import asyncio
from concurrent.futures import ThreadPoolExecutor

def traced(submit):
    def traced_submit(self, fn, *args):
        print("traced", fn.__name__)
        return submit(self, fn, *args)
    return traced_submit

ThreadPoolExecutor.submit = traced(ThreadPoolExecutor.submit)
import fastloop
async def main():
    return await asyncio.get_running_loop().run_in_executor(None, abs, -5)
with asyncio.Runner(loop_factory={}) as runner:
    print(runner.run(main()))
"""


@pytest.mark.parametrize(
    "factory", ["asyncio.SelectorEventLoop", "fastloop.new_event_loop"]
)
def test_a_patch_older_than_the_import_is_called(python, factory):
    """A closure, which uses no global name of a module."""
    done = python("-c", PATCHED_FIRST.format(factory))
    assert (done.returncode, done.stdout) == (0, "traced abs\n5\n")


@pytest.mark.parametrize("workers", [1, 2])
async def test_overrides_of_what_submit_calls_are_called(loop, workers):
    """As Home Assistant's does, which keeps submit() and ends otherwise."""

    class Pool(ThreadPoolExecutor):
        adjusted = ended = 0

        def _adjust_thread_count(self):
            self.adjusted += 1
            super()._adjust_thread_count()

        def shutdown(self, *args, **kwargs):
            self.ended += 1
            super().shutdown(*args, **kwargs)

    executor = Pool(workers)
    loop.set_default_executor(executor)
    for number in range(4):
        assert await loop.run_in_executor(None, abs, -number) == number
    assert executor.adjusted == 4
    await loop.shutdown_default_executor()
    assert executor.ended >= 1
