"""When what a callback writes leaves, and before what else.

asyncio sends each write at once, and so does fastloop on a quiet loop. On a
busy one it sends it when the callback returns, if that is an event, or else
when the iteration ends; and sooner if that takes milliseconds, or if a
client's callback is all that there is to do. A connection's corked writes come
before what the same callback sends by anything else of its loop, except by a
transport on a socket of the program's own class. They also leave before
anything that could miss them: another loop, a job, code that has the socket
itself.
"""

import asyncio
import concurrent.futures
import contextlib
import ctypes
import operator
import os
import random
import select
import socket
import struct
import sys
import threading
import time
import unittest.mock
from functools import partial
from pathlib import Path

import pytest
from datagram_helpers import endpoint, plain
from net_helpers import PY314, Recorder, iterations, open_on_pair, spin
from patience import PATIENCE
from write_helpers import (
    HOLDS,
    Peer,
    busy,
    end,
    given,
    in_a_short_one,
    in_callbacks,
    in_one_iteration,
    served,
    two_served,
)

#: A wait of two ticks, on any system.
LONG_S = 0.03


def corks(loop_kind):
    return HOLDS and loop_kind == "fastloop"


# --- what is corked, and for how long -----------------------------------


@contextlib.asynccontextmanager
async def client(family, address):
    """A client's transport, whose socket the loop makes, and its peer."""
    loop = asyncio.get_running_loop()
    with socket.socket(family) as listener:
        listener.bind(address)
        listener.listen()
        address = listener.getsockname()
        if family == socket.AF_INET:
            making = loop.create_connection(Recorder, *address)
        else:
            making = loop.create_unix_connection(Recorder, address)
        transport, _ = await making
        far, _ = listener.accept()
    with far:
        await busy()
        yield transport, Peer(far)
        await end(transport)


@contextlib.asynccontextmanager
async def shown(path):
    """The program has asked the socket for its descriptor."""
    async with served() as (transport, peer):
        transport.get_extra_info("socket").fileno()
        yield transport, peer


@contextlib.asynccontextmanager
async def queried(path):
    """The program has asked for names and options, as HTTP servers do."""
    async with served() as (transport, peer):
        sock = transport.get_extra_info("socket")
        assert (sock.family, sock.type) == (
            socket.AF_INET,
            socket.SOCK_STREAM,
        )
        assert sock.proto in (0, socket.IPPROTO_TCP)
        assert sock.getpeername() == peer.sock.getsockname()
        assert sock.getsockname() == peer.sock.getpeername()
        assert not sock.get_inheritable()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert repr(sock).startswith("<asyncio.TransportSocket fd=")
        yield transport, peer


@contextlib.asynccontextmanager
async def sent(path):
    """A file was sent, as by a server's answer before this one."""
    async with served() as (transport, peer):
        Path(path).write_bytes(b"file")
        with open(path, "rb") as file:
            await asyncio.get_running_loop().sendfile(transport, file)
        assert peer.receive(4) == b"file"
        await busy()
        yield transport, peer


TCP = (socket.AF_INET, ("127.0.0.1", 0))
WAYS = [  # how the transport came to be, and whether it corks
    ("server", lambda path: served(), True),
    ("tcp client", lambda path: client(*TCP), True),
    ("unix client", lambda path: client(socket.AF_UNIX, path), True),
    ("socket queried", queried, True),
    ("a file sent", sent, True),
    ("create_connection", given, False),
    ("create_unix_connection", given, False),
    ("connect_accepted_socket", given, False),
    ("descriptor shown", shown, False),
]


@pytest.mark.parametrize(("name", "make", "may_cork"), WAYS)
async def test_what_a_callback_writes_leaves_when_the_iteration_ends(
    loop_kind, name, make, may_cork, tmp_path
):
    how = {"method": name} if make is given else {"path": str(tmp_path / "s")}
    async with make(**how) as (transport, peer):
        seen = await in_a_short_one(
            lambda: (transport.write(b"1"), peer.look())[1],
            lambda: (transport.writelines([b"2", b"3"]), peer.look())[1],
            peer.look,
            peers=[peer],
        )
        if may_cork and corks(loop_kind):
            assert seen == [b"", b"", b""]
            assert peer.look() == b"123"
        else:
            assert seen == [b"1", b"23", b""]


