"""Debug mode refuses transports ended by threads.

On fastloop alone: asyncio raises the same, and leaves a transport behind that
is closing for ever.
"""

import contextlib

import pytest
from builds import FREE_THREADED
from net_helpers import Recorder, open_on_pair
from tls_ends import tls_link

pytestmark = pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
MANY = 8 << 20
needs_gil = pytest.mark.skipif(
    FREE_THREADED,
    reason="without a GIL a transport passes the call to its loop's thread",
)


@contextlib.asynccontextmanager
async def opened(loop, kind, protocol):
    """Open a transport of this kind, and close it at the end."""
    if kind == "tls":
        async with tls_link(protocol) as pair:
            yield pair.transport
        return
    opening, near, far = open_on_pair(loop, kind, lambda: protocol)
    with near, far:
        transport, _ = await opening
        try:
            yield transport
        finally:
            transport.close()
            await protocol.wait_lost()


@needs_gil
@pytest.mark.parametrize(
    ("kind", "written"), [("stream", 0), ("datagrams", 0), ("tls", MANY)]
)
@pytest.mark.parametrize("method", ["close", "abort"])
async def test_another_thread_may_not_end_a_transport(
    debug, kind, written, method
):
    """Also TLS that has bytes to send: its close() sets a timer."""
    async with opened(debug, kind, Recorder()) as transport:
        if written:
            transport.write(bytes(written))
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            await debug.run_in_executor(None, getattr(transport, method))
        assert not transport.is_closing()
