"""TLS connections: ssl= of create_connection, create_server and the rest.

Both ends run on the loop under test unless the far end has to misbehave;
then it is a plain socket, or a blocking ssl.SSLSocket in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time

import pytest
from net_helpers import (
    CERTS,
    KIB,
    MIB,
    BufferedRecorder,
    Recorder,
    client_context,
    digest,
    listening_socket,
    pattern,
    server_context,
    tcp_socketpair,
    turns,
)
from patience import PATIENCE

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
both_versions = pytest.mark.parametrize(
    "version", VERSIONS, ids=lambda v: v.name
)


@contextlib.asynccontextmanager
async def tls_pair(
    near=None, far=None, *, path=None, client=None, server=None
):
    """Client's and server's protocol, joined by TLS; ended at the end."""
    loop = asyncio.get_running_loop()
    near, far = near or Recorder(), far or Recorder()
    server = server or server_context()
    if path is None:
        listener = await loop.create_server(
            lambda: far, "127.0.0.1", 0, ssl=server
        )
        connect = loop.create_connection(
            lambda: near,
            *listener.sockets[0].getsockname(),
            ssl=client or client_context(),
            server_hostname="localhost",
        )
    else:
        listener = await loop.create_unix_server(lambda: far, path, ssl=server)
        connect = loop.create_unix_connection(
            lambda: near,
            path,
            ssl=client or client_context(),
            server_hostname="localhost",
        )
    try:
        await connect
        await far.wait_for("made")
        yield near, far
        for protocol in (near, far):
            if not protocol.lost:
                protocol.transport.abort()
        await near.wait_lost()
        await far.wait_lost()
        await turns(3)
        near.check()
        far.check()
    finally:
        listener.close()


@pytest.fixture(params=["tcp", "unix"])
def path(request, tmp_path):
    """None for TCP, or a path for a Unix socket."""
    return None if request.param == "tcp" else str(tmp_path / "s")


@both_versions
def test_bytes_both_ways(run, path, version):
    context = client_context()
    context.minimum_version = context.maximum_version = version

    async def main():
        async with tls_pair(path=path, client=context) as (near, far):
            near.transport.write(b"ping")
            assert await far.wait_data(4) == b"ping"
            far.transport.write(b"pong")
            assert await near.wait_data(4) == b"pong"
            expected = {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}
            ssl_object = near.transport.get_extra_info("ssl_object")
            assert ssl_object.version() == expected[version.name]

    run(main())


def test_extra_info(run, path):
    server = server_context()

    async def main():
        async with tls_pair(path=path, server=server) as (near, far):
            for protocol in (near, far):
                info = protocol.transport.get_extra_info
                assert isinstance(info("ssl_object"), ssl.SSLObject)
                assert len(info("cipher")) == 3
                assert info("compression") is None
                assert info("socket").fileno() > 2
                raw = info("socket")
                assert info("sockname") == raw.getsockname()
                assert info("peername") == raw.getpeername()
                assert info("nothing", 5) == 5
                assert isinstance(protocol.transport, asyncio.Transport)
            assert far.transport.get_extra_info("sslcontext") is server
            subject = near.transport.get_extra_info("peercert")["subject"]
            assert subject == ((("commonName", "localhost"),),)

    run(main())


@pytest.mark.parametrize("make", [Recorder, BufferedRecorder])
def test_large_transfers(run, path, make):
    there, back = pattern(5 * MIB, 1), pattern(3 * MIB, 2)

    async def main():
        async with tls_pair(make(), make(), path=path) as (near, far):
            near.transport.write(there)
            far.transport.write(back)
            await far.wait_data(len(there))
            await near.wait_data(len(back))
            assert digest(far.data) == digest(there)
            assert digest(near.data) == digest(back)

    run(main())


def test_many_small_writes(run, path):
    chunks = [pattern(i % 100 + 1, i) for i in range(2000)]
    whole = b"".join(chunks)

    async def main():
        async with tls_pair(path=path) as (near, far):
            for i in range(0, 2000, 2):
                near.transport.write(chunks[i])
                near.transport.writelines([chunks[i + 1]])
            assert await far.wait_data(len(whole)) == whole

    run(main())


def test_large_transfer_through_flow_control(run, loop):
    """pause_writing is obeyed, the reader pauses again and again."""
    data = pattern(8 * MIB)
    view = memoryview(data)
    position = [0]

    def more(protocol):
        while position[0] < len(data) and protocol.names[-1] != "pause":
            piece = view[position[0] : position[0] + 50_000]
            position[0] += len(piece)
            protocol.transport.write(piece)

    def slow(protocol, chunk):
        protocol.transport.pause_reading()
        if len(protocol.data) < len(data):
            loop.call_soon(protocol.transport.resume_reading)

    async def main():
        near, far = Recorder(resume=more), Recorder(data=slow)
        async with tls_pair(near, far):
            raw = near.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * KIB)
            far.transport.pause_reading()
            while not near.count("pause"):
                more(near)
            far.transport.resume_reading()
            await far.wait_data(len(data))
            assert digest(far.data) == digest(data)
            assert near.count("pause") > 0

    run(main())


def test_write_limits(run):
    async def main():
        async with tls_pair() as (near, far):
            near.transport.set_write_buffer_limits(high=1000, low=100)
            limits = near.transport.get_write_buffer_limits()
            assert limits == (100, 1000)
            with pytest.raises(ValueError):
                near.transport.set_write_buffer_limits(high=1, low=2)
            assert near.transport.get_write_buffer_size() == 0

    run(main())


def test_write_arguments(run):
    async def main():
        async with tls_pair() as (near, far):
            near.transport.write(bytearray(b"a"))
            near.transport.write(memoryview(b"b"))
            near.transport.write(b"")
            with pytest.raises(TypeError):
                near.transport.write("text")
            near.transport.write(b"c")
            assert await far.wait_data(3) == b"abc"
            assert near.transport.can_write_eof() is False
            with pytest.raises(NotImplementedError):
                near.transport.write_eof()

    run(main())


def test_writing_in_connection_made(run, path):
    """The first moment a program may write."""

    async def main():
        near = Recorder(made=lambda p: p.transport.write(b"from the client"))
        far = Recorder(made=lambda p: p.transport.write(b"from the server"))
        async with tls_pair(near, far, path=path):
            assert await near.wait_data(15) == b"from the server"
            assert await far.wait_data(15) == b"from the client"

    run(main())


def test_pausing_holds_data(run):
    async def main():
        async with tls_pair() as (near, far):
            near.transport.pause_reading()
            far.transport.write(b"held")
            far.transport.write(pattern(100 * KIB))
            await turns(50)
            assert near.names == ["made"]
            assert not near.transport.is_reading()
            near.transport.resume_reading()
            await near.wait_data(4 + 100 * KIB)
            assert near.data == b"held" + pattern(100 * KIB)

    run(main())


@pytest.mark.parametrize("ending", ["close", "abort"])
@pytest.mark.parametrize("side", ["client", "server"])
@both_versions
def test_endings(run, path, ending, side, version):
    context = client_context()
    context.minimum_version = context.maximum_version = version

    async def main():
        async with tls_pair(path=path, client=context) as (near, far):
            one, other = (near, far) if side == "client" else (far, near)
            # A first byte each way, so that the handshake is all over.
            one.transport.write(b"1")
            await other.wait_data(1)
            other.transport.write(b"2")
            await one.wait_data(1)
            getattr(one.transport, ending)()
            assert one.transport.is_closing()
            assert one.names == ["made", "data"]
            assert await one.wait_lost() is None
            exc = await other.wait_lost()
            if ending == "close":
                assert exc is None
                assert other.names == ["made", "data", "eof", "lost"]
            else:
                assert exc is None or isinstance(
                    exc, (ConnectionError, ssl.SSLError)
                )

    run(main())


def test_close_sends_what_was_written(run, path):
    data = pattern(2 * MIB)

    async def main():
        async with tls_pair(path=path) as (near, far):
            near.transport.write(data)
            near.transport.close()
            await far.wait_lost()
            assert digest(far.data) == digest(data)
            assert await near.wait_lost() is None

    run(main())


def test_alpn(run):
    client, server = client_context(), server_context()
    client.set_alpn_protocols(["h2", "http/1.1"])
    server.set_alpn_protocols(["http/1.1"])

    async def main():
        async with tls_pair(client=client, server=server) as pair:
            for protocol in pair:
                ssl_object = protocol.transport.get_extra_info("ssl_object")
                assert ssl_object.selected_alpn_protocol() == "http/1.1"

    run(main())


def test_sni_chooses_the_certificate(run, loop):
    asked = []
    server, other = server_context(), server_context("other")

    def choose(ssl_object, name, context):
        asked.append(name)
        if name == "other.test":
            ssl_object.context = other

    server.sni_callback = choose

    async def main():
        async with tls_pair(server=server) as (near, far):
            pass
        far = Recorder()
        listener = await loop.create_server(
            lambda: far, "127.0.0.1", 0, ssl=server
        )
        transport, near = await loop.create_connection(
            Recorder,
            *listener.sockets[0].getsockname(),
            ssl=client_context(),
            server_hostname="other.test",
        )
        names = transport.get_extra_info("peercert")["subjectAltName"]
        assert names == (("DNS", "other.test"),)
        transport.close()
        await near.wait_lost()
        await far.wait_lost()
        listener.close()

    run(main())
    assert asked == ["localhost", "other.test"]


def test_client_certificate(run):
    client, server = client_context(), server_context()
    client.load_cert_chain(CERTS / "client.pem", CERTS / "client.key")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(CERTS / "ca.pem")

    async def main():
        async with tls_pair(client=client, server=server) as (near, far):
            far_cert = far.transport.get_extra_info("peercert")
            assert far_cert["subject"] == ((("commonName", "client"),),)

    run(main())


@both_versions
def test_close_notify_is_sent_and_answered(run, loop, version):
    """Seen by a blocking client: a clean end, not a truncation."""
    context = client_context()
    context.minimum_version = context.maximum_version = version

    async def main():
        far = Recorder()
        server = await loop.create_server(
            lambda: far, "127.0.0.1", 0, ssl=server_context()
        )
        address = server.sockets[0].getsockname()

        def client():
            raw = socket.create_connection(address)
            raw.settimeout(PATIENCE)
            with context.wrap_socket(
                raw, server_hostname="localhost", suppress_ragged_eofs=False
            ) as tls:
                tls.sendall(b"hello")
                got = tls.recv(100)
                # b"" is close_notify; a ragged end would raise SSLEOFError.
                end = tls.recv(100)
                tls.unwrap().close()
                return got, end

        running = loop.run_in_executor(None, client)
        await far.wait_data(5)
        far.transport.write(b"bye")
        far.transport.close()
        assert await running == (b"bye", b"")
        assert await far.wait_lost() is None
        server.close()

    run(main())


@pytest.mark.reports
def test_an_end_without_close_notify(run, loop):
    """The raw connection just ends: eof and connection_lost all the same."""

    async def main():
        far = Recorder()
        server = await loop.create_server(
            lambda: far, "127.0.0.1", 0, ssl=server_context()
        )
        address = server.sockets[0].getsockname()

        def client():
            raw = socket.create_connection(address)
            tls = client_context().wrap_socket(
                raw, server_hostname="localhost"
            )
            tls.sendall(b"hello")
            raw = tls.detach()
            socket.close(raw)

        await loop.run_in_executor(None, client)
        exc = await far.wait_lost()
        assert far.data == b"hello"
        assert exc is None or isinstance(exc, (OSError, ssl.SSLError))
        server.close()

    run(main())


@pytest.mark.reports
@pytest.mark.parametrize("method", ["data", "made", "eof"])
def test_protocols_that_raise(run, method):
    def fail(protocol, *args):
        raise ZeroDivisionError

    async def main():
        async with tls_pair(far=Recorder(**{method: fail})) as (near, far):
            near.transport.write(b"data")
            near.transport.close()
            await near.wait_lost()
            await far.wait_lost()
            assert far.count("lost") == 1

    run(main())


@pytest.mark.reports
def test_ssl_true_is_the_default_context(run, loop):
    """It trusts the system's authorities, so ours is refused."""

    async def main():
        far = Recorder()
        server = await loop.create_server(
            lambda: far, "127.0.0.1", 0, ssl=server_context()
        )
        with pytest.raises(ssl.SSLCertVerificationError):
            await loop.create_connection(
                Recorder,
                *server.sockets[0].getsockname(),
                ssl=True,
                server_hostname="localhost",
            )
        await turns(20)
        server.close()

    run(main())


