"""Cases of test_net_calls.py: the system refuses to register a descriptor."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import threading
import traceback

from fault_calls import arm, check, hits


async def watch_error(code, helpers, reports):
    """The system has no room for an accepted connection whose fd had a
    registration before: the connection is lost with the error, and the next
    one is served.
    """
    loop = asyncio.get_running_loop()
    made = []

    def factory():
        made.append(helpers.Recorder())
        return made[-1]

    def number():
        return re.search(r"fd=(\d+)", repr(made[-1].transport))[1]

    server = await loop.create_server(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    with socket.create_connection(address):
        await made_known(helpers, made, 1)
        first = number()
    await made[0].wait_lost()
    sock = socket.create_connection(address)
    sock.settimeout(10)
    arm("epoll_ctl", code)
    await made_known(helpers, made, 2)
    assert number() == first
    check(await made[1].wait_lost(), code, reports)
    assert sock.recv(1) == b""
    sock.close()
    with socket.create_connection(address) as sock:
        sock.sendall(b"data")
        await made_known(helpers, made, 3)
        assert number() == first
        assert await made[2].wait_data(4) == b"data"
    await made[2].wait_lost()
    server.close()


async def renewal_error(code, helpers, reports):
    """A renewed set has no room for libuv: the loop polls at intervals until
    there is some.
    """
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    loop.add_reader(near, print)
    duplicate = near.dup()
    near.close()
    loop.remove_reader(near)  # too late
    left, right = socket.socketpair()
    arm("epoll_ctl_libuv", code, count=4)
    far.sendall(b"stale")
    while hits() < 4:
        seen = loop.create_future()
        loop.add_reader(left, seen.set_result, None)
        right.send(b"x")
        await seen
        left.recv(1)
    loop.remove_reader(left)
    for sock in (left, right, far, duplicate):
        sock.close()


async def first_wait_error(code, helpers, reports):
    """There is no room for what libuv polls when a loop first waits: the loop
    looks at it itself until there is some, also for other threads.  One that
    is closed meanwhile closes all it has.
    """
    new_loop = type(asyncio.get_running_loop())

    def wait(loop):
        seen = loop.create_future()
        loop.call_later(0.001, loop.call_soon, seen.set_result, "done")
        assert loop.run_until_complete(seen) == "done"

    def use(loops):
        arm("epoll_ctl_libuv", code, count=2)
        wait(loops[0])
        loops[0].close()
        assert 0 < hits() <= 2
        arm("epoll_ctl_libuv", code, count=8)
        seen = loops[1].create_future()
        others = threading.Thread(
            target=loops[1].call_soon_threadsafe, args=(seen.set_result, None)
        )
        loops[1].call_soon(others.start)
        loops[1].run_until_complete(seen)
        others.join()
        while hits() < 8:
            wait(loops[1])
        wait(loops[1])
        loops[1].close()

    await asyncio.to_thread(use, [new_loop(), new_loop()])


async def made_known(helpers, made, count):
    await helpers.spin(lambda: len(made) == count and made[-1].transport)


async def pass_in_child(part):
    """Fork; the child ends with what it runs, which has to pass there."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            await part()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


async def fork_space(code, helpers, reports):
    """The new set of a forked child has no room at first: nothing is lost."""
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    near, far = helpers.tcp_socketpair()
    near.setblocking(False)
    seen = loop.create_future()
    loop.add_reader(left, seen.set_result, None)
    task = loop.create_task(loop.sock_recv(near, 9))
    await helpers.iterations(2)

    async def child():
        # Of these two.
        arm("epoll_ctl", code, count=2)
        await helpers.iterations(2)
        assert hits() == 2
        right.send(b"x")
        far.send(b"data")
        await seen
        assert await task == b"data"

    await pass_in_child(child)
    loop.remove_reader(left)
    task.cancel()
    await asyncio.wait([task])
    for sock in (left, right, near, far):
        sock.close()


async def fork_space_kept(code, helpers, reports):
    """A socket that nobody waits for is registered when somebody does."""
    loop = asyncio.get_running_loop()
    near, far = helpers.tcp_socketpair()
    near.setblocking(False)
    for _ in range(2):
        task = loop.create_task(loop.sock_recv(near, 9))
        await helpers.iterations(2)
        far.send(b"x")
        assert await task == b"x"

    async def child():
        arm("epoll_ctl", code, count=1)
        await helpers.iterations(2)
        assert hits() == 0
        arm("epoll_ctl", 0, count=0)
        task = loop.create_task(loop.sock_recv(near, 9))
        await helpers.iterations(2)
        far.send(b"data")
        late = loop.call_later(0.5, task.cancel)
        assert await task == b"data"
        late.cancel()

    await pass_in_child(child)
    near.close()
    far.close()


async def fork_fd(code, helpers, reports):
    """A forked child's set cannot have the fd of its parent's: registering
    there fails, and the parent goes on.
    """
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    loop.add_reader(left, print)
    loop.remove_reader(left)

    async def child():
        os.close(0)  # that is the new set's at first
        arm("dup2" if code == errno.EBUSY else "fcntl", code)
        for _ in range(2):
            try:
                loop.add_reader(left, print)
            except OSError as exc:
                assert exc.errno == code, exc
            else:
                raise AssertionError("registered")
            assert hits() == 1
        assert not os.path.exists("/proc/self/fd/0")

    await pass_in_child(child)
    seen = loop.create_future()
    loop.add_reader(left, seen.set_result, None)
    right.send(b"x")
    await seen
    loop.remove_reader(left)
    left.close()
    right.close()
