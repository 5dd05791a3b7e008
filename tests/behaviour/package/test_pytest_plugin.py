"""`pytest --fastloop` over suites that know nothing of fastloop.

Each test runs such a suite in a process of its own, as its users do.  Its only
odd part is the fixture `kind`, which names the loop of a test.
"""

from importlib.metadata import entry_points

import pytest
from builds import environment
from patience import TEST_LIMIT

pytest_plugins = ["pytester"]

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
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    # They take longer to import than all else of an inner run.
    slow = "-p no:hypothesispytest -p no:anyio"
    # With it each pytest-asyncio warns of policies.
    monkeypatch.setenv("PYTEST_ADDOPTS", f"{slow} -p no:looptime_plugin")

    def run(source, *args, conftest="", modules=None, **ini):
        lines = "".join(f"{k} = {v}\n" for k, v in ini.items())
        pytester.makefile(".ini", pytest=INI + lines)
        pytester.makeconftest(CONFTEST + conftest)
        pytester.makepyfile(source, **(modules or {}))
        return pytester.runpytest_subprocess(*PLUGIN, *args, timeout=LIMIT)

    return run


SCOPES = """
import asyncio
import pytest
import pytest_asyncio

made = []

@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared():
    made.append("shared")
    yield asyncio.get_running_loop()

@pytest_asyncio.fixture
async def own():
    return asyncio.get_running_loop()

@pytest.mark.asyncio
async def test_own(kind, own, shared):
    assert own is asyncio.get_running_loop()
    assert kind() == "fastloop"

@pytest.mark.asyncio(loop_scope="session")
async def test_shared(kind, shared):
    assert shared is asyncio.get_running_loop()
    assert kind() == "fastloop"

@pytest.mark.asyncio(loop_scope="module")
class TestModule:
    loops = set()

    async def test_first(self, kind):
        self.loops.add(asyncio.get_running_loop())
        assert kind() == "fastloop"

    async def test_second(self):
        self.loops.add(asyncio.get_running_loop())
        assert len(self.loops) == 1

def test_shared_was_made_once(shared):
    assert made == ["shared"]
"""
POLICY_SET = """
import asyncio
import pytest
import warnings

def set_policy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())

set_policy()

@pytest.mark.parametrize("time", ["first", "second"])
def test_it(kind, time):
    async def main():
        return kind()
    assert asyncio.run(main()) == "fastloop"
    loop = asyncio.new_event_loop()
    loop.close()
    assert kind(loop) == "fastloop"
    set_policy()
"""
POLICY_FIXTURE = """
import asyncio
import pytest

@pytest.fixture(scope="module", params=["first", "second"])
def event_loop_policy(request):
    yield asyncio.DefaultEventLoopPolicy()

@pytest.mark.asyncio
async def test_policy(kind, event_loop_policy):
    assert kind() == "fastloop"
    loop = event_loop_policy.new_event_loop()
    loop.close()
    assert kind(loop) == "fastloop"
"""
UNITTEST = """
import asyncio
import sys
import unittest

class Base(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.loop = asyncio.get_running_loop()

    async def test_it(self):
        assert self.loop is asyncio.get_running_loop()
        assert type(self.loop).__module__.partition(".")[0] == "fastloop"

class TestDefault(Base):
    def setUp(self):
        self.current = asyncio.get_event_loop()

    def tearDown(self):
        assert self.current is self.loop
        assert self.current is asyncio.get_event_loop()

class TestNamed(Base):
    if sys.version_info >= (3, 13):
        loop_factory = asyncio.EventLoop

del Base
"""
ANYIO = """
import asyncio
import anyio
import pytest
import sniffio

pytestmark = pytest.mark.anyio

@pytest.fixture(
    scope="module",
    params=[
        pytest.param("asyncio", id="plain"),
        pytest.param(("asyncio", {"debug": True}), id="debug"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
        pytest.param(
            ("asyncio", {"loop_factory": asyncio.SelectorEventLoop}),
            id="factory",
        ),
        pytest.param("trio", id="three"),
    ],
)
def anyio_backend(request):
    return request.param

@pytest.fixture
async def resource(anyio_backend_name):
    await anyio.sleep(0)
    return sniffio.current_async_library()

async def test_it(resource, kind, anyio_backend_name, request):
    assert resource == anyio_backend_name
    if resource == "asyncio":
        assert kind() == "fastloop"
        debug = request.node.callspec.id == "debug"
        assert asyncio.get_running_loop().get_debug() == debug
"""


