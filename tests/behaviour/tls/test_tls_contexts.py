"""Every setting of an SSLContext does what it does in asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

import pytest
from net_helpers import (
    CERTS,
    Recorder,
    client_context,
    iterations,
    server_context,
    tcp_socketpair,
)
from tls_ends import (
    VERSIONS,
    WirePeer,
    contexts,
    every_side,
    every_version,
    every_way,
    tls_both_ends,
    tls_server,
)
from tracers import Proxy, trace


def tls_of(protocol):
    return protocol.transport.get_extra_info("ssl_object")


@every_way
@every_version
async def test_each_version_carries_bytes(tls_pair, side, version):
    c = await tls_pair(side=side, version=version)
    assert tls_of(c).version() == f"TLSv{version}"
    c.transport.write(b"ping")
    assert await c.peer.read_exactly(4) == b"ping"
    await c.peer.write(b"pong")
    assert await c.protocol.wait_data(4) == b"pong"


@every_side
async def test_the_highest_version_of_both_is_taken(tls_pair, side):
    near, far = contexts(side)
    near.maximum_version = ssl.TLSVersion.TLSv1_2
    c = await tls_pair(side=side, near=near, far=far)
    assert tls_of(c).version() == c.peer.tls.version() == "TLSv1.2"


@every_side
@pytest.mark.parametrize(
    "cipher",
    [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA256",
    ],
)
async def test_ciphers(tls_pair, side, cipher):
    """Also one that is not of the AEAD kind: its records differ."""
    near, far = contexts(side, "1.2")
    for context in (near, far):
        context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    c = await tls_pair(side=side, near=near, far=far)
    assert c.transport.get_extra_info("cipher")[0] == cipher
    c.transport.write(b"x" * 100_000)
    assert await c.peer.read_exactly(100_000) == b"x" * 100_000
    await c.peer.write(b"y" * 100_000)
    assert await c.protocol.wait_data(100_000) == b"y" * 100_000


@every_side
@every_version
@pytest.mark.parametrize("offered", [["h2", "http/1.1"], ["gopher"], []])
async def test_alpn(tls_pair, side, version, offered):
    near, far = contexts(side, version)
    client, server = (near, far) if side == "client" else (far, near)
    if offered:
        client.set_alpn_protocols(offered)
    server.set_alpn_protocols(["http/1.1"])
    c = await tls_pair(side=side, near=near, far=far)
    expected = "http/1.1" if "http/1.1" in offered else None
    assert tls_of(c).selected_alpn_protocol() == expected
    assert c.peer.tls.selected_alpn_protocol() == expected


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


async def test_sni_callback_may_see_no_name(tls_pair):
    near, far = server_context(), client_context()
    far.check_hostname = False
    asked = []
    near.sni_callback = lambda tls, name, context: asked.append(name)
    async with tls_server(context=near) as (address, protocols):
        (
            transport,
            protocol,
        ) = await asyncio.get_running_loop().create_connection(
            Recorder, *address, ssl=far, server_hostname=""
        )
        transport.close()
        await protocol.wait_lost()
    assert asked == [None]


@pytest.mark.reports
@pytest.mark.parametrize("answer", ["alert", "raise", "text"])
async def test_sni_callback_may_refuse(run, answer, monkeypatch):
    """An alert is sent for what it answers; what it raises is printed."""
    unraisable = []
    monkeypatch.setattr("sys.unraisablehook", unraisable.append)
    near = server_context()

    def refuse(tls, name, context):
        if answer == "raise":
            raise ZeroDivisionError
        if answer == "text":
            return "no"
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    near.sni_callback = refuse
    async with tls_server(context=near) as (address, protocols):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.get_running_loop().create_connection(
                Recorder,
                *address,
                ssl=client_context(),
                server_hostname="localhost",
            )
        await iterations(20)
        assert protocols[0].count("made") == 0
    kinds = [u.exc_type for u in unraisable]
    expected = {"alert": [], "raise": [ZeroDivisionError], "text": [TypeError]}
    assert kinds == expected[answer]
    unraisable.clear()


@every_version
@pytest.mark.parametrize("side", ["client", "server", "start-tls-server"])
async def test_client_certificate(tls_pair, side, version):
    near, far = contexts(side, version)
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


async def test_an_optional_client_certificate_may_be_missing(tls_pair):
    near, far = contexts("server")
    near.verify_mode = ssl.CERT_OPTIONAL
    near.load_verify_locations(CERTS / "ca.pem")
    c = await tls_pair(side="server", near=near, far=far)
    assert not c.transport.get_extra_info("peercert")


@pytest.mark.reports
@every_version
async def test_a_required_client_certificate_is_missing(run, version):
    """In TLS 1.3 the client hears of it only with what it reads first."""
    near, far = contexts("server", version)
    near.verify_mode = ssl.CERT_REQUIRED
    near.load_verify_locations(CERTS / "ca.pem")
    async with tls_server(context=near) as (address, protocols):
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.create_connection(
                Recorder, *address, ssl=far, server_hostname="localhost"
            )
        except (ssl.SSLError, ConnectionError):
            pass
        else:
            assert version == "1.3"
            exc = await protocol.wait_lost()
            assert exc is None or isinstance(exc, OSError)
        await iterations(20)
        assert protocols[0].count("made") == 0


@every_side
async def test_verification_may_be_off(tls_pair, side):
    near, far = contexts(side)
    client = near if side == "client" else far
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    c = await tls_pair(side=side, near=near, far=far)
    await c.settle()
    if side == "client":
        # An empty dict: there is a certificate, not verified.
        assert c.transport.get_extra_info("peercert") == {}
    else:
        assert c.transport.get_extra_info("peercert") is None


@pytest.mark.reports
@pytest.mark.parametrize(
    "fault, text",
    [
        ("authority", "unable to get local issuer certificate"),
        ("name", "Hostname mismatch, certificate is not valid for 'wrong.tes"),
        ("address", "IP address mismatch"),
    ],
)
@every_version
async def test_a_certificate_that_does_not_verify(run, fault, text, version):
    """The waiter gets OpenSSL's own error, the protocol hears nothing."""
    context = client_context()
    if fault == "authority":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    hostname = {"name": "wrong.test", "address": "127.0.0.9"}.get(fault)
    far = server_context()
    far.maximum_version = VERSIONS[version]
    near = Recorder()
    async with tls_server(context=far) as (address, protocols):
        with pytest.raises(ssl.SSLCertVerificationError, match=text) as caught:
            await asyncio.get_running_loop().create_connection(
                lambda: near,
                *address,
                ssl=context,
                server_hostname=hostname or "localhost",
            )
        assert caught.value.verify_code > 0
        assert caught.value.reason == "CERTIFICATE_VERIFY_FAILED"
        await iterations(20)
        assert near.names == []


