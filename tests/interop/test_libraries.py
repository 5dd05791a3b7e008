"""Libraries that meet the loop in ways of their own, on both loops.

pyzmq watches one fd of many connections, gRPC answers from threads, aiofastnet
has transports of its own, and anyio makes the loop.  Tornado wraps it.
"""

from __future__ import annotations

import asyncio
import functools

import pytest
from interop_process import CERTS


async def test_pyzmq_sends_1000_messages_each_way(tmp_path):
    pytest.importorskip("zmq", reason="pyzmq is not installed")
    import zmq.asyncio

    count = 1000

    async def send(socket):
        for i in range(count):
            await socket.send_multipart([b"%d" % i, b"x" * (i % 100)])

    async def receive(socket):
        return [int((await socket.recv_multipart())[0]) for _ in range(count)]

    with (
        zmq.asyncio.Context() as context,
        context.socket(zmq.PAIR) as one,
        context.socket(zmq.PAIR) as other,
    ):
        one.bind(f"ipc://{tmp_path}/socket")
        other.connect(f"ipc://{tmp_path}/socket")
        ends = (one, other)
        got = await asyncio.gather(*map(send, ends), *map(receive, ends))
        assert got[2:] == [list(range(count))] * 2
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(one.recv(), 0.01)
        await other.send(b"after")
        assert await one.recv() == b"after"


async def double(request, _context):
    return request * 2


async def echo_each(requests, _context):
    async for request in requests:
        yield request


async def count_to(request, _context):
    for i in range(int(request)):
        yield b"%d" % i


@pytest.mark.leaves_tasks  # the server's, which `stop` does not wait for
@pytest.mark.keeps_fds  # gRPC's threads close theirs later
async def test_grpc_answers_calls_and_streams():
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    server, arrived = grpc.aio.server(), asyncio.Event()

    async def wait(_request, _context):
        arrived.set()
        await asyncio.Event().wait()

    handlers = {
        "double": grpc.unary_unary_rpc_method_handler(double),
        "wait": grpc.unary_unary_rpc_method_handler(wait),
        "count": grpc.unary_stream_rpc_method_handler(count_to),
        "echo": grpc.stream_stream_rpc_method_handler(echo_each),
    }
    service = grpc.method_handlers_generic_handler("test", handlers)
    server.add_generic_rpc_handlers((service,))
    key, chain, roots = (
        (CERTS / name).read_bytes()
        for name in ("localhost.key", "localhost.pem", "ca.pem")
    )
    tls = grpc.ssl_server_credentials([(key, chain)])
    port = server.add_secure_port("localhost:0", tls)
    channel = grpc.aio.secure_channel(
        f"localhost:{port}", grpc.ssl_channel_credentials(roots)
    )
    await server.start()
    async with channel:
        call = channel.unary_unary("/test/double")
        texts = [b"%d" % i for i in range(200)]
        texts.append(b"x" * (1 << 20))
        answers = await asyncio.gather(*map(call, texts))
        assert answers == [text * 2 for text in texts]
        counted = channel.unary_stream("/test/count")(b"200")
        assert [each async for each in counted] == texts[:200]
        both = channel.stream_stream("/test/echo")()
        for text in texts:
            await both.write(text)
            assert await both.read() == text
        await both.done_writing()
        assert await both.read() is grpc.aio.EOF
        call = channel.unary_unary("/test/wait")
        pending = call(b"")
        await arrived.wait()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"", timeout=0.01)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(asyncio.CancelledError):
        await pending
    await server.stop(None)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("way", ["functions", "loop_factory"])
def test_aiofastnet_on_top(way, tls, loop_factory, server_tls, client_tls):
    reason = "aiofastnet is not installed"
    aiofastnet = pytest.importorskip("aiofastnet", reason=reason)
    data = bytes(range(256)) * 200

    async def echo(reader, writer):
        while got := await reader.read(1 << 16):
            writer.write(got)
        writer.close()

    async def main():
        loop = asyncio.get_running_loop()
        start, connect = asyncio.start_server, asyncio.open_connection
        if way == "functions":
            start = functools.partial(aiofastnet.start_server, loop)
            connect = functools.partial(aiofastnet.open_connection, loop)
        server = await start(
            echo, "127.0.0.1", 0, ssl=server_tls if tls else None
        )
        port = server.sockets[0].getsockname()[1]

        async def client():
            reader, writer = await connect(
                "localhost", port, ssl=client_tls if tls else None
            )
            assert type(writer.transport).__module__.startswith("aiofastnet")
            for _ in range(5):
                writer.write(data)
                assert await reader.readexactly(len(data)) == data
            writer.close()
            await writer.wait_closed()

        await asyncio.gather(*(client() for _ in range(10)))
        server.close()
        await server.wait_closed()

    if way == "loop_factory":
        loop_factory = aiofastnet.loop_factory(loop_factory)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_anyio_runs_by_a_factory(loop_factory, loop_kind):
    anyio = pytest.importorskip("anyio", reason="anyio is not installed")

    async def main():
        return type(asyncio.get_running_loop()).__module__.partition(".")[0]

    options = {"loop_factory": loop_factory}
    assert anyio.run(main, backend_options=options) == loop_kind


async def test_tornado_serves():
    pytest.importorskip("tornado", reason="tornado is not installed")
    from tornado import netutil, web

    class Hello(web.RequestHandler):
        async def get(self):
            self.write("hello")

    server = web.HTTPServer(web.Application([("/", Hello)]))
    (sock,) = sockets = netutil.bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.read()).endswith(b"\r\nhello")
    writer.close()
    server.stop()