def test_server_hostname_defaults_to_the_host(run, loop):
    async def main():
        far = Recorder()
        server = await loop.create_server(
            lambda: far, "127.0.0.1", 0, ssl=server_context()
        )
        port = server.sockets[0].getsockname()[1]
        transport, near = await loop.create_connection(
            Recorder, "127.0.0.1", port, ssl=client_context()
        )
        ssl_object = transport.get_extra_info("ssl_object")
        assert ssl_object.server_hostname == "127.0.0.1"
        transport.close()
        await near.wait_lost()
        await far.wait_lost()
        server.close()

    run(main())


def test_tls_over_given_sockets(run, loop):
    """create_connection(sock=) against connect_accepted_socket."""

    async def main():
        a, b = tcp_socketpair()
        a.setblocking(False)
        b.setblocking(False)
        (near_t, near), (far_t, far) = await asyncio.gather(
            loop.create_connection(
                Recorder,
                sock=a,
                ssl=client_context(),
                server_hostname="localhost",
            ),
            loop.connect_accepted_socket(Recorder, b, ssl=server_context()),
        )
        near_t.write(b"hello")
        assert await far.wait_data(5) == b"hello"
        far_t.close()
        assert await near.wait_lost() is None
        assert await far.wait_lost() is None

    run(main())