@pytest.mark.parametrize(
    ("files", "args", "passed"),
    [
        ({"test_scopes": SCOPES, "test_unittest": UNITTEST}, [], 7),
        (
            {"test_set": POLICY_SET, "test_named": POLICY_FIXTURE},
            ["-Wdefault"],
            4,
        ),
        ({"test_anyio": ANYIO}, ["-v", "-p", "anyio"], 5),
    ],
)
def test_each_way_of_a_suite_runs_on_fastloop(suite, files, args, passed):
    if "test_anyio" in files:
        pytest.importorskip("trio", reason="trio is not installed")
    result = suite("", "--fastloop", *args, modules=files)
    result.assert_outcomes(passed=passed)
    if "-v" in args:  # the ids of the tests stay
        result.stdout.fnmatch_lines(["*test_it?uvloop? PASSED*"])


FACTORIES = """
class Other(asyncio.SelectorEventLoop):
    pass

def pytest_asyncio_loop_factories(config, item):
    return {"plain": asyncio.SelectorEventLoop, "other": Other}
"""


@pytest.fixture
def factories():
    """Return a conftest.py that names loops."""
    pytest_asyncio = pytest.importorskip("pytest_asyncio.plugin")
    specs = getattr(pytest_asyncio, "PytestAsyncioSpecs", None)
    if not hasattr(specs, "pytest_asyncio_loop_factories"):
        pytest.skip("this pytest-asyncio has no pytest_asyncio_loop_factories")
    return FACTORIES


def test_suite_with_loop_factories_of_its_own(suite, factories):
    marked = """
@pytest.mark.asyncio(loop_factories=["other"])
async def test_one(kind):
    assert kind() == "fastloop"
"""
    result = suite(ASYNC + marked, "--fastloop", "-v", conftest=factories)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_it?plain? PASSED*"])
    result.stdout.fnmatch_lines(["*test_it?other? PASSED*"])


def test_loop_factories_of_one_folder_change_no_other(
    suite, factories, pytester
):
    folder = pytester.mkdir("folder")
    (folder / "conftest.py").write_text(f"import asyncio\n{factories}")
    (folder / "test_named.py").write_text(ASYNC)
    result = suite("", "--fastloop", modules={"test_scopes": SCOPES})
    result.assert_outcomes(passed=7)


# -- options and the verdict --------------------------------------------------

ASYNC = """
import pytest

@pytest.mark.asyncio
async def test_it(kind):
    assert kind() == "fastloop"
"""
SYNC = "def test_it():\n    pass\n"
SUITES = {"async": ASYNC, "sync": SYNC}
MADE = "fastloop: * loop* made"
NONE_MADE = "*no test of this run made an event loop*"


@pytest.mark.parametrize(
    ("kind", "args", "ini", "status", "line"),
    [
        ("async", ["--fastloop"], {}, "OK", "fastloop: *, libuv *"),
        ("async", ["--fastloop", "-n", "1"], {}, "OK", MADE),
        ("async", [], {"fastloop": "true"}, "OK", MADE),
        ("async", ["--no-fastloop"], {"fastloop": "true"}, "TESTS_FAILED", ""),
        ("sync", ["--fastloop"], {}, "TESTS_FAILED", NONE_MADE),
        # Also set where a selection has synchronous tests alone.
        ("sync", [], {"fastloop": "true"}, "OK", NONE_MADE),
        ("sync", ["--fastloop", "--collect-only"], {}, "OK", ""),
        ("sync", ["--fastloop", "-knone"], {}, "NO_TESTS_COLLECTED", ""),
    ],
)
def test_status_and_report(suite, kind, args, ini, status, line):
    if "-n" in args:
        pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    result = suite(SUITES[kind], *args, **ini)
    assert result.ret == pytest.ExitCode[status]
    if line:
        result.stdout.fnmatch_lines([line])
    if line != NONE_MADE:
        result.stdout.no_fnmatch_line(NONE_MADE)


