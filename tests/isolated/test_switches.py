"""A fast path turned off, or a system call refused, changes only the speed.

One program that goes down every fast path and waits in every way prints what
it sees.  That is the same whatever FASTLOOP_DISABLE names, in a sandbox that
refuses io_uring, pidfd or epoll_pwait2, and on asyncio.
"""

import sys

import pytest
from isolated_scripts import Script

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

async def pipes_and_signals():
    loop = asyncio.get_running_loop()
    process = await asyncio.create_subprocess_exec(
        "/bin/cat", stdin=-1, stdout=-1
    )
    out, _ = await process.communicate(b"through a pipe")
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    await loop.sock_sendall(near, b"by calls")
    called = await loop.sock_recv(far, 10)
    near.close()
    far.close()
    stopped = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, stopped.set_result, "signal")
    os.kill(os.getpid(), signal.SIGUSR1)
    heard = await stopped
    loop.remove_signal_handler(signal.SIGUSR1)
    return process.returncode, out, called, heard

async def timers():
    out = []
    for delay in (0.0001, 0.0007, 0.0015, 0.003):
        begin = time.monotonic()
        await asyncio.sleep(delay)
        out.append(time.monotonic() - begin >= delay)
    return out

async def main():
    for part in steps, io, tcp, udp, executor, pipes_and_signals, timers:
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
    kept = {}

    def output(kind, before="", switches=""):
        if (kind, before, switches) not in kept:
            script = Script(kind, tmp_path_factory.mktemp("switches"))
            done = script(before + PROGRAM, FASTLOOP_DISABLE=switches)
            kept[kind, before, switches] = done.stdout
        return kept[kind, before, switches]

    return output


def test_the_program_prints_what_it_prints_on_asyncio(said):
    assert said("fastloop") == said("asyncio")
    assert "server lost" in said("asyncio")


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_fast_path_turned_off_changes_no_output(said, switch):
    assert said("fastloop", switches=switch) == said("fastloop")


# -- system calls -------------------------------------------------------------

# io_uring_setup, _enter and _register, pidfd_open, epoll_pwait2: these have
# the same numbers on every architecture.
NUMBERS = [425, 426, 427, 434, 441]
FILTER = """
import ctypes, errno

def refuse(numbers, code):
    '''Let these system calls fail with an errno from now on.'''
    class Instruction(ctypes.Structure):
        _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8),
                    ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint16),
                    ("filter", ctypes.POINTER(Instruction))]

    load, equal, give = 0x20, 0x15, 0x06
    code_for = [(load, 0, 0, 0)]
    for number in numbers:
        code_for.append((equal, 0, 1, number))
        code_for.append((give, 0, 0, 0x00050000 | code))
    code_for.append((give, 0, 0, 0x7FFF0000))
    array = (Instruction * len(code_for))(*code_for)
    program = Program(len(code_for), array)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    if libc.prctl(22, 2, ctypes.byref(program), 0, 0) != 0:
        print("no seccomp here", errno.errorcode[ctypes.get_errno()])
        sys.exit(0)
    libc.syscall.restype = ctypes.c_long
    for number in numbers:
        assert libc.syscall(number, 0, 0, 0, 0, 0, 0) == -1
        assert ctypes.get_errno() == code
"""


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
@pytest.mark.parametrize("code", ["EPERM", "ENOSYS"])
def test_refused_system_calls_change_no_output(said, code):
    found = said("fastloop", FILTER + f"refuse({NUMBERS}, errno.{code})\n")
    if found.startswith("no seccomp"):
        pytest.skip(found)
    assert found == said("fastloop")


# -- names --------------------------------------------------------------------


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
        ("native_tls,", True),
        ("poll_skip, native_tls, libssl", True),
        ("no_native_tls,native_tls2,native", False),
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