@pytest.mark.parametrize("turn", [0, 1, 2, 3, 5, 8])
def test_cancelled_during_the_handshake(run, loop, turn):
    async def main():
        with listening_socket() as listener:
            task = loop.create_task(
                loop.create_connection(
                    Recorder,
                    *listener.getsockname(),
                    ssl=client_context(),
                    server_hostname="localhost",
                )
            )
            await turns(turn)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await turns(5)

    run(main())


def test_reset_by_the_peer(run, loop):
    async def main():
        async with tls_pair() as (near, far):
            near.transport.write(b"x")
            await far.wait_data(1)
            raw = near.transport.get_extra_info("socket")
            raw.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            near.transport.abort()
            exc = await far.wait_lost()
            assert exc is None or isinstance(exc, OSError)

    run(main())


def test_set_protocol(run):
    async def main():
        async with tls_pair() as (near, far):
            second = Recorder()
            far.transport.set_protocol(second)
            assert far.transport.get_protocol() is second
            near.transport.write(b"data")
            assert await second.wait_data(4) == b"data"
            far.transport.set_protocol(far)

    run(main())


def test_an_idle_tls_connection_uses_no_cpu(run, loop):
    async def main():
        async with tls_pair() as (near, far):
            near.transport.write(b"x")
            await far.wait_data(1)
            await turns(10)
            before = time.thread_time()
            alarm = loop.create_future()
            loop.call_later(0.1, alarm.set_result, None)
            await alarm
            assert time.thread_time() - before < 0.05

    run(main())


def test_many_tls_connections(run, loop):
    """Fifty at once on one server, each with its own bytes."""

    def echo(protocol, data):
        protocol.transport.write(data)

    async def main():
        protocols = []

        def factory():
            protocols.append(Recorder(data=echo))
            return protocols[-1]

        server = await loop.create_server(
            factory, "127.0.0.1", 0, ssl=server_context()
        )
        address = server.sockets[0].getsockname()
        context = client_context()
        pairs = await asyncio.gather(
            *[
                loop.create_connection(
                    Recorder,
                    *address,
                    ssl=context,
                    server_hostname="localhost",
                )
                for _ in range(50)
            ]
        )
        for i, (transport, _) in enumerate(pairs):
            transport.write(pattern(20_000, i))
        for i, (_, protocol) in enumerate(pairs):
            assert await protocol.wait_data(20_000) == pattern(20_000, i)
        for transport, _ in pairs:
            transport.close()
        for protocol in [pair[1] for pair in pairs] + protocols:
            assert await protocol.wait_lost() is None
            protocol.check()
        server.close()

    run(main())
