"""Functions and classes that were replaced before fastloop was imported."""

import pytest
from isolated_scripts import Script

# What each program does, on asyncio's loop and on fastloop's.
BEFORE = """
def on_both(main):
    import fastloop
    answers = []
    for factory in (asyncio.SelectorEventLoop, fastloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            answers.append(runner.run(main()))
    print(answers[0] == answers[1], answers[0])
"""


@pytest.fixture
def compare(tmp_path):
    """Run a program that calls on_both(main); return what it printed."""
    script = Script("asyncio", tmp_path)
    script.before = BEFORE
    return lambda program: script(program).stdout


def test_the_resolver(compare):
    assert (
        compare("""
        answers = {"db1": "10.0.0.1", "203.0.113.7": "10.0.0.3"}
        threads = set()

        def resolver(host, port, *args, **kwargs):
            threads.add(threading.current_thread())
            return [(2, 1, 6, "", (answers[host], port))]

        socket.getaddrinfo = resolver

        async def main():
            lookup = asyncio.get_running_loop().getaddrinfo
            answers["db1"] = "10.0.0.1"
            found = [await lookup("db1", 1), await lookup("203.0.113.7", 1)]
            answers["db1"] = "10.0.0.2"
            found.append(await lookup("db1", 1))
            return found, threading.main_thread() in threads

        on_both(main)
    """)
        == "True ([[(2, 1, 6, '', ('10.0.0.1', 1))],"
        " [(2, 1, 6, '', ('10.0.0.3', 1))],"
        " [(2, 1, 6, '', ('10.0.0.2', 1))]], False)\n"
    )


@pytest.mark.parametrize("kind", ["a function", "a tracer's wrapper"])
def test_accept(compare, kind):
    wrapper = "Wrapper(plain, lambda bound: calls.append('bound') or bound())"
    program = f"""
from tracers import Wrapper
calls = []
plain = socket.socket.accept

def accept(self):
    calls.append("accept")
    return plain(self)

socket.socket.accept = {"accept" if kind == "a function" else wrapper}

async def main():
    calls.clear()
    async def serve(reader, writer):
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname()
    )
    await reader.read()
    writer.close()
    server.close()
    await server.wait_closed()
    return bool(calls)

on_both(main)
"""
    assert compare(program) == "True True\n"


def test_a_loop_is_not_made_reentrant_by_a_patch_of_asyncios(tmp_path):
    """As nest_asyncio's, made before.  What fails must not run later."""
    done = Script("asyncio", tmp_path)("""
    def run_until_complete(self, future):
        task = asyncio.ensure_future(future, loop=self)
        while not task.done():
            self._run_once()
        return task.result()

    asyncio.SelectorEventLoop.run_until_complete = run_until_complete
    asyncio.SelectorEventLoop._check_running = lambda self: None
    import fastloop

    async def inner():
        print("ran")

    async def main():
        coro = inner()
        try:
            asyncio.get_running_loop().run_until_complete(coro)
        except RuntimeError as exc:
            print(exc)
        coro.close()
        await asyncio.sleep(0)

    fastloop.run(main())
    """)
    assert done.stdout == "This event loop is already running\n"


def test_tasks_of_pycharms_debugger_run(tmp_path):
    """They give call_soon() themselves."""
    done = Script("asyncio", tmp_path)("""
    import types
    from asyncio import tasks
    init = tasks._PyTask.__init__

    def of_the_debugger(self, coro, loop=None, name=None, context=None):
        no_loop = types.SimpleNamespace(
            get_debug=bool, call_soon=lambda *args, **words: None
        )
        init(self, coro, loop=no_loop, name=name, context=context)
        self._loop = loop or asyncio.get_running_loop()
        self._loop.call_soon(self, context=self._context)

    asyncio.Task = tasks._CTask = tasks.Task = tasks._PyTask
    asyncio.Task._pydevd_nest_patched = True
    asyncio.Task.__init__ = of_the_debugger
    import fastloop

    async def main():
        return await asyncio.gather(*map(asyncio.sleep, [0] * 3, "abc"))

    print(fastloop.run(main()), fastloop.run(main(), debug=True))
    """)
    assert done.stdout == "['a', 'b', 'c'] ['a', 'b', 'c']\n"


@pytest.mark.parametrize("replacement", ["unittest.mock.Mock()", "print"])
def test_a_submit_that_is_no_function_does_not_stop_the_import(
    tmp_path, replacement
):
    done = Script("asyncio", tmp_path)(f"""
    import unittest.mock
    from concurrent.futures import ThreadPoolExecutor
    ThreadPoolExecutor.submit = {replacement}
    import fastloop
    fastloop.run(asyncio.sleep(0))
    """)
    assert done.stdout == ""