def test_without_the_option_nothing_of_fastloop_is_loaded(suite):
    source = """
        import sys

        def test_not_imported():
            assert "fastloop.testing.plugin" in sys.modules
            assert "fastloop._core" not in sys.modules
        """
    result = suite(source, *"-p no:asyncio -W default".split())
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*fastloop:*")


def test_core_that_cannot_be_imported_is_a_usage_error(suite, pytester):
    """A clear sentence and status 4, not a run on asyncio."""
    broken = "import sys\nsys.modules['fastloop._core'] = None\n"
    pytester.makepyfile(break_core=broken)
    result = suite(SYNC, "--fastloop", "-p", "break_core")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*fastloop cannot be used:*"])


def test_a_failure_shows_its_seed(suite):
    source = ASYNC.replace("==", "!=")
    result = suite(source, "--fastloop-seed=42")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["fastloop: *, seed 42", "--fastloop-seed=42"])


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--fastloop", "off, by FASTLOOP_DISABLE=loop"),
        ("--fastloop-virtual-time", "*, virtual time"),
    ],
)
def test_the_header_says_which_loops_are_off(suite, monkeypatch, option, says):
    """Those for tests stay fastloop's: asyncio has none."""
    monkeypatch.setenv("FASTLOOP_DISABLE", "loop")
    result = suite("def test_nothing(): pass", option)
    result.stdout.fnmatch_lines([f"fastloop: {says}"])


#: What asyncio is like on Python 3.16, as far as fastloop uses it.
NO_POLICIES = """
import asyncio
from asyncio import unix_events
from fastloop._loop import _private

_private.DefaultPolicy = object
asyncio.EventLoop = unix_events.EventLoop = asyncio.SelectorEventLoop
"""


def test_without_policies_asyncios_default_class_is_replaced(suite):
    source = """
        import asyncio

        def test_it(kind):
            async def main():
                return kind()
            with asyncio.Runner(loop_factory=asyncio.EventLoop) as runner:
                assert runner.run(main()) == "fastloop"
        """
    modules = {"no_policies": NO_POLICIES}
    result = suite(source, "--fastloop", "-p", "no_policies", modules=modules)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["fastloop: 1 loop made"])


# -- virtual time -------------------------------------------------------------

VIRTUAL_TIME = """
import asyncio
import socket
import threading
import time

import pytest

virtual = pytest.mark.fastloop(virtual_time=True)
shared = pytest.mark.asyncio(loop_scope="module")

async def sleep(seconds):
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.sleep(seconds)
    return loop.time() - began

async def silence(later=None):
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        if later is not None:
            timer = threading.Timer(later, far.send, [b"x"])
            timer.daemon = True
            timer.start()
        await asyncio.get_running_loop().sock_recv(near, 1)

def clock_stands_still():
    began = asyncio.get_running_loop().time()
    time.sleep(0.001)
    return asyncio.get_running_loop().time() == began

@virtual
@shared
async def test_first_on_a_shared_loop():
    assert await sleep(1000) == pytest.approx(1000)

@shared
async def test_second_on_a_shared_loop(request):
    virtual = request.config.getoption("fastloop_virtual_time")
    assert clock_stands_still() == virtual
    assert await sleep(0.001) < 60

@pytest.mark.fastloop(start=4e6, idle_s=60)
@shared
async def test_third_on_a_shared_loop():
    assert asyncio.get_running_loop().time() == 4e6
    await asyncio.wait_for(silence(later=0.05), 1)

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
    assert not clock_stands_still()
    assert await sleep(0.001) < 60
    assert type(asyncio.get_running_loop()).__name__ == "Loop"

@virtual
@pytest.mark.fastloop(patience_s=0.1)
@pytest.mark.asyncio
async def test_patience_of_a_mark():
    await silence()

@virtual
@pytest.mark.asyncio
async def test_patience_of_the_run():
    await silence()

@virtual
def test_without_a_loop():
    pass
"""


