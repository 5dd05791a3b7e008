"""A suite that `pytest --fastloop` runs on Windows, on asyncio's own loop.

tools/wheels --try runs it by CPythons for Windows, and test_windows.py on
Linux, where the names alone are those of Windows.
"""

import asyncio
import os
import warnings

import pytest

import fastloop
from fastloop.cli import main as command
from fastloop.contrib import metered

ABOUT = "asyncio's own loop: there is no native one for Windows"
running = asyncio.get_running_loop


async def exchange():
    """Send through a server of streams; return the loop."""

    async def echo(reader, writer):
        writer.write(await reader.read(9))
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"data")
        assert await reader.read() == b"data"
        writer.close()
    return fastloop.get_running_loop()


@pytest.fixture(autouse=True)
def no_policy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
        asyncio.set_event_loop_policy(None)


def test_a_program_runs_on_asyncios_loop():
    assert not fastloop.is_native
    loop = fastloop.run(exchange())
    assert type(loop) is fastloop.Loop
    assert isinstance(loop, asyncio.ProactorEventLoop)
    with asyncio.Runner(loop_factory=fastloop.new_event_loop) as runner:
        assert type(runner.run(exchange())) is fastloop.Loop
    fastloop.install()
    assert type(asyncio.run(exchange())) is fastloop.Loop


def test_a_policy_for_the_selector_loop_decides():
    asyncio.set_event_loop_policy(asyncio.WindowsSelectorEventLoopPolicy())
    assert type(fastloop.run(exchange())) is asyncio.SelectorEventLoop


@pytest.mark.asyncio
async def test_the_option_leaves_the_suite_on_asyncio():
    assert type(running()).__module__ == "asyncio.windows_events"


@pytest.mark.fastloop(virtual_time=True)
def test_what_needs_virtual_time_is_skipped():
    raise AssertionError("it ran")


def set_hook():
    running().slow_callback_hook = print


@pytest.mark.parametrize(
    "call",
    [
        lambda: running().metrics(),
        lambda: running().enable_metrics(watchdog_s=1),
        lambda: metered(None, "main"),
        set_hook,
        fastloop.libuv_version,
    ],
)
def test_what_only_fastloops_loop_has_is_refused(call):
    async def main():
        call()

    with pytest.raises(NotImplementedError, match=ABOUT):
        fastloop.run(main())


def test_a_part_that_needs_the_core_says_so():
    with pytest.raises(ImportError, match=f"this is {ABOUT}"):
        import fastloop.streams  # noqa: F401


def test_the_adapter_of_a_system_without_forks_imports():
    assert not hasattr(os, "register_at_fork")
    from fastloop.contrib import opentelemetry

    assert opentelemetry.instrument


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ("info", 0, f" loop {ABOUT} "),
        (
            "top",
            2,
            f"fastloop: `top` needs fastloop's loop, and this is {ABOUT}",
        ),
        ("run -c print(7)", 0, f"7 fastloop: this is {ABOUT}"),
    ],
)
def test_the_command_line(capsys, words, status, told):
    assert command(words.split()) == status
    printed = "".join(capsys.readouterr())
    assert told in " ".join(printed.split())
