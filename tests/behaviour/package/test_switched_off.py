"""FASTLOOP_DISABLE=loop: every way to fastloop leads to asyncio's own loop."""

import pytest

SHOW = """
import asyncio
import fastloop

async def show():
    print(type(fastloop.get_running_loop()).__module__)
    return "done"

if %s:
    asyncio.run(show())
else:
    assert fastloop.run(show()) == 'done'
    with asyncio.Runner(loop_factory=fastloop.new_event_loop) as runner:
        runner.run(show())
    fastloop.install()
    asyncio.run(show())
"""


@pytest.mark.parametrize("names", ["loop", "cork, loop"])
@pytest.mark.parametrize("by_command", [True, False])
def test_a_program_gets_asyncios_loop(python, by_command, names):
    command = ["-m", "fastloop", "run"] if by_command else []
    words = ("-W", "ignore", *command, "-c", SHOW % by_command)
    done = python(*words, FASTLOOP_DISABLE=names)
    ways = 1 if by_command else 3
    assert done.stdout == "asyncio.unix_events\n" * ways, done.stderr
    said = "fastloop: FASTLOOP_DISABLE=loop: this is asyncio's own loop\n"
    assert done.stderr == said * by_command