def test_a_name_that_is_no_name(run, loop):
    """server_hostname is refused before anything is sent."""

    async def main():
        near, far = tcp_socketpair()
        with far, near, pytest.raises(ValueError, match="idna|dot"):
            await loop.create_connection(
                Recorder,
                sock=near,
                ssl=client_context(),
                server_hostname=".test",
            )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.unraisablehook", lambda unraisable: None)
        run(main())


@every_version
async def test_keylog_and_msg_callback(tls_pair, tmp_path, version):
    """Both are called in the handshake and for later records."""
    near, far = contexts("client", version)
    near.keylog_filename = str(tmp_path / "keys")
    seen = []

    def note(tls, direction, number, content, message, data):
        seen.append((type(tls), direction, content.name))

    near._msg_callback = note
    c = await tls_pair(near=near, far=far)
    await c.settle()
    keys = (tmp_path / "keys").read_text()
    secret = "CLIENT_RANDOM" if version == "1.2" else "CLIENT_TRAFFIC_SECRET_0"
    assert secret in keys
    assert {kind for kind, _, _ in seen} == {ssl.SSLObject}
    assert {way for _, way, _ in seen} == {"read", "write"}
    seen.clear()
    c.transport.close()
    assert await c.peer.read() == b""
    assert "ALERT" in {content for _, _, content in seen}
    near._msg_callback = None


