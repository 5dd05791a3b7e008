"""A fast path turned off must change nothing but speed.

One program that goes down every fast path prints what it sees; what it prints
is the same whatever FASTLOOP_DISABLE names, and the same on asyncio.
"""

import pytest

SWITCHES = [
    "raw_steps",
    "poll_skip",
    "cork",
    "native_executor",
    "datagram_batch",
    "native_tls",
    "libssl",
    "persistent_fds",
    "native_readers",
]
PROGRAM = """
log = []

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(b"head " )
        self.transport.write(data)
        self.transport.writelines([b" ", b"tail\\n"])
    def eof_received(self):
        log.append("eof")
    def connection_lost(self, exc):
        log.append(("server lost", exc))
        lost.set_result(None)

async def steps():
    order = []
    async def child(name):
        for number in range(3):
            order.append((name, number))
            await asyncio.sleep(0)
    await asyncio.gather(*map(child, "abc"))
    return order

async def io():
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    seen = []
    loop.add_reader(left, lambda: seen.append(left.recv(1)))
    for _ in range(100):
        await asyncio.sleep(0)
    right.send(b"x")
    while not seen:
        await asyncio.sleep(0)
    loop.remove_reader(left)
    left.close()
    right.close()
    return seen

async def tcp():
    global lost
    loop = asyncio.get_running_loop()
    lost = loop.create_future()
    server = await loop.create_server(Echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(
        *server.sockets[0].getsockname()
    )
    lines = []
    for number in range(5):
        writer.write(b"line %d" % number)
        lines.append(await reader.readline())
    writer.write_eof()
    rest = await reader.read()
    await lost
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    return lines, rest

async def udp():
    loop = asyncio.get_running_loop()
    got = []

    class Sink(asyncio.DatagramProtocol):
        def datagram_received(self, data, addr):
            got.append(data)

    transport, _ = await loop.create_datagram_endpoint(
        Sink, local_addr=("127.0.0.1", 0)
    )
    name = transport.get_extra_info("sockname")
    for number in range(20):
        transport.sendto(b"%d" % number, name)
    while len(got) < 20:
        await asyncio.sleep(0)
    transport.close()
    await asyncio.sleep(0)
    return got

async def executor():
    loop = asyncio.get_running_loop()
    def fail():
        raise ZeroDivisionError
    results = await asyncio.gather(
        *[asyncio.to_thread(pow, n, 2) for n in range(10)],
        asyncio.to_thread(fail),
        return_exceptions=True,
    )
    name = await asyncio.to_thread(lambda: threading.current_thread().name)
    return [str(r) for r in results], name.startswith("asyncio_")

async def dns():
    loop = asyncio.get_running_loop()
    out = []
    for host in ("127.0.0.1", "::1", "127.1"):
        found = await loop.getaddrinfo(host, 80, type=socket.SOCK_STREAM)
        out.append(sorted(entry[4] for entry in found))
    return out

async def timers():
    loop = asyncio.get_running_loop()
    out = []
    for delay in (0.0001, 0.0007, 0.0015, 0.003):
        begin = time.monotonic()
        await asyncio.sleep(delay)
        out.append(time.monotonic() - begin >= delay)
    order = []
    base = loop.time() + 0.002
    for number in (3, 1, 2):
        loop.call_at(base + number * 0.0003, order.append, number)
    await asyncio.sleep(0.006)
    return out, order

async def main():
    for part in (steps, io, tcp, udp, executor, dns, timers):
        log.append((part.__name__, await part()))

for _ in range(2):
    loop = new_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
for line in log:
    print(line)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """Return a function that gives the program's output, each run once."""
    from isolated_scripts import Script

    kept = {}

    def output(kind, switches=""):
        if (kind, switches) not in kept:
            script = Script(kind, tmp_path_factory.mktemp("switches"))
            done = script(PROGRAM, FASTLOOP_DISABLE=switches)
            kept[kind, switches] = done.stdout
        return kept[kind, switches]

    return output


def test_same_as_asyncio(said):
    assert said("fastloop") == said("asyncio")
    assert "server lost" in said("asyncio")


@pytest.mark.parametrize("switch", SWITCHES)
def test_one_turned_off(said, switch):
    assert said("fastloop", switch) == said("fastloop")


def test_all_turned_off(said):
    assert said("fastloop", ",".join(SWITCHES)) == said("fastloop")


def test_an_unknown_name_is_a_warning(fast_script):
    done = fast_script(
        "new_loop().close()", quiet=False, FASTLOOP_DISABLE="nope,cork,odd"
    )
    assert "RuntimeWarning: FASTLOOP_DISABLE names nope, odd, which" in (
        done.stderr
    )
    assert ", ".join(SWITCHES) in done.stderr


@pytest.mark.parametrize(
    ("names", "off"),
    [
        ("", False),
        ("native_tls", True),
        ("poll_skip,native_tls", True),
        ("native_tls, libssl", True),
        ("native_tls,", True),
        ("no_native_tls", False),
        ("native_tls2,native", False),
        ("poll_skip,libssl", False),
    ],
)
def test_a_switch_is_known_by_its_whole_name(fast_script, names, off):
    done = fast_script(
        """
        loop = new_loop()
        print(not loop._has_native_tls)
        loop.close()
        """,
        FASTLOOP_DISABLE=names,
        PYTHONWARNINGS="ignore::RuntimeWarning",
    )
    assert done.stdout == f"{off}\n"
