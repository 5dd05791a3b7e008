"""What the fastloop package offers to programs: loops, policy, run."""

import asyncio
import contextlib
import subprocess
import sys
import unittest
import warnings

import pytest
from patience import PATIENCE

import fastloop


@contextlib.contextmanager
def quiet():
    """Policies are deprecated from 3.14 and go in 3.16."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def test_loop_can_be_subclassed():
    class Mine(fastloop.Loop):
        def __init__(self, name):
            super().__init__()
            self.name = name

    loop = Mine("x")
    assert loop.name == "x"
    assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1
    loop.close()


def test_version_and_libuv_version():
    assert isinstance(fastloop.__version__, str)
    parts = fastloop.libuv_version().split(".")
    assert len(parts) == 3
    assert tuple(map(int, parts)) >= (1, 42, 0)


def test_run():
    async def main():
        return type(asyncio.get_running_loop())

    assert fastloop.run(main()) is fastloop.Loop


def test_run_debug():
    async def main():
        return asyncio.get_running_loop().get_debug()

    assert fastloop.run(main(), debug=True) is True
    assert fastloop.run(main(), debug=False) is False


def test_run_loop_factory():
    made = []

    def factory():
        made.append(fastloop.new_event_loop())
        return made[0]

    async def main():
        return asyncio.get_running_loop()

    assert fastloop.run(main(), loop_factory=factory) is made[0]
    assert made[0].is_closed()


def test_run_takes_keywords_only():
    async def main():
        pass

    coro = main()
    with pytest.raises(TypeError):
        fastloop.run(coro, True)
    coro.close()


@pytest.mark.parametrize("bad", [None, 1, lambda: None])
def test_run_refuses_other_objects_than_coroutines(bad):
    with pytest.raises((TypeError, ValueError)):
        fastloop.run(bad)


def test_run_inside_a_running_loop():
    async def inner():
        pass

    async def main():
        coro = inner()
        with pytest.raises(RuntimeError, match=r"^fastloop\.run\(\) cannot"):
            fastloop.run(coro)
        coro.close()

    fastloop.run(main())


def test_policy_makes_our_loops():
    with quiet():
        policy = fastloop.EventLoopPolicy()
        loop = policy.new_event_loop()
    assert isinstance(loop, fastloop.Loop)
    loop.close()


def test_policy_get_and_set_event_loop():
    with quiet():
        policy = fastloop.EventLoopPolicy()
        loop = policy.new_event_loop()
        policy.set_event_loop(loop)
        assert policy.get_event_loop() is loop
        policy.set_event_loop(None)
        loop.close()


def test_policy_with_asyncio_run():
    async def main():
        return type(asyncio.get_running_loop())

    with quiet():
        before = asyncio.get_event_loop_policy()
        asyncio.set_event_loop_policy(fastloop.EventLoopPolicy())
        try:
            assert asyncio.run(main()) is fastloop.Loop
        finally:
            asyncio.set_event_loop_policy(before)


def test_install_refuses_a_python_without_policies():
    program = (
        "import importlib, sys; from fastloop import _private; "
        "del _private.DefaultPolicy; sys.version_info = (3, 16); "
        "importlib.reload(_private); import fastloop; fastloop.install()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith("RuntimeError: Python 3.16 has no event-loop polic")


def test_install():
    with quiet():
        before = asyncio.get_event_loop_policy()
        try:
            fastloop.install()
            policy = asyncio.get_event_loop_policy()
            assert isinstance(policy, fastloop.EventLoopPolicy)
            loop = asyncio.new_event_loop()
            assert isinstance(loop, fastloop.Loop)
            loop.close()
        finally:
            asyncio.set_event_loop_policy(before)


@pytest.mark.skipif(
    sys.version_info < (3, 14), reason="policies are deprecated from 3.14"
)
def test_install_warns_as_asyncio_does():
    with quiet():
        before = asyncio.get_event_loop_policy()
    try:
        with pytest.warns(DeprecationWarning):
            fastloop.install()
    finally:
        with quiet():
            asyncio.set_event_loop_policy(before)


def test_asyncio_runner_with_new_event_loop():
    async def main():
        return type(asyncio.get_running_loop())

    with asyncio.Runner(loop_factory=fastloop.new_event_loop) as runner:
        assert runner.run(main()) is fastloop.Loop


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="loop_factory is new in 3.12"
)
def test_asyncio_run_with_new_event_loop():
    async def main():
        return type(asyncio.get_running_loop())

    kind = asyncio.run(main(), loop_factory=fastloop.new_event_loop)
    assert kind is fastloop.Loop


def test_isolated_asyncio_test_case():
    class Case(unittest.IsolatedAsyncioTestCase):
        loop_factory = staticmethod(fastloop.new_event_loop)

        async def test_it(self):
            kinds.append(type(asyncio.get_running_loop()))

    kinds = []
    result = unittest.TestResult()
    Case("test_it").run(result)
    assert result.wasSuccessful(), result.errors
    if sys.version_info >= (3, 13):
        assert kinds == [fastloop.Loop]
    else:
        assert len(kinds) == 1