async def test_msg_callback_sees_each_record(tls_pair):
    near, far = contexts("server")
    headers = []

    def note(tls, direction, number, content, message, data):
        if content.name == "HEADER" and data[0] == 23:
            headers.append(direction)

    near._msg_callback = note
    c = await tls_pair(side="server", near=near, far=far)
    await c.settle()
    headers.clear()
    for _ in range(3):
        await c.peer.send(c.peer.seal(b"a"))
    await c.protocol.wait_data(4)
    c.transport.write(b"b")
    c.transport.write(b"c")
    await c.peer.read_exactly(2)
    assert headers == ["read"] * 3 + ["write"] * 2
    near._msg_callback = None


class Noting(ssl.SSLObject):
    """An SSLObject that counts the bytes that go through it."""

    count_read = count_written = 0

    def read(self, *args):
        result = super().read(*args)
        size = result if isinstance(result, int) else len(result)
        self.count_read += size
        return result

    def write(self, data):
        size = super().write(data)
        self.count_written += size
        return size


@every_way
async def test_a_tracer_of_sslobjects_sees_the_calls(
    tls_pair, side, monkeypatch
):
    reads = trace(monkeypatch, ssl.SSLObject, "read")
    writes = trace(monkeypatch, ssl.SSLObject, "write")
    near, far = contexts(side)
    c = await tls_pair(side=side, near=near, far=far)
    reads.clear()
    await c.peer.write(b"question")
    assert await c.protocol.wait_data(8) == b"question"
    assert reads
    writes.clear()  # the peer's
    c.transport.write(b"answer")
    assert await c.peer.read_exactly(6) == b"answer"
    assert [bytes(data) for (data,) in writes] == [b"answer"]


@every_way
async def test_methods_that_an_sslobject_itself_has_are_called(
    tls_pair, side, monkeypatch
):
    near, far = contexts(side)
    make = near.wrap_bio
    calls = []

    def traced(*args, **words):
        made = make(*args, **words)
        calls.append(trace(monkeypatch, made, "read"))
        calls.append(trace(monkeypatch, made, "write"))
        return made

    near.wrap_bio = traced
    c = await tls_pair(side=side, near=near, far=far)
    await c.peer.write(b"question")
    assert await c.protocol.wait_data(8) == b"question"
    c.transport.write(b"answer")
    assert await c.peer.read_exactly(6) == b"answer"
    reads, writes = calls
    assert reads
    assert [bytes(data) for (data,) in writes] == [b"answer"]


@every_way
async def test_a_proxy_of_an_sslobject_is_used_as_one(tls_pair, side):
    near, far = contexts(side)
    make = near.wrap_bio
    near.wrap_bio = lambda *args, **words: Proxy(make(*args, **words))
    c = await tls_pair(side=side, near=near, far=far)
    await c.peer.write(b"question")
    assert await c.protocol.wait_data(8) == b"question"
    c.transport.write(b"answer")
    assert await c.peer.read_exactly(6) == b"answer"


@every_way
@pytest.mark.parametrize("on", ["class", "context"])
async def test_sslobject_class(tls_pair, side, on):
    """Overridden `read` and `write` carry all bytes."""
    near, far = contexts(side)
    if on == "class":
        near.sslobject_class = Noting
    else:

        class Context(ssl.SSLContext):
            sslobject_class = Noting

        kind = near.protocol
        near = Context(kind)
        if side.endswith("client"):
            near.load_verify_locations(CERTS / "ca.pem")
        else:
            near.load_cert_chain(
                CERTS / "localhost.pem", CERTS / "localhost.key"
            )
    c = await tls_pair(side=side, near=near, far=far)
    assert type(tls_of(c)) is Noting
    c.transport.write(b"x" * 50_000)
    c.transport.writelines([b"ab", b"c"])
    await c.peer.read_exactly(50_003)
    await c.peer.write(b"y" * 40_000)
    await c.protocol.wait_data(40_000)
    assert tls_of(c).count_written == 50_003
    assert tls_of(c).count_read == 40_000