EARLY = [  # writes by a client and by a server, and which leave immediately
    ("client client", [b"x", b""]),
    ("client server", [b"x", b""]),
    ("server client", [b"", b""]),
]


@pytest.mark.parametrize(("order", "corked"), EARLY)
async def test_a_clients_first_write_leaves_if_nothing_else_is_to_be_done(
    loop_kind, order, corked
):
    async with client(*TCP) as one, served() as other:
        ends = {"client": one, "server": other}

        def write():
            seen = []
            for name in order.split():
                transport, peer = ends[name]
                transport.write(b"x")
                seen.append(peer.look())
            return seen

        [seen] = await in_a_short_one(write, peers=[one[1], other[1]])
        assert seen == (corked if corks(loop_kind) else [b"x", b"x"])


@pytest.mark.parametrize(("busy_s", "corked"), [(0, False), (0.1, True)])
async def test_a_loop_that_has_waited_long_corks_nothing_until_it_is_busy(
    loop_kind, busy_s, corked
):
    async with served() as (transport, peer):
        for _ in range(2):  # the first tells that the next may be long
            await asyncio.sleep(LONG_S)
        await busy(busy_s)
        seen = await in_a_short_one(
            lambda: (transport.write(b"x"), peer.look())[1], peers=[peer]
        )
        assert seen == [b"" if corked and corks(loop_kind) else b"x"]


async def test_what_an_event_writes_leaves_when_it_returns(loop_kind):
    """A header and a body of data_received, before the next event."""

    class Answers(Recorder):
        def data_received(self, data):
            self.transport.write(b"header ")
            inside.append(mine.look())
            self.transport.write(b"body")

    class Looks(Recorder):
        def data_received(self, data):
            after.append(mine.look())

    inside, after = [], []
    async with served(Answers) as (_, mine), served(Looks) as (_, other):
        mine.sock.sendall(b"x")
        other.sock.sendall(b"x")
        await iterations()
        assert inside == [b"" if corks(loop_kind) else b"header "]
        assert after == [b"header body" if corks(loop_kind) else b"body"]


def compute(peer):
    end = time.monotonic() + PATIENCE
    while not (got := peer.look()) and time.monotonic() < end:
        pass
    return got


def block(peer):
    return peer.sock.recv(1 << 20)


def keep_the_gil(peer):
    """As a computation in C that does not release it."""

    class Wanted(ctypes.Structure):
        _fields_ = [
            ("fd", ctypes.c_int),
            ("events", ctypes.c_short),
            ("revents", ctypes.c_short),
        ]

    wanted = Wanted(peer.sock.fileno(), select.POLLIN)
    ctypes.PyDLL(None).poll(ctypes.byref(wanted), 1, int(PATIENCE * 1000))
    return peer.look()


STAYS = [compute, block, keep_the_gil]
stays = pytest.mark.parametrize("stay", STAYS)


@stays
async def test_writes_leave_while_their_callback_goes_on(stay):
    """A server that streams a model's answer; drain() does not suspend."""
    async with two_served() as (one, first, two, second):
        for number in range(6):
            one.writelines([b"%d" % number, b" "])
            two.write(bytearray(b"x"))
            two.write(b"y" * number)
            assert stay(first) == b"%d " % number
            assert second.receive(1 + number) == b"x" + b"y" * number


@stays
async def test_what_data_received_writes_leaves_while_it_goes_on(stay):
    class Answers(Recorder):
        def data_received(self, data):
            self.transport.write(b"answer")
            got.append(stay(peer))
            self.transport.write(b"rest")

    got = []
    async with served(Answers) as (_, peer):
        for _ in range(3):
            peer.sock.sendall(b"x")
            await spin(lambda: got)
            assert got.pop() + peer.receive(4) == b"answerrest"


async def test_what_a_callback_wrote_leaves_while_a_later_one_goes_on():
    """A long iteration makes no answer wait for its end."""
    async with served() as (transport, peer):
        seen = await in_one_iteration(
            lambda: transport.write(b"a"), partial(compute, peer)
        )
        assert seen[1] == b"a"


