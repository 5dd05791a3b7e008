"""Connections whose descriptors were closed behind the loop's back.

A stale event can keep a loop busy for ever, hence interpreters of their own.
"""

from __future__ import annotations

import pytest
from builds import ON_LIBUV
from isolated_scripts import SERVED

BEFORE = (
    SERVED
    + """
async def accepted(loop):
    server = await loop.create_server(Server, "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    await until(lambda: made)
    return server, client, made[0].transport

async def created(loop):
    listener = socket.create_server(("127.0.0.1", 0))
    transport, _ = await loop.create_connection(
        Server, *listener.getsockname())
    client, _ = listener.accept()
    return listener, client, transport

async def is_idle():
    "Whether the loop waits, once it has got rid of what is stale."
    await asyncio.sleep(0.05)
    used = time.process_time()
    await asyncio.sleep(0.2)
    return time.process_time() - used < 0.1
"""
)

every_connection = pytest.mark.parametrize("opened", ["accepted", "created"])


@every_connection
@pytest.mark.parametrize(
    "then",
    [
        "pass",
        pytest.param(
            "open_files()",
            marks=pytest.mark.skipif(
                ON_LIBUV, reason="libuv goes by the numbers of its fds"
            ),
        ),
    ],
)
def test_a_forked_child_that_closed_its_descriptors_lives(
    script, opened, then
):
    """Its loop has none to poll with: that is an OSError, as in asyncio."""
    script(f"""
def open_files():
    for _ in range(20):
        os.open(os.devnull, os.O_RDONLY)

def child(transport):
    os.closerange(3, 1024)
    {then}
    try:
        transport.resume_reading()
    except OSError:
        pass
    else:
        os._exit(2)
    transport.write(b"data")
    loop.call_later(5, os._exit, 3)

async def main():
    server, client, transport = await {opened}(loop)
    transport.pause_reading()
    done = loop.create_future()

    def fork():
        pid = os.fork()
        if pid == 0:
            parent[0] = False
            return child(transport)
        done.set_result(os.waitpid(pid, 0)[1])

    loop.call_soon(fork)
    assert await done == 0
    transport.resume_reading()
    client.send(b"data")
    await until(lambda: made[0].got == b"data")
    transport.abort()
    await made[0].lost
    client.close()
    server.close()

parent = [True]
loop = new_loop()
try:
    loop.run_until_complete(main())
except OSError:
    if parent[0]:
        raise
    try:
        loop.close()
    except OSError:
        pass  # of asyncio's socket pair
    os._exit(0)
if not parent[0]:
    os._exit(4)
loop.close()
""")


@pytest.mark.skipif(
    ON_LIBUV, reason="libuv reports a closed fd whose file a duplicate keeps"
)
@every_connection
@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("taken", ["nothing", "file", "socket"])
def test_a_closed_connections_events_do_not_keep_the_loop_busy(
    script, opened, paused, taken
):
    """A duplicate lives, so the system tells of what comes for it."""
    if script.kind == "asyncio":
        pytest.skip("asyncio spins")
    script(f"""
async def main():
    server, client, transport = await {opened}(loop)
    loop.set_exception_handler(lambda *args: None)  # of the socket's close()
    fd = fd_of(transport)
    duplicate = os.dup(fd)
    left, right = socket.socketpair()
    left.setblocking(False)
    if {paused}:
        transport.pause_reading()
    if {taken!r} == "nothing":
        os.close(fd)
    elif {taken!r} == "file":
        with open(os.devnull) as file:
            os.dup2(file.fileno(), fd)
    else:
        os.dup2(left.fileno(), fd)
    client.send(b"stale")
    assert await is_idle()
    assert made[0].got == b""
    if {taken!r} == "nothing" and fd not in (left.fileno(), right.fileno()):
        os.dup2(left.fileno(), fd)
    transport.abort()
    await made[0].lost
    assert await is_idle()
    os.close(duplicate)
    for sock in left, right, client, server:
        sock.close()

loop = new_loop()
loop.run_until_complete(main())
loop.close()
""")