@every_side
async def test_a_context_whose_wrap_bio_is_replaced(tls_pair, side):
    """A program's own context class sees each connection."""
    made = []

    class Context(ssl.SSLContext):
        def wrap_bio(self, *args, **kwargs):
            made.append(super().wrap_bio(*args, **kwargs))
            return made[-1]

    plain, far = contexts(side)
    near = Context(plain.protocol)
    if side == "client":
        near.load_verify_locations(CERTS / "ca.pem")
    else:
        near.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    c = await tls_pair(side=side, near=near, far=far)
    await c.settle()
    assert made == [tls_of(c)]


@pytest.fixture
def replaced_bios(monkeypatch):
    """Replace ssl.MemoryBIO; return a list of what its read() calls first."""
    real, wrap_bio = ssl.MemoryBIO, ssl.SSLContext.wrap_bio
    hooks = []

    class MemoryBIO:
        def __init__(self):
            self.real = real()
            self.write, self.write_eof = self.real.write, self.real.write_eof

        pending = property(lambda self: self.real.pending)
        eof = property(lambda self: self.real.eof)

        def read(self, size=-1):
            for hook in hooks:
                hook()
            return self.real.read(size)

    def wrap(context, incoming, outgoing, *args, **options):
        return wrap_bio(
            context, incoming.real, outgoing.real, *args, **options
        )

    monkeypatch.setattr(ssl, "MemoryBIO", MemoryBIO)
    monkeypatch.setattr(ssl.SSLContext, "wrap_bio", wrap)
    return hooks


@every_side
async def test_a_memory_bio_that_is_replaced(tls_pair, side, replaced_bios):
    """Its read() may use the transport, also as the connection ends."""
    c = await tls_pair(side=side)
    await c.settle()
    calls = []

    def use():
        calls.append("read")
        c.transport.set_read_buffer_limits(100)

    replaced_bios.append(use)
    engine = c.transport.get_extra_info("tls_engine")
    c.transport.abort()
    assert await c.protocol.wait_lost() is None
    assert calls == ([] if engine == "libssl" else ["read"])


@every_side
async def test_a_memory_bio_that_ends_the_connection(
    tls_pair, side, loop_kind, replaced_bios
):
    """While records are taken out of it."""
    if loop_kind == "asyncio":
        pytest.skip("asyncio raises AttributeError")
    c = await tls_pair(side=side)
    await c.settle()
    if c.transport.get_extra_info("tls_engine") == "libssl":
        pytest.skip("libssl needs no MemoryBIO")

    adapter = c.transport._ssl_protocol
    below = adapter._transport

    def end():
        replaced_bios.clear()
        adapter.connection_lost(None)

    replaced_bios.append(end)
    c.transport.write(b"data")
    assert await c.protocol.wait_lost() is None
    below.abort()


@every_version
async def test_a_session_is_used_again(run, version):
    """A server of the loop hands out tickets; a client returns with one."""
    context = client_context()
    context.maximum_version = VERSIONS[version]
    async with tls_server() as (address, protocols):

        async def visit(session):
            loop = asyncio.get_running_loop()
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
            peer = WirePeer(sock, context, False, session=session)
            await peer.handshake()
            protocol = protocols[-1]
            await protocol.wait_for("made")
            protocol.transport.write(b"x")
            assert await peer.read_exactly(1) == b"x"
            got = peer.tls.session, peer.tls.session_reused
            assert tls_of(protocol).session_reused is got[1]
            await peer.close_notify()
            await peer.expect_end()
            peer.close()
            return got

        session, reused = await visit(None)
        assert not reused and session.has_ticket
        session, reused = await visit(session)
        assert reused


async def test_no_tickets_where_the_context_disables_them(tls_pair):
    near, far = contexts("server", "1.3")
    near.num_tickets = 0
    c = await tls_pair(side="server", near=near, far=far)
    await c.settle()
    assert c.peer.tls.session is None or not c.peer.tls.session.has_ticket


