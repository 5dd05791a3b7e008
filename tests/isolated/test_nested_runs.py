"""Runs of a loop inside its own callbacks, as nest_asyncio applies them.

Each case is a coroutine, in one process for each package and each loop.
"""

import ast
import sys

import pytest

BEFORE = """
import contextvars

async def after(seconds=0.001, value=7):
    await asyncio.sleep(seconds)
    return value

def nested(coro):
    return asyncio.get_running_loop().run_until_complete(coro)

def raised(function, *args):
    try:
        return function(*args)
    except BaseException as exc:
        return repr(exc)

async def served(protocol, **options):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, **options)
    return server, server.sockets[0].getsockname()

def run_case(name, case):
    loop = new_loop()
    asyncio.set_event_loop(loop)
    async def main():
        nest.apply(loop)
        return await case(loop)
    print((name, raised(loop.run_until_complete, main())), flush=True)
    loop.close()
"""

#: What runs in a loop, and what it returns.
CASES = {
    "the task around it is no obstacle, and current again": (
        """
    task = asyncio.current_task()
    async def inner():
        return asyncio.current_task() not in (None, task)
    return nested(inner()), asyncio.current_task() is task
    """,
        (True, True),
    ),
    "other callbacks run, each in its turn": (
        """
    log = []
    loop.call_soon(log.append, 1)
    loop.call_soon(lambda: log.append(nested(after(0, 3))))
    loop.call_soon(log.append, 2)
    await after()
    return log
    """,
        [1, 2, 3],
    ),
    "only nest_asyncio2 ends each run by an iteration": (
        """
    calls, counts, done = [], [], loop.create_future()
    done.set_result(None)
    async def inner():
        loop.call_soon(calls.append, 2)
    loop.call_soon(calls.append, 1)
    for run in done, inner():
        nested(run)
        counts.append(len(calls))
        await asyncio.sleep(0)
    return counts == ([1, 2] if nest.__name__ == "nest_asyncio2" else [0, 1])
    """,
        True,
    ),
    "what is of the outer callback's context waits": (
        """
    context, log = contextvars.copy_context(), []
    async def inner(name):
        log.append(name)
    async def outer():
        tasks = [loop.create_task(inner(n), context=context) for n in "ab"]
        loop.call_soon(log.append, "soon", context=context)
        loop.call_later(0, log.append, "later", context=context)
        loop.call_soon(log.append, "never", context=context).cancel()
        nested(after())
        log.append("end")
        return tasks
    await asyncio.wait(await loop.create_task(outer(), context=context))
    await after()
    return log
    """,
        ["end", "a", "b", "soon", "later"],
    ),
    "a reader that runs the loop waits, without spinning": (
        """
    near, far = socket.socketpair()
    log = []
    def read():
        log.append(near.recv(1))
        if len(log) == 1:
            began = time.process_time()
            nested(after(0.2))
            log.append(time.process_time() - began < 0.1)
        elif len(log) == 4:
            loop.remove_reader(near)
            done.set_result(None)
    done = loop.create_future()
    loop.add_reader(near, read)
    far.send(b"xyz")
    await done
    near.close()
    far.close()
    return log
    """,
        [b"x", True, b"y", b"z"],
    ),
    "a connection that runs the loop sends, ends and reads no more": (
        """
    log, done = [], loop.create_future()
    class Server(asyncio.Protocol):
        room = None
        def connection_made(self, transport):
            self.transport, self.lost = transport, loop.create_future()
        def pause_writing(self):
            self.room = loop.create_future()
        def resume_writing(self):
            self.room.set_result(None)
        def data_received(self, data):
            log.append(data)
            if data == b"a":
                self.transport.write(bytes(9_000_000))
                client.write(b"b")
                nested(asyncio.wait_for(self.room, 9))
                log.append("sent")
            else:
                self.transport.abort()
                log.append(nested(asyncio.wait_for(self.lost, 9)))
                done.set_result(None)
        def connection_lost(self, exc):
            self.lost.set_result("lost")
    server, address = await served(Server)
    client, _ = await loop.create_connection(asyncio.Protocol, *address)
    client.write(b"a")
    await done
    server.close()
    client.abort()
    return log
    """,
        [b"a", "sent", b"b", "lost"],
    ),
    "a writer goes on beside a reader that runs the loop": (
        """
    near, far = socket.socketpair()
    near.setblocking(False)
    sent, done = [], loop.create_future()
    def write():
        sent.append(near.send(b"x"))
        if len(sent) == 20:
            loop.remove_writer(near)
            done.set_result("sent")
    def read():
        loop.remove_writer(near)
        loop.add_writer(near, write)
        got.set_result(nested(asyncio.wait_for(done, 5)))
        loop.remove_reader(near)
    got = loop.create_future()
    loop.add_reader(near, read)
    far.send(b"y")
    result = await got
    near.close()
    far.close()
    return result
    """,
        "sent",
    ),
    "an exception after a nested run that ended the connection is seen": (
        """
    seen, done = [], loop.create_future()
    sys.unraisablehook = lambda found: seen.append(found.exc_value)
    loop.set_exception_handler(lambda _, found: seen.append(found))
    class Server(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.lost = transport, loop.create_future()
        def data_received(self, data):
            self.transport.abort()
            nested(self.lost)
            loop.call_soon(done.set_result, None)
            raise ValueError("mine")
        def connection_lost(self, exc):
            self.lost.set_result(None)
    server, address = await served(Server)
    client, _ = await loop.create_connection(asyncio.Protocol, *address)
    client.write(b"a")
    await done
    server.close()
    client.abort()
    return len(seen) > 0
    """,
        True,
    ),
    "threads wake a loop that a signal handler has run": (
        """
    handled, future = threading.Event(), loop.create_future()
    def handler(*_):
        nested(after())
        handled.set()
    def elsewhere():
        time.sleep(0.05)  # the loop waits
        os.kill(os.getpid(), signal.SIGUSR1)
        handled.wait()
        time.sleep(0.05)
        loop.call_soon_threadsafe(future.set_result, 5)
    signal.signal(signal.SIGUSR1, handler)
    threading.Thread(target=elsewhere).start()
    return await asyncio.wait_for(future, 20)
    """,
        5,
    ),
    "stop() ends the innermost run": (
        """
    async def stops():
        loop.call_soon(loop.stop)
        await asyncio.sleep(9)
    loop.call_soon(loop.stop)
    loop.run_forever()
    return raised(nested, stops())
    """,
        "RuntimeError('Event loop stopped before Future completed.')",
    ),
    "exceptions go to the caller, and the loop goes on": (
        """
    async def ends(exc):
        raise exc
    class End(SystemExit):
        pass
    log = [raised(nested, ends(KeyError(1))), raised(nested, ends(End(2)))]
    return log, nested(after()), await after()
    """,
        (["KeyError(1)", "End(2)"], 7, 7),
    ),
    "Ctrl-C ends a run that never ends": (
        """
    async def forever():
        loop.call_later(0.01, os.kill, os.getpid(), signal.SIGINT)
        await loop.create_future()
    return raised(nested, forever()), await after()
    """,
        ("KeyboardInterrupt()", 7),
    ),
    "bad input raises what asyncio raises": (
        """
    other = new_loop()
    coro = after()
    log = [raised(nested, other.create_future())]
    other.close()
    log += [raised(other.run_until_complete, coro), raised(loop.close)]
    coro.close()
    return log
    """,
        [
            "ValueError('The future belongs to a different loop than the one "
            "specified as the loop argument')",
            "RuntimeError('Event loop is closed')",
            "RuntimeError('Cannot close a running event loop')",
        ],
    ),
    "another thread's loop is refused": (
        """
    coro = after()
    got = await asyncio.to_thread(raised, loop.run_until_complete, coro)
    coro.close()
    return got
    """,
        "RuntimeError('This event loop is already running')",
    ),
    "another loop runs, and in it the first one again": (
        """
    other, log = new_loop(), []
    async def within():
        log.append(loop.run_until_complete(after(0, 1)))
        await asyncio.sleep(0)
        return asyncio.get_running_loop() is other
    log.append(other.run_until_complete(within()))
    other.close()
    return log, asyncio.get_running_loop() is loop, await after()
    """,
        ([1, True], True, 7),
    ),
    "the program has hidden the running loop": (
        """
    other = new_loop()
    asyncio._set_running_loop(None)
    try:
        got = other.run_until_complete(after())
    finally:
        asyncio._set_running_loop(loop)
        other.close()
    return got, nested(after()), asyncio.current_task() is not None
    """,
        (7, 7, True),
    ),
    "a child is forked inside": (
        """
    async def inner():
        await asyncio.sleep(0)
        return os.fork()
    pid = nested(inner())
    if pid == 0:
        os._exit(nested(after()) + await after(0, 3))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), await after()
    """,
        (10, 7),
    ),
    "threads, deep nests and time-outs": (
        """
    def deep(n):
        async def inner():
            await asyncio.sleep(0)
            return n and 1 + deep(n - 1)
        return asyncio.run(inner())
    def calls_back():
        return asyncio.run_coroutine_threadsafe(after(), loop).result(9)
    async def late():
        await asyncio.wait_for(asyncio.sleep(9), 0.001)
    return deep(30), nested(asyncio.to_thread(calls_back)), raised(
        nested, late()
    )
    """,
        (30, 7, "TimeoutError()"),
    ),
    "TLS leaves the stack to callbacks that run the loop": (
        """
    from behaviour.net_helpers import for_tls
    left, (for_server, for_client) = 60, for_tls()
    class Server(asyncio.Protocol):
        def data_received(self, data):
            nonlocal left
            left -= 1
            if left:
                nested(connect())
    async def connect():
        client, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, *address, **for_client
        )
        client.write(b"a")
        while left:
            await asyncio.sleep(0)
        client.abort()
    async def main():
        nonlocal address
        server, address = await served(Server, **for_server)
        await connect()
        server.close()
    def in_thread():
        other = new_loop()
        nest.apply(other)
        other.run_until_complete(main())
        other.close()
    address = None
    threading.stack_size(1 << 20)
    await asyncio.to_thread(in_thread)
    return left
    """,
        0,
    ),
}
#: What fails on asyncio with both packages, with the first, from 3.14 on.
BOTH = {
    "a reader that runs the loop waits, without spinning",
    "another thread's loop is refused",
}
FIRST = {"what is of the outer callback's context waits"}
PY314 = {"a child is forked inside"}
FAIL = {
    "nest_asyncio": BOTH | FIRST,
    "nest_asyncio2": BOTH | (PY314 if sys.version_info >= (3, 14) else set()),
}


