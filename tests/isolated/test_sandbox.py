"""System calls that a sandbox refuses: io_uring, pidfd, epoll_pwait2.

A seccomp filter is installed in a fresh process before anything of the loop
is made; a program that uses every way of waiting must give the same results.
"""

import platform
import sys

import pytest

NUMBERS = {
    # name: (x86-64, the numbers every newer architecture shares)
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "pidfd_open": (434, 434),
    "epoll_pwait2": (441, 441),
}
GROUPS = {
    "io_uring": ["io_uring_setup", "io_uring_enter", "io_uring_register"],
    "pidfd": ["pidfd_open"],
    "epoll_pwait2": ["epoll_pwait2"],
    "all": list(NUMBERS),
}
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
PROGRAM = """
async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()

async def main():
    loop = asyncio.get_running_loop()
    for delay in (0.0001, 0.0004, 0.002):
        begin = time.monotonic()
        await asyncio.sleep(delay)
        assert time.monotonic() - begin >= delay
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    pairs = [await asyncio.open_connection(*address) for _ in range(5)]
    for number, (reader, writer) in enumerate(pairs):
        writer.write(b"hello %d" % number)
        assert await reader.readexactly(7) == b"hello %d" % number
    for _, writer in pairs:
        writer.close()
        await writer.wait_closed()
    server.close()
    await server.wait_closed()
    process = await asyncio.create_subprocess_exec(
        "/bin/cat", stdin=-1, stdout=-1
    )
    out, _ = await process.communicate(b"through a pipe")
    assert (process.returncode, out) == (0, b"through a pipe")
    assert await asyncio.to_thread(pow, 2, 10) == 1024
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    future = loop.create_future()
    loop.add_reader(left, lambda: future.done() or future.set_result(1))
    await loop.sock_sendall(right, b"x")
    await future
    loop.remove_reader(left)
    assert await loop.sock_recv(left, 10) == b"x"
    left.close()
    right.close()
    stopped = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, stopped.set_result, None)
    os.kill(os.getpid(), signal.SIGUSR1)
    await stopped
    loop.remove_signal_handler(signal.SIGUSR1)
    await asyncio.sleep(0.01)

for _ in range(2):
    loop = new_loop()
    loop.run_until_complete(main())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
print("all done")
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="seccomp is Linux's"
)


def numbers_of(group):
    column = 0 if platform.machine() in ("x86_64", "AMD64") else 1
    return [NUMBERS[name][column] for name in GROUPS[group]]


@pytest.mark.parametrize("code", ["EPERM", "ENOSYS", "EACCES"])
@pytest.mark.parametrize("group", GROUPS)
def test_refused(fast_script, group, code):
    done = fast_script(
        FILTER + f"refuse({numbers_of(group)}, errno.{code})\n" + PROGRAM
    )
    if done.stdout.startswith("no seccomp"):
        pytest.skip(done.stdout)
    assert done.stdout == "all done\n"


def test_the_program_itself(script):
    assert script(PROGRAM).stdout == "all done\n"
