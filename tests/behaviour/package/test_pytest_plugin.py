"""`pytest --fastloop` over suites that know nothing of fastloop.

Each test runs such a suite (`inner_suites.py`) and looks at which loop its
tests ran on.
"""

import pytest
from inner_suites import ONE_TEST, SYNC

pytest_plugins = ["pytester"]


def test_option_puts_pytest_asyncio_on_fastloop(suite):
    result = suite(ONE_TEST.format(kind="fastloop"), "--fastloop", "-v")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["fastloop: *, libuv *"])
    result.stdout.fnmatch_lines(["*::test_it PASSED*"])


def test_ini_option_is_enough(suite):
    result = suite(ONE_TEST.format(kind="fastloop"), fastloop="true")
    result.assert_outcomes(passed=1)


def test_no_fastloop_overrides_the_ini_option(suite):
    result = suite(
        ONE_TEST.format(kind="asyncio"), "--no-fastloop", fastloop="true"
    )
    result.assert_outcomes(passed=1)


def test_without_the_option_nothing_of_fastloop_is_loaded(suite):
    result = suite(
        """
        import sys

        def test_not_imported():
            assert "fastloop.testing.plugin" in sys.modules
            assert "fastloop._core" not in sys.modules
        """,
        "-p",
        "no:asyncio",
        "-p",
        "no:anyio",
        "-W",
        "default",
    )
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*fastloop:*")


def test_auto_mode_with_loops_of_every_scope(suite):
    result = suite(
        """
        import asyncio
        import pytest
        import pytest_asyncio

        @pytest_asyncio.fixture(scope="session", loop_scope="session")
        async def shared():
            yield asyncio.get_running_loop()

        @pytest_asyncio.fixture
        async def own():
            return asyncio.get_running_loop()

        async def test_own(kind, own):
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

        def test_sync(kind):
            async def main():
                return kind()
            assert asyncio.run(main()) == "fastloop"
            loop = asyncio.new_event_loop()
            loop.close()
            assert kind(loop) == "fastloop"
        """,
        "--fastloop",
        asyncio_mode="auto",
    )
    result.assert_outcomes(passed=5)


FACTORIES = """
class Other(asyncio.SelectorEventLoop):
    pass

def pytest_asyncio_loop_factories(config, item):
    return {"plain": asyncio.SelectorEventLoop, "other": Other}
"""


def test_suite_with_loop_factories_of_its_own(suite):
    pytest_asyncio = pytest.importorskip("pytest_asyncio.plugin")
    specs = getattr(pytest_asyncio, "PytestAsyncioSpecs", None)
    if not hasattr(specs, "pytest_asyncio_loop_factories"):
        pytest.skip("this pytest-asyncio has no pytest_asyncio_loop_factories")
    result = suite(
        """
        import pytest

        @pytest.mark.asyncio
        async def test_each(kind):
            assert kind() == "fastloop"

        @pytest.mark.asyncio(loop_factories=["other"])
        async def test_one(kind):
            assert kind() == "fastloop"
        """,
        "--fastloop",
        "-v",
        conftest=FACTORIES,
    )
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_each?plain? PASSED*"])
    result.stdout.fnmatch_lines(["*test_each?other? PASSED*"])


def test_suite_with_a_policy_fixture_of_its_own(suite):
    result = suite(
        """
        import asyncio
        import pytest

        @pytest.fixture(scope="module", params=["first", "second"])
        def event_loop_policy(request):
            yield asyncio.DefaultEventLoopPolicy()

        @pytest.mark.asyncio
        async def test_it(kind):
            assert kind() == "fastloop"
            asyncio.new_event_loop().close()

        @pytest.mark.asyncio
        async def test_policy(kind, event_loop_policy):
            loop = event_loop_policy.new_event_loop()
            loop.close()
            assert kind(loop) == "fastloop"
        """,
        "--fastloop",
        "-W",
        "default",
    )
    result.assert_outcomes(passed=4)


def test_policy_set_while_collecting_is_replaced(suite):
    result = suite(
        """
        import asyncio
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_event_loop_policy(asyncio.DefaultEventLoopPolicy())

        def test_it(kind):
            async def main():
                return kind()
            assert asyncio.run(main()) == "fastloop"
        """,
        "--fastloop",
    )
    result.assert_outcomes(passed=1)


