"""Extra info of a TLS transport, and what an unclosed one leaves."""

import asyncio
import functools
import gc
import ssl
import sys
import threading
from asyncio import constants

import pytest
from net_helpers import pattern
from tls_ends import contexts, every_side, every_way, meet


@every_way
async def test_extra_info(tls_pair, side):
    """After the end what TLS knew stays known; the wire's part is gone."""
    near, far = contexts(side)
    near.set_alpn_protocols(["h2", "http/1.1"])
    far.set_alpn_protocols(["http/1.1"])
    c = await tls_pair(side=side, near=near, far=far)
    info = c.transport.get_extra_info
    tls = info("ssl_object")
    assert type(tls) is ssl.SSLObject
    assert info("sslcontext") is near
    assert info("cipher") == tls.cipher()
    assert info("compression") is None
    assert tls.selected_alpn_protocol() == "http/1.1"
    assert info("peercert") == tls.getpeercert()
    assert tls.server_side is (not side.endswith("client"))
    assert tls.server_hostname == (
        "localhost" if side.endswith("client") else None
    )
    sock = info("socket")
    assert info("sockname") == sock.getsockname()
    assert info("peername") == sock.getpeername()
    assert info("peername") == c.peer.sock.getsockname()
    assert info("nothing") is None
    assert info("nothing", 5) == 5
    names = ("ssl_object", "sslcontext", "cipher", "peercert")
    before = {name: info(name) for name in names}
    known = tls.cipher(), tls.version()
    c.transport.abort()
    await c.protocol.wait_lost()
    for name, value in before.items():
        assert info(name) is value
    assert (tls.cipher(), tls.version()) == known
    assert info("peername", "gone") == "gone"
    assert info("socket", "gone") == "gone"


@every_side
async def test_private_names_that_programs_use(tls_pair, side):
    """aiohttp, anyio, sendfile and start_tls look at these."""
    c = await tls_pair(side=side)
    transport = c.transport
    assert isinstance(transport, asyncio.Transport)
    assert transport._start_tls_compatible is True
    assert transport._sendfile_compatible is (constants._SendfileMode.FALLBACK)
    assert transport._protocol_paused is False
    assert transport.can_write_eof() is False
    above = transport._ssl_protocol
    assert above._app_transport is transport
    assert above._app_protocol is c.protocol
    assert above._transport.get_extra_info("socket") is c.socket
    assert above._sslcontext is transport.get_extra_info("sslcontext")
    c.fill()
    assert transport._protocol_paused is True


@every_way
async def test_methods_that_a_program_sets_are_called(tls_pair, side):
    """Many copied it from an issue of aiohttp: close() of gql waits for it."""
    c = await tls_pair(side=side)
    above, seen = c.transport._ssl_protocol, []

    def note(method, *args):
        seen.append(method.__name__)
        return method(*args)

    for method in (above.eof_received, above.connection_lost):
        setattr(above, method.__name__, functools.partial(note, method))
    c.peer.send_eof()
    await c.protocol.wait_lost()
    assert seen == ["eof_received", "connection_lost"]


@every_side
async def test_the_ssl_object_is_used_from_threads(tls_pair, side, in_thread):
    """While data flows both ways: no crash, no lost byte."""
    c = await tls_pair(side=side)
    tls = c.transport.get_extra_info("ssl_object")
    over = threading.Event()
    seen = set()

    def ask():
        for _ in range(20_000):
            # Both are None while another thread takes in a session's ticket.
            assert tls.version() in ("TLSv1.3", None)
            seen.add(tls.cipher())
            assert tls.pending() >= 0
            if over.is_set():
                break

    threads = [in_thread(ask), in_thread(ask)]
    data = pattern(30_000)
    try:
        for number in range(20):
            c.transport.write(data)
            await c.peer.write(data)
            assert await c.peer.read_exactly(len(data)) == data
            await c.protocol.wait_data((number + 1) * len(data))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert c.protocol.data == data * 20
    assert len(seen - {None}) == 1


@pytest.mark.skipif(
    sys.version_info >= (3, 15), reason="asyncio's own lives on as well"
)
@pytest.mark.parametrize("method", ["close", "abort", "resume_reading"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_it_raises_one_error_once_the_loop_is_closed(
    loop_factory, method, monkeypatch
):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    loop = loop_factory()

    async def main():
        protocol = asyncio.Protocol()
        task, peer = await meet("client", protocol, *contexts("client"))
        await peer.handshake()
        transport, _ = await task
        transport.pause_reading()
        return transport, peer

    transport, peer = loop.run_until_complete(main())
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        getattr(transport, method)()
    assert unraisable == []
    peer.close()
    del transport, loop
    gc.collect()
