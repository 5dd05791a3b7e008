"""Two TLS filters of fastloop that talk in memory, without a socket.

The transport below each is the test's own, so a test sees each call that a
filter makes on it, and decides when bytes arrive.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from pathlib import Path
from typing import Any

from fastloop._loop import _tls

CERTS = Path(__file__).parent.parent / "certs"
NO_GIL = hasattr(sys, "_is_gil_enabled") and not sys._is_gil_enabled()


def have_libssl() -> bool:
    """Whether an engine can call libssl itself."""
    return not NO_GIL and _tls._library is not None


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context and a client's that trusts it."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(CERTS / "ca.pem")
    return server, client


class Raw(asyncio.Transport):
    """A transport that keeps what is written, and what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.calls: list[Any] = []

    def write(self, data: Any) -> None:
        self.sent += data

    def pause_reading(self) -> None:
        self.calls.append("pause")

    def resume_reading(self) -> None:
        self.calls.append("resume")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def _force_close(self, exc: BaseException | None) -> None:
        self.calls.append(exc)

    def is_closing(self) -> bool:
        return False


class Notes(asyncio.Protocol):
    """Records its calls."""

    def __init__(self) -> None:
        self.got = b""
        self.calls: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.got += data

    def eof_received(self) -> None:
        self.calls.append("eof")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost")


class End:
    """One side: its filter, what is below and what is above."""

    def __init__(self, loop: Any, context: Any, server_side: bool) -> None:
        self.raw = Raw()
        self.protocol = Notes()
        self.tls = _tls.open_adapter(
            loop,
            self.protocol,
            context,
            None,
            server_side=server_side,
            server_hostname=None if server_side else "localhost",
        )

    @property
    def engine(self) -> Any:
        return self.tls._app_transport.get_extra_info("tls_engine")

    def give(self, data: Any) -> None:
        """Bytes arrive, as from a transport of asyncio's."""
        for at in range(0, len(data), 65536):
            self.tls.data_received(data[at : at + 65536])


class Link:
    """A client and a server."""

    def __init__(
        self, loop: Any, server_context: Any, client_context: Any
    ) -> None:
        self.server = End(loop, server_context, True)
        self.client = End(loop, client_context, False)

    def begin(self) -> None:
        self.client.tls.connection_made(self.client.raw)
        self.server.tls.connection_made(self.server.raw)

    def carry(self) -> None:
        """Carry bytes to and fro until none is left."""
        ends = [(self.client, self.server), (self.server, self.client)]
        # No generator: CPython 3.12 and 3.13 break its code object where
        # memory for the function is missing.
        while self.client.raw.sent or self.server.raw.sent:
            for source, target in ends:
                data = bytes(source.raw.sent)
                source.raw.sent.clear()
                target.give(data)

    def end(self) -> None:
        """Abort both connections."""
        for end in (self.client, self.server):
            if end.tls._app_transport:
                end.tls._app_transport.abort()
            end.tls.connection_lost(None)


def one_iteration(loop: Any) -> None:
    """Run a loop for one iteration."""
    loop.call_soon(loop.stop)
    loop.run_forever()
