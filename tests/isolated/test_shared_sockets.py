"""Sockets that another process can make blocking, or that linger.

O_NONBLOCK belongs to what all duplicates of a descriptor share, in every
process, so anyone may clear it at any time.  A process that then waits in a
system call with the GIL held stands still for good, hence interpreters of
their own.  A duplicate in the same process does what another process would.
"""

from __future__ import annotations

import pytest

BEFORE = """
    import struct
    DATA = bytes(8 << 20)

    def make_blocking(sock):
        duplicate = os.dup(sock.fileno())
        os.set_blocking(duplicate, True)
        os.close(duplicate)

    class Small(asyncio.BufferedProtocol):
        "Its buffer is filled by each read."
        def __init__(self, size):
            self.buffer, self.count = bytearray(size), 0
        def get_buffer(self, hint):
            return self.buffer
        def buffer_updated(self, count):
            self.count += count

    class Counter(asyncio.Protocol):
        count = 0
        def __init__(self, size):
            pass
        def data_received(self, data):
            self.count += len(data)

    async def until(predicate):
        while not predicate():
            await asyncio.sleep(0)

    def run(main):
        loop = new_loop()
        loop.run_until_complete(main(loop))
        loop.close()
"""


def test_a_write_lets_the_thread_run_that_reads(script):
    script("""
    near, far = socket.socketpair()
    near.setblocking(False)
    began = threading.Event()

    def read():
        began.wait()
        left = 3 * len(DATA)
        while left:
            left -= len(far.recv(1 << 20))

    async def main(loop):
        transport, _ = await loop.create_connection(
            asyncio.Protocol, sock=near
        )
        make_blocking(near)
        began.set()
        transport.write(DATA)
        transport.writelines([DATA, DATA])
        await until(lambda: not reader.is_alive())
        transport.close()

    reader = threading.Thread(target=read)
    reader.start()
    run(main)
    far.close()
    """)


@pytest.mark.parametrize(
    ("protocol", "size"), [("Small", 4), ("Small", 4096), ("Counter", 65536)]
)
def test_a_read_that_fills_its_buffer_is_the_last(script, protocol, size):
    script(f"""
    async def main(loop):
        near, far = socket.socketpair()
        near.setblocking(False)
        far.send(bytes({size}))
        transport, protocol = await loop.create_connection(
            lambda: {protocol}({size}), sock=near
        )
        transport.pause_reading()
        make_blocking(near)
        transport.resume_reading()
        await until(lambda: protocol.count == {size})
        far.send(b"more")
        await until(lambda: protocol.count == {size} + 4)
        transport.close()
        far.close()

    run(main)
    """)


def test_a_listener_goes_on_accepting(fast_script):
    """asyncio's loop stands still here, in its second accept."""
    fast_script("""
    class Greeter(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"welcome")
            transport.close()

    async def main(loop):
        listener = socket.create_server(("127.0.0.1", 0))
        server = await loop.create_server(Greeter, sock=listener)
        for round in range(5):
            clients = [socket.socket() for _ in range(round + 1)]
            for client in clients:
                client.setblocking(False)
                make_blocking(listener)
                await loop.sock_connect(client, listener.getsockname())
            for client in clients:
                assert await loop.sock_recv(client, 100) == b"welcome"
                client.close()
        server.close()
        await server.wait_closed()

    run(main)
    """)


def test_datagrams_and_socket_calls_do_not_wait(fast_script):
    """asyncio's loop stands still here, in its first send."""
    fast_script("""
    async def main(loop):
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        transport, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, sock=near
        )
        make_blocking(near)
        while not transport.get_write_buffer_size():
            transport.sendto(b"x")
        transport.abort()
        far.close()

        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        make_blocking(near)
        task = loop.create_task(loop.sock_sendall(near, DATA))
        left = len(DATA)
        while left:
            left -= len(await loop.sock_recv(far, 1 << 20))
        await task
        task = loop.create_task(loop.sock_recv(near, 10))
        await asyncio.sleep(0)
        far.send(b"x")
        assert await task == b"x"
        near.close()
        far.close()

    run(main)
    """)
