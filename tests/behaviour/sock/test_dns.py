"""getaddrinfo, for names and for literal addresses."""

import inspect
import socket
import threading

import pytest

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


async def outcome(call, *args, **options):
    """Return a result, or what tells an exception apart."""
    try:
        result = call(*args, **options)
        return await result if inspect.isawaitable(result) else result
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
        expected = await outcome(socket.getaddrinfo, host, port, **quick)
        got = await outcome(loop.getaddrinfo, host, port, **quick)
        assert got == expected, (host, port, quick)
        # Enumerations are equal to numbers, and look otherwise.
        assert repr(got) == repr(expected), (host, port, quick)


async def test_a_patched_socket_getaddrinfo_is_used(loop, monkeypatch):
    seen = []
    answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.9", 80))]

    def patched(*args, **kwargs):
        seen.append(threading.current_thread().name)
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", patched)

    assert await loop.getaddrinfo("some.name", 80) == answer
    assert await loop.getaddrinfo("127.0.0.1", 80) == answer
    assert await loop.getaddrinfo("::1", 80, type=1) == answer
    assert len(seen) == 3
    assert all(name.startswith("asyncio_") for name in seen)


async def test_a_literal_address_takes_no_thread(loop, loop_kind):
    if loop_kind == "asyncio":
        pytest.skip("asyncio's getaddrinfo takes one for every host")

    def refuse(*args):
        raise AssertionError("an executor job")

    loop.run_in_executor = refuse
    await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    await loop.getaddrinfo("::1", "80")
    del loop.run_in_executor
