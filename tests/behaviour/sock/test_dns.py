"""getaddrinfo and getnameinfo, for names and for literal addresses."""

import asyncio
import socket
import threading

import pytest
from patience import PATIENCE

LITERALS = [
    ("127.0.0.1", 80),
    ("127.0.0.1", "80"),
    ("127.0.0.1", b"80"),
    ("127.0.0.1", 0),
    ("127.0.0.1", None),
    ("0.0.0.0", 65535),
    ("255.255.255.255", 1),
    (b"127.0.0.1", 80),
    ("::1", 80),
    ("::", 0),
    ("fe80::1%lo", 80),
    ("fe80::1%1", 80),
    ("::ffff:1.2.3.4", 80),
    ("2001:db8::7", 443),
    ("127.1", 80),
    ("0x7f.1", 80),
    ("2130706433", 80),
    ("010.0.0.1", 80),
    ("1.2.3", 80),
    ("", 80),
    (None, 80),
    ("127.0.0.1", "http"),
    ("127.0.0.1", 70000),
    ("127.0.0.1", -1),
    ("127.0.0.1 ", 80),
    ("1.2.3.4.5", 80),
    ("::1::", 80),
    ("256.1.1.1", 80),
    ("127.0.0.1", "nonsense-service"),
    ("127.0.0.1", ""),
    ("127.0.0.1\0", 80),
    ("[::1]", 80),
    ("::1%", 80),
    ("fe80::1%nonsense", 80),
    ("127.0.0.1", 1.5),
    (5, 80),
]
HINTS = [
    {},
    {"type": socket.SOCK_STREAM},
    {"type": socket.SOCK_DGRAM},
    {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_TCP},
    {"proto": socket.IPPROTO_UDP},
    {"family": socket.AF_INET, "type": socket.SOCK_STREAM},
    {"family": socket.AF_INET6, "type": socket.SOCK_STREAM},
    {"type": socket.SOCK_STREAM, "flags": socket.AI_PASSIVE},
    {"type": socket.SOCK_STREAM, "flags": socket.AI_NUMERICHOST},
    {
        "type": socket.SOCK_STREAM,
        "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    },
    {"type": socket.SOCK_STREAM, "flags": socket.AI_CANONNAME},
    {
        "family": socket.AF_INET6,
        "type": socket.SOCK_STREAM,
        "flags": socket.AI_V4MAPPED,
    },
    {"type": socket.SOCK_RAW},
    {"type": socket.SOCK_STREAM, "proto": socket.IPPROTO_UDP},
    {"family": 12345},
    {"flags": None},
    {"flags": "1"},
]


def outcome(call):
    """Return a result, or what tells an exception apart."""
    try:
        return call()
    except OSError as exc:
        return type(exc), exc.errno, str(exc)
    except Exception as exc:
        return type(exc), str(exc)


@pytest.mark.parametrize("hints", HINTS, ids=range(len(HINTS)))
async def test_literals_answer_as_the_system_does(loop, hints):
    for host, port in LITERALS:
        # Both may ask the name server about what is no literal.
        quick = {**hints}
        if host in ("1.2.3.4.5", "256.1.1.1", "127.0.0.1 ", "[::1]"):
            flags = quick.get("flags", 0)
            if isinstance(flags, int):
                quick["flags"] = flags | socket.AI_NUMERICHOST
        expected = outcome(
            lambda h=host, p=port, q=quick: socket.getaddrinfo(h, p, **q)
        )
        try:
            got = await loop.getaddrinfo(host, port, **quick)
        except OSError as exc:
            got = (type(exc), exc.errno, str(exc))
        except Exception as exc:
            got = (type(exc), str(exc))
        assert got == expected, (host, port, quick)


def test_localhost(loop, run):
    async def main():
        return await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)

    expected = socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert run(main()) == expected


def test_enumerations_in_the_answer(loop, run):
    async def main():
        return await loop.getaddrinfo("127.0.0.1", 80)

    for family, kind, proto, name, address in run(main()):
        assert isinstance(family, socket.AddressFamily)
        assert isinstance(kind, socket.SocketKind)
        assert isinstance(proto, int)
        assert name == ""
        assert address == ("127.0.0.1", 80)


