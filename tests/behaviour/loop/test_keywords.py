"""Every parameter that asyncio's methods take by name, ours take by name."""

from __future__ import annotations

import inspect
from asyncio import events, selector_events, unix_events

import pytest
from net_helpers import Recorder, every_kind

import fastloop
from fastloop import _core

PAIRS = [
    (fastloop.Loop, unix_events._UnixSelectorEventLoop),
    (_core.StreamTransport, selector_events._SelectorSocketTransport),
    (_core.Handle, events.Handle),
    (_core.TimerHandle, events.TimerHandle),
]
OPEN = inspect.Parameter.VAR_KEYWORD
UNNAMED = inspect.Parameter.POSITIONAL_ONLY


def methods():
    for ours, theirs in PAIRS:
        for name in dir(theirs):
            method = getattr(theirs, name)
            if name.startswith("__") or not inspect.isfunction(method):
                continue
            mine = getattr(ours, name, method)
            if mine is not method:
                yield pytest.param(mine, method, id=f"{ours.__name__}.{name}")


@pytest.mark.parametrize(("ours", "theirs"), list(methods()))
def test_parameters_have_asyncios_names(ours, theirs):
    mine = list(inspect.signature(ours).parameters.values())[1:]
    named = {p.name: p for p in mine if p.kind is not UNNAMED}
    takes_any = any(p.kind is OPEN for p in mine)
    for wanted in list(inspect.signature(theirs).parameters.values())[1:]:
        if wanted.kind is UNNAMED or takes_any:
            continue
        assert wanted.name in named
        optional = wanted.default is not wanted.empty
        mine_optional = named[wanted.name].default is not wanted.empty
        assert optional == mine_optional


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


@every_kind
async def test_transports_refuse_other_names(transport_pair):
    c = await transport_pair()
    for call, names in [
        (c.transport.write, {"bytes": b""}),
        (c.transport.write, {}),
        (c.transport.writelines, {"data": []}),
        (c.transport.set_protocol, {"proto": None}),
        (c.transport._force_close, {}),
    ]:
        with pytest.raises(TypeError):
            call(**names)
    with pytest.raises(TypeError):
        c.transport.write(b"", data=b"")
    with pytest.raises(TypeError):
        c.transport.write(b"", b"")
