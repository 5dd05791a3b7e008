"""Programs whose loop's share of the CPU time is known, for the sampler.

Each does its own work in `work()`, straight-line code in which CPython runs no
signal's handler, and leaves all else to the loop.  In each second part of a
program `work()` does nothing: what such a part spends is the loop's.
"""

from __future__ import annotations

__all__ = ["PROGRAMS", "program"]

_PRELUDE = """
import asyncio, json, os, socket, ssl, sys, time

exec("def plain():\\n x = 1\\n" + " y = x * 3 - 1\\n x = y - x\\n" * LINES)

def nothing():
    pass

if CERTS:
    client = ssl._create_unverified_context()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(CERTS + "/localhost.pem", CERTS + "/localhost.key")

async def pair():
    one, other = socket.socketpair()
    if not CERTS:
        return await asyncio.gather(
            asyncio.open_connection(sock=one),
            asyncio.open_connection(sock=other),
        )
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    loop = asyncio.get_running_loop()
    end, (transport, _) = await asyncio.gather(
        asyncio.open_connection(sock=one, ssl=client, server_hostname="x"),
        loop.connect_accepted_socket(lambda: protocol, other, ssl=server),
    )
    return end, (
        reader, asyncio.StreamWriter(transport, protocol, reader, loop)
    )

async def measured():
    global work
    loop, began = 0.0, time.process_time()
    while time.process_time() - began < SECONDS:
        for work in (plain, nothing):
            before = time.process_time()
            await part(100)
        loop += 2 * (time.process_time() - before)
    with open("truth.json", "w") as file:
        json.dump(loop / (time.process_time() - began), file)
"""
_RUN = "\nasyncio.run(measured())\n"

_STREAMS = """
async def part(count):
    (_, writer), (reader, last) = await pair()
    for _ in range(count):
        BEFORE
        writer.write(b"x")
    await reader.readexactly(count)
    for one in (writer, last):
        one.close()
        await one.wait_closed()
"""
_TASK = """
async def part(count):
    for _ in range(count):
        work()
        await asyncio.sleep(0)
"""
_CALLBACK = """
async def part(count):
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    def callback(left):
        BEFORE
        if left:
            loop.CALL(callback, left - 1)
        else:
            done.set_result(None)
        AFTER
    callback(count - 1)
    await done
"""
_PROTOCOL = """
class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        BEFORE
        self.left[0] -= 1
        if self.left[0]:
            self.transport.write(data)
        else:
            self.done.set_result(None)
        AFTER

async def part(count):
    loop = asyncio.get_running_loop()
    ends = [
        await loop.create_connection(Echo, sock=end)
        for end in socket.socketpair()
    ]
    Echo.left, Echo.done = [count], loop.create_future()
    ends[0][0].write(b"x")
    await Echo.done
    for transport, _ in ends:
        transport.close()
"""
_THREAD = """
async def part(count):
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, lambda: [work() for _ in range(count)])
"""
_GENERATOR = """
def worked(count):
    for _ in range(count):
        work()
        yield
"""
_IN_C = """
def plain():
    sum(range(600))
"""
_START = """
end = time.process_time() + SECONDS
while time.process_time() < end:
    plain()
"""


def _filled(text: str, before: str = "pass", after: str = "pass") -> str:
    return text.replace("BEFORE", before).replace("AFTER", after)


_WRITING = _filled(_STREAMS, "work()")
_BY_CALL = _CALLBACK.replace("CALL(", "call_soon(")
_BY_TIMER = _CALLBACK.replace("CALL(", "call_later(0, ")
#: The statements of `work()`, and the rest of the program.
PROGRAMS = {
    "much work before a write": (1500, _WRITING),
    "little work before a write": (150, _WRITING),
    "a write over TLS": (800, _WRITING),
    "a start that is not counted": (300, _WRITING + _START),
    "hardly any work": (1, _filled(_BY_CALL)),
    "work before a callback's call": (300, _filled(_BY_CALL, "work()")),
    "work at a timer's end": (300, _filled(_BY_TIMER, after="work()")),
    "work at a protocol's end": (600, _filled(_PROTOCOL, after="work()")),
    "work before a protocol's write": (100, _filled(_PROTOCOL, "work()")),
    "work before a task's sleep": (1000, _TASK),
    "work in C": (1, _IN_C + _BY_CALL.replace("AFTER", "work()")),
    "work in a generator": (
        900,
        _GENERATOR + _STREAMS.replace("range(count)", "worked(count)"),
    ),
    "work in a thread": (3000, _THREAD),
}


def program(name: str, seconds: float, certs: str) -> str:
    """Return a program that works for so long, and then writes its share.

    certs is the folder of the certificates of the tests.
    """
    lines, text = PROGRAMS[name]
    names = {"LINES": lines, "SECONDS": seconds}
    names["CERTS"] = certs if "TLS" in name else ""
    values = "".join(f"{key} = {value!r}\n" for key, value in names.items())
    return values + _PRELUDE + _filled(text) + _RUN
