"""Every setting of an SSLContext does what it does in asyncio."""

import ssl

import pytest
from net_helpers import (
    CERTS,
    client_context,
    server_context,
)
from tls_ends import contexts, every_side
from tracers import Proxy, trace


def tls_of(protocol):
    return protocol.transport.get_extra_info("ssl_object")


async def test_sni_callback_may_choose_another_context(tls_pair, run):
    near, other = server_context(), server_context("other")
    asked = []

    def choose(tls, name, context):
        asked.append((type(tls), name, context))
        tls.context = other

    near.sni_callback = choose
    far = client_context()
    far.check_hostname = False
    c = await tls_pair(side="server", near=near, far=far)
    ((kind, name, context),) = asked
    assert issubclass(kind, ssl.SSLObject)
    assert (name, context) == ("localhost", near)
    names = c.peer.tls.getpeercert()["subjectAltName"]
    assert names == (("DNS", "other.test"),)
    assert c.transport.get_extra_info("sslcontext") is near
    assert tls_of(c).context is other


@pytest.mark.parametrize("side", ["client", "server", "start-tls-server"])
async def test_client_certificate(tls_pair, side):
    near, far = contexts(side)
    client, server = (near, far) if side == "client" else (far, near)
    client.load_cert_chain(CERTS / "client.pem", CERTS / "client.key")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(CERTS / "ca.pem")
    c = await tls_pair(side=side, near=near, far=far)
    await c.settle()
    seen = c.peer.tls if side == "client" else tls_of(c)
    subject = seen.getpeercert()["subject"]
    assert subject == ((("commonName", "client"),),)
    if side != "client":
        peercert = c.transport.get_extra_info("peercert")
        assert peercert["subject"] == subject
        assert tls_of(c).getpeercert(True).startswith(b"0")


@every_side
async def test_post_handshake_authentication(tls_pair, side):
    """The client answers inside a read, though its program writes nothing;
    a server asks through ssl_object, and its next write takes it along.
    """
    near, far = contexts(side, "1.3")
    client, server = (near, far) if side == "client" else (far, near)
    client.load_cert_chain(CERTS / "client.pem", CERTS / "client.key")
    client.post_handshake_auth = server.post_handshake_auth = True
    server.load_verify_locations(CERTS / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    c = await tls_pair(side=side, near=near, far=far)
    await c.settle()
    asks = c.peer.tls if side == "client" else tls_of(c)
    assert asks.getpeercert() is None
    asks.verify_client_post_handshake()
    if side == "client":
        await c.peer.write(b"who?")
        await c.protocol.wait_data(5)
        c.transport.write(b"me")
        assert await c.peer.read_exactly(2) == b"me"
    else:
        c.transport.write(b"who?")
        assert await c.peer.read_exactly(4) == b"who?"
        await c.peer.write(b"me")
        await c.protocol.wait_data(3)
    subject = asks.getpeercert()["subject"]
    assert subject == ((("commonName", "client"),),)


WAYS_TO_TRACE = ["a subclass", "the class", "its methods", "a proxy"]


@every_side
@pytest.mark.parametrize("how", WAYS_TO_TRACE)
async def test_an_sslobject_that_is_traced(tls_pair, side, how, monkeypatch):
    """As tools do: ssl.SSLObject's calls, or those of what wrap_bio makes.

    An overridden `read` and `write` carry all bytes.
    """
    near, far = contexts(side)
    make = near.wrap_bio
    calls = []

    def trace_all(owner):
        calls.append(trace(monkeypatch, owner, "read"))
        calls.append(trace(monkeypatch, owner, "write"))

    def changed(*args, **words):
        made = make(*args, **words)
        if how == "a proxy":
            return Proxy(made)
        trace_all(made)
        return made

    if how == "a subclass":
        near.sslobject_class = type("Own", (ssl.SSLObject,), {})
        trace_all(near.sslobject_class)
    elif how == "the class":
        trace_all(ssl.SSLObject)
    else:
        near.wrap_bio = changed
    c = await tls_pair(side=side, near=near, far=far)
    for seen in calls:
        seen.clear()
    await c.peer.write(b"question")
    assert await c.protocol.wait_data(8) == b"question"
    if calls:
        reads, writes = calls
        assert reads
        writes.clear()  # the peer's
    c.transport.write(b"answer")
    c.transport.writelines([b"ab", b"c"])
    assert await c.peer.read_exactly(9) == b"answerabc"
    if calls:
        written = b"".join(bytes(data) for (data,) in writes)
        assert written == b"answerabc"