class LikeAny(str):
    """Is equal to any other string, and so useless as a key."""

    __slots__ = ()

    def __eq__(self, other):
        return isinstance(other, str)

    def __hash__(self):
        return hash("80")


def test_a_name_that_does_not_exist(loop, run, monkeypatch):
    def fails(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fails)

    async def main():
        with pytest.raises(socket.gaierror) as caught:
            await loop.getaddrinfo("no.such.name", 80)
        assert caught.value.errno == socket.EAI_NONAME

    run(main())


def test_a_patched_socket_getaddrinfo_is_used(loop, run, monkeypatch):
    seen = []
    answer = [
        (
            socket.AF_INET,
            socket.SOCK_STREAM,
            6,
            "",
            ("127.0.0.9", 80),
        )
    ]

    def patched(*args, **kwargs):
        seen.append((args, kwargs, threading.get_ident()))
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", patched)

    async def main():
        assert await loop.getaddrinfo("some.name", 80) == answer
        assert await loop.getaddrinfo("127.0.0.1", 80) == answer
        assert await loop.getaddrinfo("::1", 80, type=1) == answer

    run(main())
    assert len(seen) == 3
    assert seen[0][2] != threading.get_ident()


def test_a_literal_address_takes_no_thread(loop, loop_kind, run):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's getaddrinfo takes one for every host")

    def refuse(*args):
        raise AssertionError("an executor job")

    async def main():
        await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        await loop.getaddrinfo("::1", "80")

    run_in_executor = loop.run_in_executor
    loop.run_in_executor = refuse
    try:
        run(main())
    finally:
        loop.run_in_executor = run_in_executor


def test_names_are_looked_up_in_the_default_executor(loop, run, monkeypatch):
    names = []

    def patched(*args, **kwargs):
        names.append(threading.current_thread().name)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", patched)

    async def main():
        await loop.getaddrinfo("some.name", 80)

    run(main())
    assert names[0].startswith("asyncio_")


def test_keywords_only(loop):
    with pytest.raises(TypeError):
        coro = loop.getaddrinfo("127.0.0.1", 80, socket.AF_INET)
        coro.close()


def test_many_at_once(loop, run):
    async def main():
        answers = await asyncio.gather(
            *[
                loop.getaddrinfo(f"127.0.0.{n}", n, type=socket.SOCK_STREAM)
                for n in range(1, 100)
            ]
        )
        return [a[0][4] for a in answers]

    assert run(main()) == [(f"127.0.0.{n}", n) for n in range(1, 100)]


async def test_getnameinfo(loop):
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV

    for address in (
        ("127.0.0.1", 80),
        ("::1", 80, 0, 0),
        ("::1", 443),
        ("fe80::1", 80, 0, 1),
    ):
        got = await loop.getnameinfo(sockaddr=address, flags=flags)
        assert got == socket.getnameinfo(address, flags)


def test_getnameinfo_of_a_service(loop, run):
    async def main():
        return await loop.getnameinfo(("127.0.0.1", 80))

    assert run(main()) == socket.getnameinfo(("127.0.0.1", 80), 0)


@pytest.mark.parametrize(
    "bad", [("not an address", 80), (), ("127.0.0.1",), 7, None], ids=repr
)
async def test_getnameinfo_of_bad_addresses(loop, bad):
    flags = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
    expected = outcome(lambda: socket.getnameinfo(bad, flags))

    with pytest.raises(expected[0]):
        await loop.getnameinfo(bad, flags)


def test_getnameinfo_uses_a_patched_function(loop, run, monkeypatch):
    monkeypatch.setattr(
        socket, "getnameinfo", lambda *args: ("patched", "http")
    )

    async def main():
        return await loop.getnameinfo(("127.0.0.1", 80))

    assert run(main()) == ("patched", "http")


def test_lookup_cancelled(loop, run, monkeypatch):
    gate = threading.Event()

    def patched(*args, **kwargs):
        gate.wait(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", patched)

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.getaddrinfo("some.name", 1), 0.005)
        gate.set()

    run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_closed_loop_resolves_nothing(loop, host):
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.getaddrinfo(host, 1).send(None)