async def test_options_of_the_context_hold(tls_pair):
    """A server's preference of ciphers, a curve, no tickets in TLS 1.2."""
    near, far = contexts("server", "1.2")
    near.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    near.set_ecdh_curve("secp384r1")
    weak, strong = (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    )
    near.set_ciphers(f"{strong}:{weak}")
    far.set_ciphers(f"{weak}:{strong}")
    c = await tls_pair(side="server", near=near, far=far)
    await c.settle()
    assert c.transport.get_extra_info("cipher")[0] == strong
    assert not c.peer.tls.session.has_ticket


async def test_channel_binding(tls_pair):
    c = await tls_pair(version="1.2")
    binding = tls_of(c).get_channel_binding("tls-unique")
    assert binding == c.peer.tls.get_channel_binding("tls-unique")
    assert binding


@pytest.mark.skipif(not ssl.HAS_TLSv1_3, reason="it came with TLS 1.3")
async def test_post_handshake_authentication(tls_pair):
    """Post-handshake authentication, answered inside a read."""
    near, far = contexts("client", "1.3")
    near.load_cert_chain(CERTS / "client.pem", CERTS / "client.key")
    near.post_handshake_auth = True
    far.load_verify_locations(CERTS / "ca.pem")
    far.verify_mode = ssl.CERT_REQUIRED
    far.post_handshake_auth = True
    c = await tls_pair(near=near, far=far)
    await c.settle()
    assert c.peer.tls.getpeercert() is None
    c.peer.tls.verify_client_post_handshake()
    await c.peer.write(b"who?")
    await c.protocol.wait_data(5)
    # The client's answer left though its program wrote nothing.
    c.transport.write(b"me")
    assert await c.peer.read_exactly(2) == b"me"
    subject = c.peer.tls.getpeercert()["subject"]
    assert subject == ((("commonName", "client"),),)


async def test_post_handshake_authentication_by_a_server(tls_pair):
    """The program asks through ssl_object; its next write takes it along."""
    near, far = contexts("server", "1.3")
    far.load_cert_chain(CERTS / "client.pem", CERTS / "client.key")
    far.post_handshake_auth = near.post_handshake_auth = True
    near.load_verify_locations(CERTS / "ca.pem")
    near.verify_mode = ssl.CERT_REQUIRED
    c = await tls_pair(side="server", near=near, far=far)
    await c.settle()
    assert tls_of(c).getpeercert() is None
    tls_of(c).verify_client_post_handshake()
    c.transport.write(b"who?")
    assert await c.peer.read_exactly(4) == b"who?"
    await c.peer.write(b"me")
    await c.protocol.wait_data(3)
    subject = tls_of(c).getpeercert()["subject"]
    assert subject == ((("commonName", "client"),),)


@pytest.mark.reports
@pytest.mark.parametrize("lacking", ["cipher", "version"])
async def test_nothing_in_common(run, lacking):
    """Each end hears of it: the client with an error of OpenSSL's."""
    near, far = client_context(), server_context()
    near.maximum_version = ssl.TLSVersion.TLSv1_2
    if lacking == "version":
        far.minimum_version = ssl.TLSVersion.TLSv1_3
    else:
        near.set_ciphers("ECDHE+AES128")
        far.set_ciphers("ECDHE+AES256")
        far.maximum_version = ssl.TLSVersion.TLSv1_2
    async with tls_server(context=far) as (address, protocols):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.get_running_loop().create_connection(
                Recorder, *address, ssl=near, server_hostname="localhost"
            )
        await iterations(20)
        assert protocols[0].count("made") == 0


async def test_both_ends_on_one_loop_with_one_context_each(run):
    """A context is shared by connections that begin at the same time."""
    client, server = client_context(), server_context()
    async with contextlib.AsyncExitStack() as stack:
        pairs = [
            await stack.enter_async_context(
                tls_both_ends(client=client, server=server)
            )
            for _ in range(20)
        ]
        for number, (near, _far) in enumerate(pairs):
            near.transport.write(bytes([number]) * 1000)
        for number, (_near, far) in enumerate(pairs):
            assert await far.wait_data(1000) == bytes([number]) * 1000
