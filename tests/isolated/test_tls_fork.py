"""A fork while TLS connections are open."""

from pathlib import Path

import pytest

CERTS = Path(__file__).parent.parent / "certs"
BEFORE = f"""
import ssl, warnings
server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server_context.load_cert_chain(
    {str(CERTS / "localhost.pem")!r}, {str(CERTS / "localhost.key")!r}
)
client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
client_context.load_verify_locations({str(CERTS / "ca.pem")!r})
"""


exits = pytest.param(
    "exits",
    marks=pytest.mark.asyncio_needs_gil("the child ends the connection"),
)


@pytest.mark.parametrize("ends", ["closes", "collects", exits])
def test_a_child_leaves_a_parents_tls_connection(script, ends):
    """The child lets go of it: nothing of that is seen on the wire."""
    script(
        f"""
ends = {ends!r}
"""
        + """
async def main():
    sides = []
    server = await asyncio.start_server(
        lambda *pair: sides.append(pair), "127.0.0.1", 0, ssl=server_context
    )
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname(),
        ssl=client_context,
        server_hostname="localhost",
    )
    server.close()
    await exchange(reader, writer, sides)
    return reader, writer, sides

async def exchange(reader, writer, sides):
    writer.write(b"hello" * 10_000)
    while not sides:
        await asyncio.sleep(0)
    far_reader, far_writer = sides[0]
    far_writer.write(await far_reader.readexactly(50_000))
    assert await reader.readexactly(50_000) == b"hello" * 10_000

async def finish(reader, writer, sides):
    await exchange(reader, writer, sides)
    writer.close()
    assert await sides[0][0].read() == b""
    sides[0][1].close()
    await writer.wait_closed()

loop = new_loop()
joined = list(loop.run_until_complete(main()))
sys.stdout.flush()
pid = os.fork()
if not pid:
    warnings.simplefilter("ignore")
    if ends != "exits":
        loop.close()
    if ends == "collects":
        del joined
        gc.collect()
    sys.exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
loop.run_until_complete(finish(*joined))
loop.close()
"""
    )