@pytest.mark.parametrize(("size", "count"), [(1, 100), (60_000, 4)])
async def test_what_the_kernel_refuses_of_them_follows_in_order(size, count):
    """The second connection's byte shows that the first was tried."""
    async with two_served() as (one, first, two, second):
        buffer = one.get_extra_info("socket").setsockopt
        buffer(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        data = random.Random(size).randbytes(count * size)
        for part in range(0, len(data), size):
            one.write(data[part : part + size])
        two.write(b"x")
        assert block(second) == b"x"
        one.write(b"end")
        loop = asyncio.get_running_loop()
        got = await loop.run_in_executor(
            None, first.receive, len(data) + len(b"end")
        )
        assert got == data + b"end"


@pytest.mark.parametrize("end", ["abort", "close"])
async def test_the_end_of_a_connection_leaves_out_what_was_sent(end):
    async with two_served() as (one, first, two, second):
        one.write(b"once")
        two.write(b"x")
        assert block(second) == b"x"
        getattr(one, end)()
        await iterations()
        assert first.receive(100) == b"once"


def switches():
    """How often each thread of ours has waited."""
    threads = Path("/proc/self/task").iterdir()
    texts = [(thread / "status").read_text() for thread in threads]
    return [
        line
        for text in texts
        if text.startswith("Name:\tfastloop")
        for line in text.splitlines()
        if line.startswith("voluntary")
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="has no such folder")
async def test_no_thread_works_once_all_has_left():
    """However long the callback goes on: a few looks find that out."""
    async with served() as (transport, peer):
        transport.write(b"all")
        assert block(peer) == b"all"
        seen = []
        for _ in range(10):
            seen.append(switches())
            time.sleep(0.05)
        assert any(map(operator.eq, seen, seen[1:]))


async def test_a_reset_that_such_a_write_meets_is_lost_to_nobody():
    lost = []
    async with (
        served(partial(Recorder, lost=lambda _, exc: lost.append(exc))) as end,
        served() as (two, second),
    ):
        one, first = end
        linger = struct.pack("ii", 1, 0)
        first.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        first.sock.close()
        one.write(b"x")
        two.write(b"x")
        assert block(second) == b"x"
        await spin(lambda: lost)
        assert type(lost[0]) is ConnectionResetError


async def test_a_burst_leaves_while_another_thread_writes(
    in_thread, loop_kind
):
    """A flush of many connections is made without the GIL."""
    async with contextlib.AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(served()) for _ in range(20)]

        def write():
            for transport, _ in ends:
                transport.write(b"a")

        def write_too():
            while not done:
                for transport, _ in ends:
                    transport.write(b"b")
                time.sleep(0)

        done = []
        thread = in_thread(write_too) if corks(loop_kind) else None
        for _ in range(200):
            await in_callbacks(write)
        done.append(True)
        if thread:
            thread.join()
        await iterations()
        for transport, peer in ends:
            transport.write_eof()
            await iterations()
            got = peer.receive(1 << 20)
            assert got.count(b"a") == 200
            assert got.count(b"a") + got.count(b"b") == len(got)


@pytest.mark.parametrize("way", ["close", "write_eof", "abort"])
async def test_the_end_of_a_connection_sends_what_waits(way):
    async with two_served() as (one, first, two, second):
        await in_one_iteration(
            lambda: one.write(b"a"),
            lambda: two.write(b"b"),
            lambda: getattr(two, way)(),
            lambda: None,
        )
        assert first.receive(1) + second.receive(1) == b"ab"


# --- order ---------------------------------------------------------------


@pytest.mark.skipif(
    not hasattr(select, "epoll"), reason="tells the order of the bytes"
)
@pytest.mark.parametrize("order", ["aba", "bab", "ab", "ba"])
async def test_connections_are_sent_in_the_order_of_their_first_writes(order):
    async with two_served() as (one, first, two, second):
        ends = {"a": (one, first), "b": (two, second)}
        with contextlib.closing(select.epoll()) as ready:
            for peer in (first, second):
                ready.register(peer.sock, select.EPOLLIN)
            await in_one_iteration(
                *(lambda end=end: ends[end][0].write(b"x") for end in order)
            )
            await asyncio.sleep(0)
            found = [fd for fd, _ in ready.poll(PATIENCE)]
        assert found == [ends[end][1].sock.fileno() for end in order[:2]]
        for end in "ab":
            assert ends[end][1].look() == b"x" * order.count(end)


