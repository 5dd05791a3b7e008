"""Every allocation of the interpreter's allocators fails once under TLS.

Two filters talk in memory in a process of their own, again and again, the
first, second, third ... allocation failing.  What comes out is MemoryError, a
connection that is ended, or success; never a byte that is wrong.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip(
    "_testcapi", reason="this interpreter is installed without _testcapi"
)
UNIT = Path(__file__).parent.parent / "unit"
PROGRAM = """
import faulthandler, logging, sys
sys.path.insert(0, {unit!r})
import _testcapi, fastloop
from tls_memory_link import Link, contexts

faulthandler.enable()
faulthandler.dump_traceback_later(50, exit=True)
logging.disable()
loop = fastloop.new_event_loop()
loop.set_exception_handler(lambda *args: None)
server, client = contexts()
DATA = b"data" * 10000

def opened():
    return Link(loop, server, client)

def begun():
    link = opened()
    link.begin()
    link.carry()
    return link

def written():
    link = begun()
    link.client.protocol.transport.write(DATA)
    return link

def open_link(link):
    opened()

def handshake(link):
    link.begin()
    link.carry()

def write(link):
    link.client.protocol.transport.write(DATA)

def writelines(link):
    link.client.protocol.transport.writelines([b"da", b"ta"] * 5 + [DATA])

def carry(link):
    link.carry()

def by_byte(link):
    sent = bytes(link.client.raw.sent[:40])
    for at in range(40):
        link.server.give(sent[at : at + 1])

def paused(link):
    link.server.protocol.transport.pause_reading()
    link.carry()

def shutdown(link):
    link.client.protocol.transport.close()
    link.carry()

def paused_writer():
    link = begun()
    link.client.tls.pause_writing()
    link.client.protocol.transport.write(DATA)
    return link

def resume(link):
    link.client.tls.resume_writing()

def lose(link):
    link.client.tls.connection_lost(None)

STEPS = {{
    "open_link": (lambda: None, open_link),
    "handshake": (opened, handshake),
    "write": (begun, write),
    "writelines": (begun, writelines),
    "carry": (written, carry),
    "by_byte": (written, by_byte),
    "paused": (written, paused),
    "shutdown": (begun, shutdown),
    "resume": (paused_writer, resume),
    "lose": (begun, lose),
}}
make, step = STEPS[sys.argv[1]]
failed = 0
for number in range(int(sys.argv[2])):
    link = make()
    _testcapi.set_nomemory(number, number + 1)
    try:
        step(link)
    except (MemoryError, SystemError):
        # CPython's frames may fail without an exception.
        failed += 1
    finally:
        _testcapi.remove_mem_hooks()
    if step is resume:
        waits = link.client.protocol.transport.get_write_buffer_size()
        assert waits or link.client.raw.sent or link.client.raw.calls
    if link is not None:
        whole = b"datadatadatadatadata" + DATA
        for end in (link.client, link.server):
            got = end.protocol.got
            assert whole.startswith(got), got[:20]
            transport = end.tls._app_transport
            if transport is not None:
                transport.abort()
            if end.tls._conn_lost == 0 or transport is not None:
                end.tls.connection_lost(None)
    loop.call_soon(loop.stop)
    loop.run_forever()
    link = None
loop.close()
print("failed", failed)
"""
STEPS = (
    "open_link handshake write writelines carry by_byte paused shutdown "
    "resume lose"
)


@pytest.mark.parametrize("disabled", ["", "libssl"])
@pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="CPython crashes on frames it could not allocate",
)
@pytest.mark.parametrize("step", STEPS.split())
def test_each_allocation_fails(step, disabled):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(unit=str(UNIT)), step, "60"],
        capture_output=True,
        text=True,
        env={**os.environ, "FASTLOOP_DISABLE": disabled},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("failed ")
