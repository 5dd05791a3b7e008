"""Suites that know nothing of fastloop, for the tests of the pytest plugin.

Each is written to a folder and run in a process of its own, as its users do.
Its only odd part is the fixture `kind`, which names the loop of a test.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from patience import TEST_LIMIT

INI = """
[pytest]
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""

CONFTEST = """
import asyncio

import pytest


@pytest.fixture(scope="session")
def kind():
    def kind(loop=None):
        cls = type(loop or asyncio.get_running_loop())
        return cls.__module__.partition(".")[0]
    return kind
"""

# The plugin is known by its entry point, or by its module's name where the
# package was put on the path without being installed.
_POINTS = entry_points(group="pytest11", name="fastloop")
PLUGIN = () if _POINTS else ("-p", "fastloop.testing.plugin")


#: Seconds for the inner pytest, which the outer one's watchdog would not end.
LIMIT = TEST_LIMIT * 5 / 6


@pytest.fixture
def suite(pytester, monkeypatch):
    """suite(source, *args, **ini) writes, runs and gives the result."""
    core = pytest.importorskip("fastloop._core", reason="not built")
    home = [str(Path(core.__file__).parents[1])]
    home += filter(None, [os.environ.get("PYTHONPATH")])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(home))
    # It takes longer to import than all else of an inner run.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")

    def run(source, *args, conftest="", modules=None, **ini):
        lines = "".join(f"{k} = {v}\n" for k, v in ini.items())
        pytester.makefile(".ini", pytest=INI + lines)
        pytester.makeconftest(CONFTEST + conftest)
        pytester.makepyfile(source, **(modules or {}))
        return pytester.runpytest_subprocess(*PLUGIN, *args, timeout=LIMIT)

    return run


ONE_TEST = """
import pytest

@pytest.mark.asyncio
async def test_it(kind):
    assert kind() == "{kind}"
"""

SYNC = "def test_sync():\n    pass\n"

#: Marks for virtual time.
VIRTUAL_TIME = """
import asyncio
import pytest

virtual = pytest.mark.fastloop(virtual_time=True)

async def sleep(seconds):
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(seconds)
    return loop.time() - began

@virtual
@pytest.mark.asyncio
async def test_marked():
    assert await sleep(1000) == 1000

@virtual
def test_loop_of_its_own():
    assert asyncio.run(sleep(1000)) == 1000

@pytest.mark.fastloop(virtual_time=False)
@pytest.mark.asyncio
async def test_real_time():
    assert await sleep(0.001) < 60
    assert type(asyncio.get_running_loop()).__name__ == "Loop"

@virtual
@pytest.mark.asyncio
async def test_deadlock():
    await asyncio.Event().wait()

@virtual
def test_without_a_loop():
    pass

@pytest.mark.asyncio(loop_scope="module")
async def test_earlier():
    await sleep(0)

@virtual
@pytest.mark.asyncio(loop_scope="module")
async def test_wider_scope():
    await sleep(0.001)
"""