packages = pytest.mark.parametrize(
    "package",
    [
        pytest.param(
            "nest_asyncio",
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 14),
                reason="its tasks are not the current ones",
            ),
        ),
        "nest_asyncio2",
    ],
)


@packages
def test_a_callback_runs_its_loop(script, package):
    if script.kind == "asyncio" and sys.version_info >= (3, 15):
        pytest.skip("asyncio hangs with nest_asyncio2")
    left_out = FAIL[package] if script.kind == "asyncio" else set()
    cases = {n: case for n, case in CASES.items() if n not in left_out}
    program = f"import {package} as nest\n"
    for name, (code, _) in cases.items():
        program += f"async def case(loop):\n{code}\n"
        program += f"run_case({name!r}, case)\n"
    done = script(program, quiet=False)
    found = dict(map(ast.literal_eval, done.stdout.splitlines()))
    assert found == {name: expected for name, (_, expected) in cases.items()}


@packages
def test_a_loop_that_is_made_after_apply_allows_the_same(fast_script, package):
    """As at the top of a module.  On asyncio it depends on the package."""
    done = fast_script(f"""
    import {package}
    {package}.apply()

    async def main():
        return nested(after()), asyncio.run(after(0, 8))

    loop = new_loop()
    print(loop.run_until_complete(main()))
    loop.close()
    """)
    assert done.stdout == "(7, 8)\n"


def test_the_outermost_run_ends_after_a_nested_one(script):
    """Its future is done meanwhile, which stops no other run."""
    done = script("""
    import nest_asyncio2 as nest

    async def main():
        nest.apply()
        return asyncio.get_running_loop().create_future()

    async def inner(future):
        future.set_result(1)
        return await after()

    loop = new_loop()
    asyncio.set_event_loop(loop)
    future = loop.run_until_complete(main())
    loop.call_soon(lambda: print(nested(inner(future))))
    print(loop.run_until_complete(future), loop.is_running())
    loop.close()
    """)
    assert done.stdout == "7\n1 False\n"