@contextlib.asynccontextmanager
async def sending(loop, kind):
    near, far = socket.socketpair()
    with kind(fileno=near.detach()) as sock, far:
        sock.setblocking(False)
        yield lambda: loop.sock_sendall(sock, b"3")


@contextlib.asynccontextmanager
async def sending_a_datagram(loop, kind):
    with kind(socket.AF_INET, socket.SOCK_DGRAM) as sock, plain() as far:
        sock.setblocking(False)
        yield lambda: loop.sock_sendto(sock, b"3", far.getsockname())


@contextlib.asynccontextmanager
async def connecting(loop, kind, family=socket.AF_INET, host="127.0.0.1"):
    """Also where asyncio's method connects it, as it does to 127.1."""
    with socket.socket(family) as listener, kind(family) as near:
        if family == socket.AF_UNIX:
            listener.bind("\0" + host)
            address = listener.getsockname()
        else:
            listener.bind(("::1" if ":" in host else "127.0.0.1", 0))
            address = (host, listener.getsockname()[1])
        listener.listen()
        near.setblocking(False)
        yield lambda: loop.sock_connect(near, address)


@contextlib.asynccontextmanager
async def closing_a_server(loop, kind):
    sock = kind()
    sock.bind(("127.0.0.1", 0))
    server = await loop.create_server(asyncio.Protocol, sock=sock)

    async def close():
        server.close()
        await server.wait_closed()

    yield close


@pytest.mark.parametrize(
    ("method", "doing"),
    [
        ("send", sending),
        ("sendto", sending_a_datagram),
        ("connect", connecting),
        ("connect", partial(connecting, host="127.1")),
        ("connect", partial(connecting, family=socket.AF_INET6, host="::1")),
        ("connect", partial(connecting, family=socket.AF_UNIX, host="a")),
        ("close", closing_a_server),
    ],
)
async def test_calls_of_a_socket_follow_earlier_writes(loop, method, doing):
    """The socket's method looks whether a peer has the writes."""
    seen = []

    def look(sock, *args):
        if not seen:
            seen.append(peer.receive(7))
        return getattr(super(kind, sock), method)(*args)

    kind = type("Looking", (socket.socket,), {method: look})
    async with served() as (transport, peer), doing(loop, kind) as do:
        transport.write(b"one ")
        transport.write(b"two")
        await do()
        assert seen == [b"one two"]


@pytest.mark.parametrize("host", ["", "127.0.0.1", "localhost"])
async def test_datagrams_follow_earlier_writes(loop, host):
    """By a plain socket, or by a transport to an address or a host's name."""
    with plain() as far, plain() as near:
        near.setblocking(False)
        port = far.getsockname()[1]
        async with endpoint() as p, served() as (transport, peer):
            transport.write(b"1")
            transport.write(b"2")
            if host:
                p.transport.sendto(b"3", (host, port))
            else:
                await loop.sock_sendto(near, b"3", ("127.0.0.1", port))
            assert far.recv(10) == b"3"
            assert peer.look() == b"12"


async def test_a_pipe_follows_earlier_writes(loop):
    near, far = socket.socketpair()
    pipe, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, near)
    async with served() as (transport, peer):
        transport.write(b"1")
        pipe.write(b"2")
        assert peer.look() == b"1"
    pipe.close()
    far.close()


@pytest.mark.usefixtures("child_watcher")
async def test_a_process_starts_after_earlier_writes():
    """It may need them.  It begins with a look at its folder's name."""
    seen = []

    class Folder:
        def __fspath__(self):
            seen.append(peer.receive(6))
            return "/"

    async with served() as (transport, peer):
        transport.write(b"before")
        child = await asyncio.create_subprocess_exec("true", cwd=Folder())
        assert await child.wait() == 0
        assert seen == [b"before"]


