"""How TLS connections end, and the order of the calls a protocol sees."""

import contextlib
import ssl

import pytest
from libssl_calls import seal_alert
from net_helpers import Recorder, iterations
from tls_ends import (
    closes_with_raw,
    contexts,
    every_side,
    every_way,
    open_plain,
    start_tls,
)


# From OpenSSL 3.2 on asyncio has SSLEOFError for the first (openssl#25254).
@pytest.mark.parametrize(
    "closes", [pytest.param(False, marks=pytest.mark.native_tls), True]
)
async def test_a_close_like_javas(settled_pair, tmp_path, closes):
    """A warning, user_canceled, comes before the close_notify."""
    far = contexts("server", "1.3")[1]
    far.keylog_filename = str(tmp_path / "keys")
    c = await settled_pair(side="server", far=far)
    assert c.peer.tls.cipher()[0] == "TLS_AES_256_GCM_SHA384"
    lines = (tmp_path / "keys").read_text().splitlines()
    keys = dict(line.split(" ", 1) for line in lines if line[0] != "#")
    secret = bytes.fromhex(keys["CLIENT_TRAFFIC_SECRET_0"].split()[1])
    if closes:
        c.transport.close()
    canceled = seal_alert(secret, 1, b"\x01\x5a")
    await c.peer.send(canceled + seal_alert(secret, 2, b"\x01\x00"))
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names == ["made", "eof", "lost"]


@every_way
async def test_abort_ends_at_once(settled_pair, side):
    """Without close_notify: the peer sees a ragged end."""
    c = await settled_pair(side=side)
    c.transport.abort()
    assert c.transport.is_closing()
    assert c.protocol.names == ["made"]
    assert await c.protocol.wait_lost() is None
    assert c.protocol.names == ["made", "lost"]
    # Early 3.11 has SSLError for it, and not SSLEOFError.
    ends = (ssl.SSLError, ConnectionResetError)
    with pytest.raises(ends, match="EOF|reset"):
        await c.peer.read()


@every_side
@pytest.mark.parametrize("end", ["close_notify", "ragged"])
async def test_a_true_answer_of_eof_received_only_warns(
    tls_pair, side, end, caplog
):
    c = await tls_pair(Recorder(eof=lambda p: True), side=side)
    await c.settle()
    with caplog.at_level("WARNING", logger="asyncio"):
        if end == "ragged":
            c.peer.send_eof()
        else:
            await c.peer.close_notify()
        assert await c.protocol.wait_lost() is None
    texts = [record.getMessage() for record in caplog.records]
    assert texts == [
        "returning true from eof_received() has no effect when using ssl"
    ]


@every_side
@pytest.mark.parametrize(
    "talks_on", [False, pytest.param(True, marks=pytest.mark.native_tls)]
)
async def test_a_shutdown_has_a_time_limit(settled_pair, side, talks_on):
    """The limit holds while data is dropped; asyncio waits on for that."""
    c = await settled_pair(side=side, ssl_shutdown_timeout=0.05)
    c.transport.close()
    with contextlib.suppress(ConnectionError):
        while talks_on and not c.protocol.lost:
            await c.peer.write(bytes(1000))
            await iterations(1)
    exc = await c.protocol.wait_lost()
    assert type(exc) is TimeoutError
    assert str(exc) == "SSL shutdown timed out"
    assert c.protocol.names == ["made", "lost"]


@closes_with_raw
async def test_is_closing_includes_the_underlying_transport(tls_pair):
    """The plain transport below may be closing, the TLS one not yet."""
    c = await tls_pair()
    await c.settle()
    assert not c.transport.is_closing()
    c.transport._ssl_protocol._transport.abort()
    assert c.transport.is_closing()
    await c.protocol.wait_lost()


@pytest.mark.parametrize("name", ["handshake", "shutdown"])
async def test_timeouts_are_positive(run, name):
    plain, sock = await open_plain(protocol := Recorder())
    name = f"ssl_{name}_timeout"
    with sock, pytest.raises(ValueError) as caught:
        await start_tls(plain, protocol, "client", **{name: 0})
    assert str(caught.value) == f"{name} should be a positive number, got 0"
    plain.abort()
    await protocol.wait_lost()
