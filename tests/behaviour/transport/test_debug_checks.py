"""Debug mode refuses transports ended by threads.

On fastloop alone: asyncio raises the same, and leaves a transport behind that
is closing for ever.
"""

import pytest
from builds import FREE_THREADED
from datagram_helpers import endpoint

pytestmark = [
    pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True),
    pytest.mark.parametrize("method", ["close", "abort"]),
    pytest.mark.skipif(
        FREE_THREADED,
        reason="without a GIL a transport passes the call to its loop's "
        "thread",
    ),
]


async def check_refusal(loop, transport, method):
    with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
        await loop.run_in_executor(None, getattr(transport, method))
    assert not transport.is_closing()


@pytest.mark.parametrize(("kind", "written"), [("unix", 0), ("tls-client", 8)])
async def test_another_thread_may_not_end_a_stream(
    debug, transport_pair, written, method
):
    """Also TLS that has bytes to send: its close() sets a timer."""
    c = await transport_pair()
    c.transport.write(bytes(written << 20))
    await check_refusal(debug, c.transport, method)


async def test_another_thread_may_not_end_an_endpoint(debug, method):
    async with endpoint() as p:
        await check_refusal(debug, p.transport, method)