# asyncio leaves the refused socket to the GC.
@pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)
async def test_refusing_a_connection_follows_earlier_writes(loop):
    """Its peer may look for them as soon as it gets the end of file."""
    seen = []

    def refuse():
        connection.write(b"1")
        connection.write(b"2")
        raise ZeroDivisionError

    loop.set_exception_handler(lambda loop, context: seen.append(peer.look()))
    async with served() as (connection, peer):
        server = await loop.create_server(refuse, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            await spin(lambda: seen)
        server.close()
        await server.wait_closed()
    assert seen == [b"12"]


# --- the descriptor in other hands --------------------------------------


def through_a_patch(transport):
    original = asyncio.BaseTransport.get_extra_info
    with unittest.mock.patch.object(
        asyncio.BaseTransport,
        "get_extra_info",
        lambda self, name, default=None: original(self, name, default),
    ):
        return transport.get_extra_info("socket")


FINDS = {
    "fileno": lambda t: t.get_extra_info("socket").fileno(),
    "dup": lambda t: t.get_extra_info("socket").dup().detach(),
    "_sock": lambda t: t._sock.fileno(),
    "_extra": lambda t: t._extra["socket"].fileno(),
    "_sock_fd": lambda t: t._sock_fd,
    "patched": lambda t: through_a_patch(t).fileno(),
}


@pytest.mark.parametrize("how", FINDS)
async def test_sends_through_the_descriptor_follow_earlier_writes(how):
    """In the callback that finds it, and in others."""

    def write():
        transport.write(b"one ")
        transport.write(b"two ")
        if not taken:
            found = FINDS[how](transport)
            taken.append(found if how == "dup" else os.dup(found))
        os.write(taken[0], b"three ")

    taken = []
    async with served() as (transport, peer):
        await in_callbacks(write, write, write, write)
        os.close(taken[0])
        assert peer.receive(56) == b"one two three " * 4
        transport.write(b"the ")
        transport.write(b"end")
        transport.get_extra_info("socket").shutdown(socket.SHUT_WR)
        assert peer.receive(100) == b"the end"


# --- other threads, loops and the end of the run ------------------------


async def call(function):
    return function()


def in_another_loop(read, make):
    other = make()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    try:
        call_there = asyncio.run_coroutine_threadsafe(call(read), other)
        return call_there.result(PATIENCE)
    finally:
        other.call_soon_threadsafe(other.stop)
        thread.join()
        other.close()


def in_a_loop_within(read, make):
    """As nest_asyncio runs one."""
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    try:
        with contextlib.closing(make()) as other:
            return other.run_until_complete(call(read))
    finally:
        asyncio._set_running_loop(loop)


def in_a_job(read, make):
    got = []
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        loop = asyncio.get_running_loop()
        loop.run_in_executor(executor, lambda: got.append(read()))
    return got[0]


within = pytest.param(
    in_a_loop_within,
    marks=pytest.mark.skipif(PY314, reason="a thread runs one task then"),
)


@pytest.mark.parametrize("ask", [in_another_loop, within, in_a_job])
async def test_what_a_callback_waits_for_sees_its_writes(loop_factory, ask):
    async with served() as (transport, peer):
        got = []

        def work():
            transport.write(b"one ")
            transport.write(b"two")
            got.append(ask(lambda: peer.receive(7), loop_factory))

        await in_callbacks(work, work)
        assert got == [b"one two"] * 2


def test_writes_from_outside_wait_for_no_callback(loop):
    """asyncio's documents forbid them, but its transports send them."""
    opening, _, far = open_on_pair(loop, "stream", Recorder)
    transport, _ = loop.run_until_complete(opening)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with far:
        far.settimeout(PATIENCE)
        peer = Peer(far)
        try:
            for _ in range(50):
                transport.write(b"head ")
                transport.writelines([b"body ", b"more "])
                transport.write(b"end")
                assert peer.receive(18) == b"head body more end"
            size = 4_000_000  # more than is sent at once
            transport.write(bytes(size))
            assert peer.receive(size) == bytes(size)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
        loop.run_until_complete(end(transport))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_corked_writes_are_sent_when_the_run_ends(loop, error):
    """An exception of the callback that wrote them does not delay them."""
    peers = []
    ended = loop.create_future()

    async def serve():
        async with served() as (transport, peer):

            def write():
                transport.write(b"the ")
                transport.write(b"last")
                raise error

            peers.append(peer)
            loop.call_soon(write)
            await ended

    serving = loop.create_task(serve())
    with pytest.raises(error):
        loop.run_until_complete(serving)
    assert peers[0].receive(8) == b"the last"
    ended.set_result(None)
    loop.run_until_complete(serving)
