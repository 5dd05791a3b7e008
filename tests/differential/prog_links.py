"""How the connections of a program come about: nets, sides, TLS."""

from __future__ import annotations

import asyncio
import functools
import os
import pathlib
import queue
import socket
import ssl
import stat
import threading
import traceback
import tty
from collections.abc import Callable
from typing import Any

from prog_ends import Link, make_protocol
from prog_peer import PATIENCE, PipeWire, TlsWire, Wire

CERTS = pathlib.Path(__file__).parents[1] / "certs"
VERSIONS = {
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


class OwnSocket(socket.socket):
    """A class of the program's, whose calls are the system's."""


class CallingSocket(socket.socket):
    """A class of the program's, whose calls a loop has to make."""

    def send(self, *args: Any) -> int:
        return super().send(*args)

    def recv(self, *args: Any) -> bytes:
        return super().recv(*args)


OWN_CLASSES = {True: OwnSocket, "calls": CallingSocket}


@functools.cache
def context(server: bool, version: str, own: bool = False) -> ssl.SSLContext:
    """Return a context for one version of TLS."""
    if server:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(CERTS / "localhost.pem", CERTS / "localhost.key")
    else:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.load_verify_locations(CERTS / "ca.pem")
    made.minimum_version = made.maximum_version = VERSIONS[version]
    if own:
        made.sslobject_class = Hooked
    return made


class Hooked(ssl.SSLObject):
    """An SSLObject whose methods do what a program says, once."""

    todo: list[Callable[[], None]] = []  # noqa: RUF012

    def write(self, data: Any) -> int:
        while self.todo:
            self.todo.pop()()
        return super().write(data)

    def read(self, *args: Any) -> Any:
        while self.todo:
            self.todo.pop()()
        return super().read(*args)


class Helper:
    """A thread that does one job after the other."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.last = threading.Event()
        self.last.set()
        threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        while True:
            job, done = self.jobs.get()
            try:
                job()
            except BaseException:  # the next job is another program's
                traceback.print_exc()
            done.set()

    def submit(self, job: Callable[[], Any]) -> threading.Event:
        self.last = done = threading.Event()
        self.jobs.put((job, done))
        return done


HELPERS: list[Helper] = []


def helper(index: int) -> Helper:
    """Return a thread that outlives programs, by its number."""
    while len(HELPERS) <= index:
        HELPERS.append(Helper())
    return HELPERS[index]


def renew_helpers() -> None:
    """Leave threads behind that wait for what a program never did."""
    HELPERS[:] = [one if one.last.is_set() else Helper() for one in HELPERS]


def shrink(sock: Any, conf: dict[str, Any], end: str = "") -> None:
    """Give a socket the buffers that a program wants for one end.

    Before it is connected: what comes into a buffer that was made smaller
    than the peer's window is dropped, and sent again by a timer.
    """
    for name, option in (("snd", socket.SO_SNDBUF), ("rcv", socket.SO_RCVBUF)):
        if end + name in conf:
            sock.setsockopt(socket.SOL_SOCKET, option, conf[end + name])


def own_socket(sock: socket.socket, conf: dict[str, Any]) -> socket.socket:
    """Return a socket of the class that a program wants."""
    if not conf.get("own"):
        return sock
    made = OWN_CLASSES[conf["own"]]
    return made(sock.family, sock.type, sock.proto, sock.detach())


def listen(net: str) -> tuple[socket.socket, Any]:
    """Return a listening socket and its address."""
    if net == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind("")  # to a name of the kernel's, which is no file
    elif net == "tcp6":
        # asyncio looks at the protocol before it sets TCP_NODELAY.
        sock = socket.socket(
            socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP
        )
        sock.bind(("::1", 0))
    else:
        sock = socket.socket(proto=socket.IPPROTO_TCP)
        sock.bind(("127.0.0.1", 0))
    sock.listen(8)
    return sock, sock.getsockname()


def secure(link: Link) -> None:
    """Put TLS on end B, and begin its handshake."""
    tls = link.conf["tls"]
    server = link.side == "client"
    wire = link.peer.wire
    assert wire is not None
    link.peer.wire = TlsWire(wire, context(server, tls["version"]), server)
    link.world.pending.append(
        helper(link.index).submit(
            functools.partial(link.peer.do_shake, tls.get("early", 0))
        )
    )


def tls_words(link: Link) -> dict[str, Any]:
    """Return the arguments that have end A speak TLS."""
    tls = link.conf.get("tls")
    if tls is None:
        return {}
    server = link.side == "server"
    words: dict[str, Any] = {
        "ssl": context(server, tls["version"], tls.get("own", False))
    }
    if not server:
        words["server_hostname"] = "localhost"
    return words


async def open_pair(link: Link) -> None:
    """Connect by a pair of sockets that were made before."""
    ours, theirs = socket.socketpair()
    shrink(ours, link.conf)
    shrink(theirs, link.conf, "b_")
    ours = own_socket(ours, link.conf)
    ours.setblocking(False)
    link.peer.wire = Wire(theirs)
    await attach(link, ours)


async def attach(link: Link, ours: socket.socket) -> None:
    """Give end A a connected socket, in the way its side has it."""
    link.number = ours.fileno()
    if link.kind in ("sock", "reader"):
        link.sock = ours
        link.made = 1
        return
    if "tls" in link.conf:
        secure(link)
    loop = link.world.loop
    factory = functools.partial(make_protocol, link, link.kind)
    if link.side == "server":
        await loop.connect_accepted_socket(factory, ours, **tls_words(link))
    else:
        await loop.create_connection(factory, sock=ours, **tls_words(link))


async def open_net(link: Link) -> None:
    """Connect by an address: one side listens."""
    listening, address = listen(link.net)
    made_by_a = link.kind in ("sock", "reader") or link.conf.get("own")
    accepts = link.side == "server" and not made_by_a
    shrink(listening, link.conf, "" if accepts else "b_")
    try:
        if made_by_a:
            ours = socket.socket(listening.family, proto=listening.proto)
            shrink(ours, link.conf)
            listening.setblocking(False)
            loop = link.world.loop
            accepting = loop.create_task(loop.sock_accept(listening))
            await asyncio.sleep(0)
            ours.connect(address)
            link.peer.wire = Wire((await accepting)[0])
            ours = own_socket(ours, link.conf)
            ours.setblocking(False)
            await attach(link, ours)
        elif accepts:
            await serve(link, listening, address)
        else:
            await connect(link, listening, address)
    finally:
        listening.close()


async def serve(link: Link, listening: socket.socket, address: Any) -> None:
    """Accept end B."""
    loop = link.world.loop
    factory = functools.partial(make_protocol, link, link.kind)
    server = await loop.create_server(
        factory, sock=listening, **tls_words(link)
    )
    theirs = socket.socket(listening.family)
    shrink(theirs, link.conf, "b_")
    theirs.connect(address)
    link.peer.wire = Wire(theirs)
    if "tls" in link.conf:
        secure(link)
    until = loop.time() + PATIENCE
    while not link.made and loop.time() < until:
        await asyncio.sleep(0 if "tls" not in link.conf else 0.001)
    server.close()


async def connect(link: Link, listening: socket.socket, address: Any) -> None:
    """Have end A connect to end B."""
    loop = link.world.loop
    factory = functools.partial(make_protocol, link, link.kind)

    def accept() -> None:
        link.peer.wire = Wire(listening.accept()[0])
        if "tls" in link.conf:
            secure(link)

    if "tls" in link.conf:
        # The handshake needs end B while end A waits for it.
        link.world.pending.append(helper(8 + link.index).submit(accept))
    if link.net == "unix":
        await loop.create_unix_connection(factory, address, **tls_words(link))
    else:
        await loop.create_connection(factory, *address[:2], **tls_words(link))
    if "tls" not in link.conf:
        accept()


async def open_pipes(link: Link) -> None:
    """Connect by a pipe in each direction."""
    loop = link.world.loop
    read_a, write_b = os.pipe()
    read_b, write_a = os.pipe()
    link.peer.wire = PipeWire(read_b, write_b)
    await loop.connect_write_pipe(
        functools.partial(make_protocol, link, "plain"),
        os.fdopen(write_a, "wb", 0),
    )
    reading = functools.partial(ReadPipe, link)
    pipe, _ = await loop.connect_read_pipe(reading, os.fdopen(read_a, "rb", 0))
    link.read_pipe = pipe


async def open_terminal(link: Link) -> None:
    """Connect by a terminal: end B has the master."""
    loop = link.world.loop
    master, slave = os.openpty()
    tty.setraw(slave)
    link.peer.wire = PipeWire(master, master)
    await loop.connect_write_pipe(
        functools.partial(make_protocol, link, "plain"),
        os.fdopen(os.dup(slave), "wb", 0),
    )
    reading = functools.partial(ReadPipe, link)
    pipe, _ = await loop.connect_read_pipe(reading, os.fdopen(slave, "rb", 0))
    link.read_pipe = pipe


class ReadPipe(asyncio.Protocol):
    """Tells a link what its pipe brings."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def data_received(self, data: bytes) -> None:
        self.link.take(data)
        self.link.happens("data")

    def eof_received(self) -> None:
        self.link.on_eof()


OPENERS: dict[str, Callable[[Link], Any]] = {
    "pair": open_pair,
    "tcp": open_net,
    "tcp6": open_net,
    "unix": open_net,
    "pipe": open_pipes,
    "pty": open_terminal,
}


async def open_link(link: Link) -> None:
    """Connect both ends; TLS, if wanted, is up when this returns."""
    before = set(os.listdir("/proc/self/fd"))
    await OPENERS[link.net](link)
    for done in link.world.pending:
        while not done.is_set():
            await asyncio.sleep(0.0005)
    link.world.pending.clear()
    if link.number < 0:
        link.number = find_number(link, before)
    if link.number >= 0 and "snd" in link.conf:
        # Not every way to connect takes a socket that was made before.
        with socket.socket(fileno=os.dup(link.number)) as ours:
            shrink(ours, {"snd": link.conf["snd"]})


def find_number(link: Link, before: set[str]) -> int:
    """Return the descriptor of a connection that the loop has made, or -1.

    Found without asking the transport, which notes each call.
    """
    new = map(int, set(os.listdir("/proc/self/fd")) - before)
    here = {number for number in new if is_socket(number)}
    if link.peer.wire is not None:
        here.discard(link.peer.wire.fileno())
    return here.pop() if len(here) == 1 else -1


def is_socket(number: int) -> bool:
    """Whether a descriptor is one: a loop may open others, for its timers."""
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:  # that of the directory
        return False