ANYIO = """
import anyio
import pytest
import sniffio

pytestmark = pytest.mark.anyio

@pytest.fixture
async def resource(anyio_backend_name):
    await anyio.sleep(0)
    return sniffio.current_async_library()

async def test_it(resource, kind, anyio_backend, anyio_backend_name):
    assert resource == anyio_backend_name
    if resource == "asyncio":
        assert kind() == "fastloop"
    assert anyio_backend == resource or anyio_backend[0] == resource
"""


def test_anyio_default_backends(suite):
    """Its own fixture: asyncio and trio, whose test is left alone."""
    pytest.importorskip("trio", reason="trio is not installed")
    result = suite(ANYIO, "--fastloop", "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_it?asyncio? PASSED*"])
    result.stdout.fnmatch_lines(["*test_it?trio? PASSED*"])


def test_anyio_backend_of_the_suites_own(suite):
    """Options are kept but for the loop's, and the test ids stay."""
    pytest.importorskip("trio", reason="trio is not installed")
    result = suite(
        ANYIO
        + """
import asyncio

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

async def test_options(anyio_backend, anyio_backend_name, request):
    if anyio_backend_name == "asyncio":
        debug = request.node.callspec.id == "debug"
        assert asyncio.get_running_loop().get_debug() == debug
""",
        "--fastloop",
        "-v",
    )
    result.assert_outcomes(passed=10)
    result.stdout.fnmatch_lines(["*test_it?uvloop? PASSED*"])


def test_unittest(suite):
    result = suite(
        """
        import asyncio
        import sys
        import unittest

        class Base(unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                self.loop = asyncio.get_running_loop()

            async def test_it(self):
                assert self.loop is asyncio.get_running_loop()
                name = type(self.loop).__module__
                assert name.partition(".")[0] == "fastloop"

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
        """,
        "--fastloop",
    )
    result.assert_outcomes(passed=2)


def test_run_that_made_no_loop_fails(suite):
    result = suite(SYNC, "--fastloop")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*no test of this run made an event loop*"])


def test_ini_option_only_warns_of_a_run_that_made_no_loop(suite):
    """It is also set where a selection has synchronous tests alone."""
    result = suite(SYNC, fastloop="true")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*no test of this run made an event loop*"])


@pytest.mark.parametrize(
    ("args", "status"),
    [
        (("--collect-only",), pytest.ExitCode.OK),
        (("--setup-only",), pytest.ExitCode.OK),
        (("-k", "absent"), pytest.ExitCode.NO_TESTS_COLLECTED),
    ],
)
def test_run_with_nothing_to_run_is_not_blamed(suite, args, status):
    result = suite(SYNC, "--fastloop", *args)
    assert result.ret == status
    result.stdout.no_fnmatch_line("*made an event loop*")


def test_workers_of_xdist_count(suite):
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    source = ONE_TEST.format(kind="fastloop")
    result = suite(source, "--fastloop", "-n", "1")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    result = suite(SYNC, "--fastloop", "-n", "1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_core_that_cannot_be_imported_is_a_usage_error(suite, pytester):
    """A clear sentence and status 4, not a run on asyncio."""
    pytester.makepyfile(
        break_core="""
        import sys
        sys.modules["fastloop._core"] = None
        """
    )
    result = suite(SYNC, "--fastloop", "-p", "break_core")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*fastloop cannot be used:*"])


#: What asyncio is like on Python 3.16, as far as fastloop uses it.
NO_POLICIES = """
import asyncio
from asyncio import unix_events
from fastloop import _private

_private.DefaultPolicy = object
asyncio.EventLoop = unix_events.EventLoop = asyncio.SelectorEventLoop
"""


def test_without_policies_asyncios_default_class_is_replaced(suite):
    result = suite(
        """
        import asyncio

        def test_it(kind):
            async def main():
                return kind()
            with asyncio.Runner(loop_factory=asyncio.EventLoop) as runner:
                assert runner.run(main()) == "fastloop"
        """,
        "--fastloop",
        "-p",
        "no_policies",
        modules={"no_policies": NO_POLICIES},
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["fastloop: 1 loop made"])