@pytest.mark.parametrize("option", ["--fastloop", "--fastloop-virtual-time"])
def test_a_mark_gives_a_test_virtual_time(suite, option):
    patience = "--fastloop-patience-s=0.2"
    result = suite(VIRTUAL_TIME, option, patience)
    result.assert_outcomes(passed=7, failed=2)
    result.stdout.fnmatch_lines(["E *had no event in 0.1 s of real time"])
    result.stdout.fnmatch_lines(["E *had no event in 0.2 s of real time"])


def test_the_thread_of_pytest_timeout_delays_no_clock(suite):
    """It starts after the test's loop was made."""
    pytest.importorskip("pytest_timeout", reason="it is not installed")
    ini = {"timeout": 20, "timeout_method": "thread", "timeout_func_only": 1}
    args = "--fastloop-virtual-time", "--fastloop-patience-s=60"
    result = suite(VIRTUAL_TIME, *args, "-kfirst or second or marked", **ini)
    result.assert_outcomes(passed=3, deselected=6)


@pytest.mark.parametrize(
    ("mark", "options", "text"),
    [
        ("virtual_time=True", [], "*run pytest with --fastloop, "),
        ("virtual=True", ["--fastloop"], "*takes virtual_time, start, "),
    ],
)
def test_what_cannot_hold_ends_the_run(suite, mark, options, text):
    source = f"import pytest\n@pytest.mark.fastloop({mark})\n{SYNC}"
    result = suite(source, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"{text}*"])


def test_a_marked_test_that_does_not_run_ends_no_run(suite):
    mark = "@pytest.mark.fastloop(virtual_time=True)"
    source = f"import pytest\n{mark}\ndef test_hour(): pass\n{SYNC}"
    result = suite(source, "-k", "test_it")
    result.assert_outcomes(passed=1, deselected=1)
    assert suite(source, "--collect-only").ret == pytest.ExitCode.OK


LOOPTIME = """
import asyncio

import looptime as package
import pytest
import pytest_asyncio

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made_before():
    with package.enabled(strict=True):
        await asyncio.sleep(1000)

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime(end=60, resolution=1)]

@pytest.mark.looptime(start=30, idle_timeout=1, noop_cycles=1)
async def test_marked(looptime, kind):
    assert kind() == "fastloop"
    assert looptime == 30
    await asyncio.sleep(30)
    assert looptime == 60

async def test_that_ends():
    await asyncio.sleep(61)

@pytest.mark.looptime(False)
async def test_real_time(chronometer):
    with chronometer:
        await asyncio.sleep(0.001)
    assert chronometer >= 0.001

@pytest.mark.looptime(end=None)
@pytest.mark.asyncio(loop_scope="module")
async def test_on_a_shared_loop(looptime, made_before):
    began = float(looptime)
    await asyncio.sleep(1000)
    assert looptime - began == pytest.approx(1000)
"""


def test_a_suite_for_looptime_runs_unchanged(suite):
    pytest.importorskip("looptime", reason="looptime is not installed")
    result = suite(LOOPTIME, "--fastloop", "-plooptime_plugin")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["E *TimeoutError: the next timer is after *"])


@pytest.mark.parametrize("option", ["--looptime", "--no-looptime"])
def test_the_options_of_looptime_are_served(suite, option):
    pytest.importorskip("looptime", reason="looptime is not installed")
    source = """
        import asyncio
        import pytest

        @pytest.mark.parametrize(
            "mark", ["", pytest.param("", marks=pytest.mark.looptime)]
        )
        @pytest.mark.asyncio
        async def test_it(mark, request):
            is_on = getattr(asyncio.get_running_loop(), "looptime_on", False)
            assert is_on == request.config.getoption("looptime")
        """
    result = suite(source, "--fastloop", "-plooptime_plugin", option)
    result.assert_outcomes(passed=2)
