"""A raw transport of Python code whose abort() ends the connection at once,
inside of the call, where asyncio's own do it in a later iteration.
"""

from __future__ import annotations

import asyncio
import ssl

from tls_ends import contexts


class SyncRaw(asyncio.Transport):
    _start_tls_compatible = True

    def __init__(self):
        super().__init__()
        self.lost = False
        near, far = contexts("server")
        self.context = near
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = far.wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost"
        )

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_protocol(self):
        return self.protocol

    def is_closing(self):
        return self.lost

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    def write(self, data):
        self.incoming.write(data)

    def abort(self):
        self._force_close(None)

    close = abort

    def _force_close(self, exc):
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(exc)

    def deliver(self):
        """Have the protocol receive what the peer has sent."""
        data = self.outgoing.read()
        while data:
            buffer = self.protocol.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            del buffer
            data = data[size:]
            self.protocol.buffer_updated(size)

    async def start_tls(self, loop, protocol):
        task = loop.create_task(
            loop.start_tls(self, protocol, self.context, server_side=True)
        )
        for _ in range(4):
            await asyncio.sleep(0)  # it begins by its connection_made()
        done = False
        while not done:
            await asyncio.sleep(0)
            try:
                self.peer.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            self.deliver()
        return await task


async def test_unread_records_stay_readable_after_abort_and_close(loop):
    """The application has the SSLObject; the records were in memory that the
    call borrowed.
    """
    raw, objects = SyncRaw(), []

    class First(asyncio.BufferedProtocol):
        buffer = bytearray(16)

        def get_buffer(self, hint):
            return self.buffer

        def buffer_updated(self, size):
            objects.append(transport.get_extra_info("ssl_object"))
            transport.abort()
            transport.close()

    transport = await raw.start_tls(loop, First())
    for _ in range(12):
        await asyncio.sleep(0)  # nothing is read before
    for text in (b"A" * 16, b"B" * 16000, b"C" * 16000):
        raw.peer.write(text)
    raw.deliver()
    await asyncio.sleep(0)
    assert objects[0].read(16000) == b"B" * 16000
    assert objects[0].read(16000) == b"C" * 16000
