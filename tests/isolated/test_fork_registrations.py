"""Files that a forked child has still, after the parent has closed them.

Their registrations live on, so epoll reports their events to the parent.
"""

from __future__ import annotations

from isolated_scripts import SERVED

BEFORE = SERVED


def test_an_fd_is_registered_anew_while_a_child_has_its_old_file(script):
    """Events of the old connection are stale: the new one has none of them."""
    script("""
async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    end, start = os.pipe()
    old, new = socket.socket(), socket.socket()
    old.connect(address)
    await until(lambda: made)
    fd = fd_of(made[0].transport)
    pid = os.fork()
    if pid == 0:
        os.read(end, 1)
        os._exit(0)
    made[0].transport.close()
    await made[0].lost
    new.connect(address)
    await until(lambda: len(made) == 2)
    assert fd_of(made[1].transport) == fd
    old.sendall(b"old")
    new.sendall(b"new")
    await until(lambda: made[1].got)
    used = time.process_time()
    await asyncio.sleep(0.2)
    assert time.process_time() - used < 0.1
    assert made[1].got == b"new"
    os.write(start, b"x")
    os.waitpid(pid, 0)
    made[1].transport.close()
    await made[1].lost
    server.close()
    for sock in old, new:
        sock.close()

loop = new_loop()
loop.run_until_complete(main())
loop.close()
""")


def test_a_closed_sockets_events_end_while_a_child_has_it(script):
    """They have the parent's epoll instance replaced, which the child has too:
    what waits goes on, and nothing polls the old instance any more.
    """
    script("""
def pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setblocking(False)
    return near, far

async def main():
    loop = asyncio.get_running_loop()
    near, far = pair()
    other, end = pair()
    for sock, peer in ((near, far), (other, end)):
        task = loop.create_task(loop.sock_recv(sock, 9))
        await asyncio.sleep(0)
        peer.send(b"x")
        await task
    dup = near.dup()
    gate, opener = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(opener)
        os.read(gate, 1)
        os._exit(0)
    near.close()
    for _ in range(400):
        far.send(b"x")
        task = loop.create_task(loop.sock_recv(other, 9))
        await asyncio.sleep(0)
        end.send(b"more")
        assert await task == b"more"
        dup.recv(1)
    far.send(b"x")
    task = loop.create_task(loop.sock_recv(other, 9))
    used = time.process_time()
    await asyncio.sleep(0.5)
    assert time.process_time() - used < 0.01
    end.send(b"data")
    assert await task == b"data"
    os.write(opener, b"x")
    os.waitpid(pid, 0)
    for fd in gate, opener:
        os.close(fd)
    for sock in far, other, end, dup:
        sock.close()

loop = new_loop()
loop.run_until_complete(main())
loop.close()
""")
