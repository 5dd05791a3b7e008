"""What the fastloop package offers to programs: loops, policy, run."""

import asyncio
import contextlib
import re
import sys
import warnings

import pytest

import fastloop


@contextlib.contextmanager
def quiet():
    """Policies are deprecated from 3.14 and go in 3.16."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def test_version_and_libuv_version():
    assert isinstance(fastloop.__version__, str)
    parts = fastloop.libuv_version().split(".")
    assert len(parts) == 3
    assert tuple(map(int, parts)) >= (1, 42, 0)


async def test_the_running_loop_is_returned_if_it_is_fastloops(
    loop, loop_kind
):
    if loop_kind == "fastloop":
        assert fastloop.get_running_loop() is loop
    else:
        text = f"the running loop is not fastloop's, but {loop!r}"
        with pytest.raises(TypeError, match=re.escape(text)):
            fastloop.get_running_loop()


@pytest.mark.parametrize("module", [asyncio, fastloop])
def test_where_no_loop_runs_there_is_none_to_return(module):
    with pytest.raises(RuntimeError, match="no running event loop"):
        module.get_running_loop()


class Watched(fastloop.Loop):
    """With names of its own that a careless base would have, too."""

    def __init__(self):
        super().__init__()
        self._watchdog = self._close = object()


def test_names_of_a_subclass_are_its_own():
    loop = Watched()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert loop.is_closed()


class Mine(fastloop.Loop):
    """A program's own class."""


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("factory", [None, Mine])
def test_run_makes_and_closes_a_loop(factory, debug):
    async def main():
        return asyncio.get_running_loop()

    loop = fastloop.run(main(), debug=debug, loop_factory=factory)
    assert type(loop) is (factory or fastloop.Loop)
    name = "Mine" if factory else "fastloop.Loop"
    assert repr(loop) == f"<{name} running=False closed=True debug={debug}>"
    assert loop.get_debug() is debug
    assert loop.is_closed()


@pytest.mark.parametrize("module", [asyncio, fastloop])
def test_run_sets_the_current_loop(module, monkeypatch):
    """Child watchers of Python 3.11 to 3.13 are attached to that one."""

    async def main():
        return asyncio.get_running_loop()

    current = []
    monkeypatch.setattr(asyncio, "set_event_loop", current.append)
    monkeypatch.setattr(asyncio.events, "set_event_loop", current.append)
    loop = module.run(main())
    assert current == [loop, None]


def test_run_inside_a_running_loop():
    async def inner():
        pass

    async def main():
        coro = inner()
        with pytest.raises(RuntimeError, match=r"^fastloop\.run\(\) cannot"):
            fastloop.run(coro)
        coro.close()

    fastloop.run(main())


def test_install_refuses_a_python_without_policies(python):
    program = (
        "import importlib, sys; from fastloop._loop import _private; "
        "del _private.DefaultPolicy; sys.version_info = (3, 16); "
        "importlib.reload(_private); import fastloop; fastloop.install()"
    )
    last = python("-c", program).stderr.splitlines()[-1]
    assert last.startswith("RuntimeError: Python 3.16 has no event-loop polic")


def test_install_sets_the_policy_and_warns_as_asyncio_does():
    async def main():
        return type(asyncio.get_running_loop())

    deprecated = sys.version_info >= (3, 14)
    warns = pytest.warns(DeprecationWarning) if deprecated else quiet()
    with quiet():
        before = asyncio.get_event_loop_policy()
        try:
            with warns:
                fastloop.install()
            policy = asyncio.get_event_loop_policy()
            assert isinstance(policy, fastloop.EventLoopPolicy)
            assert asyncio.run(main()) is fastloop.Loop
        finally:
            asyncio.set_event_loop_policy(before)
