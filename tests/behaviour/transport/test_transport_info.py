"""What a stream transport says about itself, and private parts of it.

asyncio's transports are Python objects: tools wrap methods on an instance,
some programs change what is in _extra.
"""

import asyncio
import socket

import pytest
from net_helpers import Recorder, every_kind


@every_kind
async def test_repr_and_state(transport_pair, loop):
    c = await transport_pair()
    number = c.transport._sock_fd
    assert number == c.transport.get_extra_info("socket").fileno()
    assert number == c.transport._sock.fileno()
    assert c.transport._loop is loop
    assert c.transport._protocol is c.protocol
    assert c.transport._start_tls_compatible is True
    assert c.transport._sendfile_compatible.name == "TRY_NATIVE"
    assert (c.transport._closing, c.transport._conn_lost) == (False, 0)
    text = repr(c.transport)
    assert text.startswith("<") and text.endswith(">")
    assert f"fd={number}" in text
    assert "read=polling" in text
    assert "write=<idle, bufsize=0>" in text
    c.transport.pause_reading()
    assert "read=idle" in repr(c.transport)
    c.transport.resume_reading()
    c.shrink()
    c.fill()
    assert "write=<polling, bufsize=" in repr(c.transport)
    c.transport.close()
    assert "closing" in repr(c.transport)
    c.transport.abort()
    assert (c.transport._closing, c.transport._conn_lost) == (True, 1)
    await c.protocol.wait_lost()
    assert f"closed fd={number}" in repr(c.transport)
    assert c.transport._sock_fd == number
    assert c.transport._sock is c.transport._loop is None
    assert c.transport._protocol is None


@every_kind
async def test_the_socket_and_names_of_a_lost_connection(transport_pair, kind):
    """Its descriptor is open until connection_lost returns."""
    seen = []
    lost = Recorder(lost=lambda *_: seen.append(info("socket").fileno()))
    c = await transport_pair(lost)
    info, unix = c.transport.get_extra_info, kind == "unix"
    number = info("socket").fileno()
    names = [c.peer.sock.getpeername(), c.peer.sock.getsockname()]
    c.transport.abort() if unix else c.peer.reset()
    await c.protocol.wait_lost()
    await asyncio.sleep(0)
    assert seen == [number]
    assert [info("sockname"), info("peername")] == names
    sock = info("socket")
    assert sock.family == (socket.AF_UNIX if unix else socket.AF_INET)
    assert sock.type == socket.SOCK_STREAM
    assert sock is info("socket")
    assert sock.fileno() == -1
    assert "fd=-1" in repr(sock)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sock.shutdown(socket.SHUT_RD)


@every_kind
async def test_extra_info(transport_pair):
    """Its dict may be changed, and another one put in its place."""
    c = await transport_pair()
    info, extra = c.transport.get_extra_info, c.transport._extra
    assert info("nothing") is None
    assert info("nothing", 7) == 7
    assert info("x", default="d") == "d"
    assert info("sslcontext") is None
    assert {"socket", "sockname", "peername"} <= set(extra)
    assert extra["socket"] is info("socket")
    assert extra["sockname"] == info("socket").getsockname()
    extra["peername"] = "someone"
    extra["more"] = 5
    assert info("peername") == "someone"
    assert info("more") == 5
    c.transport._extra = {"peername": "another"}
    assert info("peername") == "another"
    assert info("more") is None


#: What an instance may be given in the place of its methods.
METHODS = """
    write writelines write_eof close abort is_closing get_extra_info
    pause_reading resume_reading set_protocol get_write_buffer_size
""".split()


@pytest.mark.parametrize("kind", ["unix"])
async def test_methods_replaced_on_the_instance(transport_pair):
    c = await transport_pair()
    for name in METHODS:
        seen = []
        setattr(c.transport, name, seen.append)
        assert name in vars(c.transport)
        getattr(c.transport, name)("called")
        delattr(c.transport, name)
        assert name not in vars(c.transport)
        assert getattr(c.transport, name) is not None
        c.transport.write(b"x")
        assert await c.peer.recv() == b"x"
        assert seen == ["called"]
