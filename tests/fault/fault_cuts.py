"""Cases of test_net_calls.py: each read and write is cut, each third fails."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import random

from fault_calls import SHIM
from fault_shim import BOTH


class Mixed:
    """A client that sends, pauses and half-closes by its seed."""

    def __init__(self, loop, seed, helpers):
        self.loop = loop
        self.helpers = helpers
        self.chance = random.Random(seed)
        self.sent = hashlib.sha256()
        self.length = 0

    def message(self):
        size = self.chance.choice([1, 10, 300, 5000, 70_000, 200_000])
        data = self.chance.randbytes(self.chance.randrange(size) + 1)
        self.sent.update(data)
        self.length += len(data)
        return data

    async def talk(self, address):
        """Write at random; the server echoes; compare at the end."""
        make = self.chance.choice(
            [self.helpers.Recorder, self.helpers.BufferedRecorder]
        )
        protocol = make(eof=lambda p: True)
        transport, _ = await self.loop.create_connection(
            lambda: protocol, *address
        )
        for _ in range(self.chance.randrange(1, 6)):
            action = self.chance.randrange(6)
            if action == 0:
                transport.pause_reading()
            elif action == 1:
                transport.resume_reading()
            elif action == 2:
                transport.writelines(
                    self.message() for _ in range(self.chance.randint(1, 4))
                )
            else:
                transport.write(self.message())
            for _ in range(self.chance.randrange(3)):
                await asyncio.sleep(0)
        transport.resume_reading()
        transport.write_eof()
        await protocol.wait_for("eof")
        transport.close()
        await protocol.wait_lost()
        protocol.check()
        assert len(protocol.data) == self.length
        assert self.helpers.digest(protocol.data) == self.sent.hexdigest()


async def cut_stress(code, helpers, reports):
    """Clients of all kinds at once, whose bytes a server sends back."""
    loop = asyncio.get_running_loop()
    servers = []

    def finish(protocol):
        protocol.transport.write_eof()
        return True

    def factory():
        servers.append(
            helpers.Recorder(
                data=lambda p, data: p.transport.write(data), eof=finish
            )
        )
        return servers[-1]

    SHIM.fault_cut(BOTH, code, 3, errno.EAGAIN)
    server = await loop.create_server(factory, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    async with asyncio.TaskGroup() as group:
        for seed in range(8):
            group.create_task(Mixed(loop, seed, helpers).talk(address))
    SHIM.fault_cut(0, 0, 0, 0)
    server.close()
    for protocol in servers:
        if not protocol.lost:
            protocol.transport.close()
        await protocol.wait_lost()
        protocol.check()
    assert len(servers) == 8
