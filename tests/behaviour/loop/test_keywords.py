"""What asyncio's methods take by name, ours take by name, and nothing else.

Names of parameters, as inspect sees them, are differential/test_surface.py's.
"""

import asyncio

import pytest
from net_helpers import Recorder, every_kind


def test_a_loop_takes_arguments_by_name(loop, pair, iterate):
    seen = []
    loop.call_soon(callback=lambda: seen.append(1))
    loop.call_later(delay=0, callback=lambda: seen.append(2))
    loop.call_at(when=0, callback=lambda: seen.append(3))
    loop.call_soon_threadsafe(callback=lambda: seen.append(4))
    iterate(2)
    assert sorted(seen) == [1, 2, 3, 4]
    loop.add_reader(fd=pair[0], callback=loop.stop)
    loop.add_writer(pair[0], callback=loop.stop)
    assert loop.remove_reader(fd=pair[0]) is True
    assert loop.remove_writer(fd=pair[0]) is True
    assert loop.run_until_complete(future=asyncio.sleep(0, 3)) == 3


@every_kind
async def test_transports_take_arguments_by_name(transport_pair):
    c = await transport_pair()
    transport = c.transport
    transport.write(data=b"abc")
    transport.writelines(list_of_data=[b"de", b"f"])
    assert await c.peer.recv_exactly(6) == b"abcdef"
    other = Recorder()
    transport.set_protocol(protocol=other)
    assert transport.get_protocol() is other
    transport.set_protocol(protocol=c.protocol)
    transport.set_write_buffer_limits(low=1, high=2)
    assert transport.get_write_buffer_limits() == (1, 2)
    assert transport.get_extra_info(name="nobody", default=7) == 7
    transport._force_close(exc=None)
    assert await c.protocol.wait_lost() is None


#: What comes before the callback.
BEFORE = {
    "call_soon": (),
    "call_soon_threadsafe": (),
    "call_later": (0,),
    "call_at": (0,),
}
OF_A_LOOP = ("run_until_complete", "remove_reader", "add_reader")
REFUSED = [  # the method, arguments by position and by name
    *((name, before, {}) for name, before in BEFORE.items()),
    *((name, (*args, print), {"end": ""}) for name, args in BEFORE.items()),
    *((name, (), {}) for name in OF_A_LOOP),
    *((name, (), {"other": 1}) for name in OF_A_LOOP),
    *((name, (1,), {"fd": 2, "future": 2}) for name in OF_A_LOOP),
    ("write", (), {"bytes": b""}),
    ("write", (), {}),
    ("write", (b"",), {"data": b""}),
    ("write", (b"", b""), {}),
    ("writelines", (), {"data": []}),
    ("set_protocol", (), {"proto": None}),
    ("_force_close", (), {}),
]


@pytest.mark.parametrize("kind", ["unix"])
async def test_missing_doubled_and_other_names_are_refused(
    loop, transport_pair
):
    c = await transport_pair()
    for name, args, words in REFUSED:
        owner = loop if hasattr(loop, name) else c.transport
        with pytest.raises(TypeError):
            getattr(owner, name)(*args, **words)
