"""Files that a forked child still has after its parent has closed them.

What closing leaves in the parent's epoll instance goes on being reported.
"""

from __future__ import annotations

import sys

import pytest
from isolated_scripts import SERVED

BEFORE = (
    SERVED
    + """
def registered():
    "How many descriptors the epoll instances of this process have."
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            kind = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # it was listdir's own
        if "eventpoll" in kind:
            with open(f"/proc/self/fdinfo/{fd}") as info:
                count += info.read().count("tfd:")
    return count

async def wait_once():
    "Have the loop wait, and so poll: then it has noticed a fork."
    await asyncio.sleep(0.001)

def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    return near, far

def fork_holder():
    "Fork a child that has all files until the function it returns is called."
    gate, opener = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(opener)
        os.read(gate, 1)
        os._exit(0)
    os.close(gate)
    def end():
        os.close(opener)
        os.waitpid(pid, 0)
    return end

async def receive(loop, near, far):
    "Have near wait for what far sends."
    task = loop.create_task(loop.sock_recv(near, 9))
    await asyncio.sleep(0)
    far.send(b"x")
    assert await task == b"x"

async def ended(transport):
    transport.close()
    await transport.get_protocol().lost
"""
)

#: It is a warning to fork with threads.
FLAGS = ("-W", "ignore::DeprecationWarning")

linux = pytest.mark.skipif(
    sys.platform != "linux", reason="counts what is in an epoll instance"
)

#: What is opened before a fork and closed after it.  All files live until
#: the child ends.
OPENED_AND_CLOSED = {
    "an accepted connection": """
    client = socket.create_connection(server.sockets[0].getsockname())
    await until(lambda: made)
    fork
    await ended(made[0].transport)
    """,
    "a datagram endpoint": """
    transport, protocol = await loop.create_datagram_endpoint(
        Server, local_addr=("127.0.0.1", 0)
    )
    fork
    await ended(transport)
    """,
    "both ends of a pipe": """
    end, start = os.pipe()
    reads, protocol = await loop.connect_read_pipe(Server, open(end, "rb", 0))
    writes, other = await loop.connect_write_pipe(Server, open(start, "wb", 0))
    fork
    await ended(reads)
    await ended(writes)
    """,
    "a server": """
    other = await loop.create_server(Server, "127.0.0.1", 0)
    fork
    other.close()
    """,
    "a reader and a writer": """
    near, far = pair()
    loop.add_reader(near, print)
    loop.add_writer(near, int)
    fork
    loop.remove_reader(near)
    loop.remove_writer(near)
    near.close()
    """,
    "sock_accept": """
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    task = loop.create_task(loop.sock_accept(listener))
    await asyncio.sleep(0)
    fork
    client = socket.create_connection(listener.getsockname())
    near, _ = await task
    listener.close()
    near.close()
    """,
}


@linux
@pytest.mark.parametrize("name", OPENED_AND_CLOSED)
def test_what_is_closed_leaves_the_epoll_while_a_child_has_its_file(
    script, name
):
    """Else each event that it reports is one for nobody."""
    parts = OPENED_AND_CLOSED[name].replace(
        "fork", "end_child = fork_holder()"
    )
    script(f"""
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    await wait_once()  # the loop waits, which opens all it has
    before = registered()
{parts}
    assert registered() == before
    end_child()
    server.close()

on_new_loop(main())
""")


@linux
@pytest.mark.parametrize("where", ["a callback", "another thread"])
def test_what_a_child_closes_stays_in_the_parents_epoll(fast_script, where):
    """asyncio's child takes it out.

    In the copy that a thread forks, the loop seems to run in a thread that is
    not there.
    """
    fast_script(
        f"""
IN_CALLBACK = {where == "a callback"}
"""
        + """
async def main():
    server = await loop.create_server(Server, "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    await until(lambda: made)
    (read, at), (near, far), (idle, end) = pair(), pair(), pair()
    seen = loop.create_future()
    loop.add_reader(read, lambda: seen.set_result(read.recv(9)))
    await receive(loop, idle, end)
    task = loop.create_task(loop.sock_recv(near, 9))
    await wait_once()
    before = registered()

    def fork():
        pid = os.fork()
        if pid == 0:
            loop.remove_reader(read)
            loop.remove_reader(idle)
            made[0].transport.abort()
            if IN_CALLBACK:
                raise SystemExit
            os._exit(0)
        done.append(os.waitpid(pid, 0)[1])

    done = []
    if IN_CALLBACK:
        loop.call_soon(fork)
    else:
        threading.Thread(target=fork).start()
    await until(lambda: done)
    assert done == [0]
    assert registered() == before
    for sock in client, at, far:
        sock.send(b"data")
    assert await seen == b"data"
    assert await task == b"data"
    await until(lambda: made[0].got == b"data")
    await receive(loop, idle, end)
    loop.remove_reader(read)
    for sock in client, read, at, near, far, idle, end:
        sock.close()
    await made[0].lost
    server.close()

parent = os.getpid()
loop = new_loop()
try:
    loop.run_until_complete(main())
except SystemExit:
    loop.close()
    os._exit(0)
loop.close()
"""
    )
