"""What a loop does where the environment or the system turns something off.

What a fast path that FASTLOOP_DISABLE names changes, the programs of
tests/differential see.
"""

import platform
import shutil
import subprocess
import sys

import pytest
from builds import ON_LIBUV, SANITIZED
from isolated_scripts import REFUSE

SWITCHES = """raw_steps poll_skip cork native_executor datagram_batch
native_tls libssl persistent_fds native_readers""".split()
# recvmmsg_time64, io_uring_setup, _enter and _register, pidfd_open,
# epoll_pwait2: these have the same numbers on every architecture.
NUMBERS = [417, 425, 426, 427, 434, 441]
#: recvmmsg
NUMBERS += {"x86_64": [299], "aarch64": [243]}.get(platform.machine(), [])
#: It waits in every way.
PROGRAM = """
async def main():
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    seen = loop.create_future()
    loop.add_reader(near, lambda: seen.set_result(near.recv(1)))
    for _ in range(100):
        await asyncio.sleep(0)
    far.send(b"x")
    assert await seen == b"x"
    loop.remove_reader(near)
    await loop.sock_sendall(near, b"by calls")
    assert await loop.sock_recv(far, 10) == b"by calls"
    near.close()
    far.close()
    process = await asyncio.create_subprocess_exec(
        "/bin/cat", stdin=-1, stdout=-1
    )
    assert (await process.communicate(b"piped"))[0] == b"piped"
    assert process.returncode == 0
    heard = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, heard.set_result, "signal")
    os.kill(os.getpid(), signal.SIGUSR1)
    assert await heard == "signal"
    loop.remove_signal_handler(signal.SIGUSR1)
    got = loop.create_future()
    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data, peer):
            got.set_result(data)
    receiver, _ = await loop.create_datagram_endpoint(
        Receiver, ("127.0.0.1", 0)
    )
    sender, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol,
        remote_addr=receiver.get_extra_info("sockname"),
    )
    sender.sendto(b"datagram")
    assert await got == b"datagram"
    receiver.close()
    sender.close()
    assert await asyncio.to_thread(pow, 2, 5) == 32
    for delay in (0.0001, 0.0007, 0.0015, 0.003):
        begin = time.monotonic()
        await asyncio.sleep(delay)
        assert time.monotonic() - begin >= delay

for _ in range(2):
    on_new_loop(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
@pytest.mark.parametrize("code", ["EPERM", "ENOSYS"])
def test_a_loop_works_in_a_sandbox_that_refuses_calls(script, code):
    call = f"refuse({NUMBERS}, errno.{code})\n"
    said = script(REFUSE + call + PROGRAM + "print('done')\n").stdout
    if said.startswith("no seccomp"):
        pytest.skip(said)
    assert said == "done\n"


#: Replacements of C functions, and what then holds.
PRELOADED = {
    # As libfaketime's with a rate: 20 seconds are 2 ms.  It knows no
    # epoll_pwait2, by which timers wait otherwise.
    "a faster epoll_wait": (
        """
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <sys/epoll.h>

        int epoll_wait(int fd, struct epoll_event *events, int count, int ms)
        {
            int (*wait)(int, struct epoll_event *, int, int) =
                (int (*)(int, struct epoll_event *, int, int))
                    dlsym(RTLD_NEXT, "epoll_wait");
            return wait(fd, events, count, ms < 10000 ? ms : ms / 10000);
        }
        """,
        """
        loop = new_loop()
        loop.call_later(20, print)
        began = time.monotonic()
        loop._run_once()
        assert time.monotonic() - began < 10
        loop.close()
        """,
    ),
    # As gVisor's: its coarse clock is none.  Polls are skipped all the same.
    "no coarse clock": (
        """
        #include <time.h>

        int clock_getres(clockid_t clock, struct timespec *tick)
        {
            *tick = (struct timespec){0, 1};
            return 0;
        }
        """,
        """
        async def main():
            loop = asyncio.get_running_loop()
            loop.enable_metrics()
            for _ in range(2000):
                await asyncio.sleep(0)
            found = loop.metrics()
            is_slow = hasattr(sys, "gettotalrefcount")
            assert found.polls < found.iterations or is_slow
            began = loop.time()
            await asyncio.sleep(0.01)
            assert 0.01 <= loop.time() - began

        fastloop.run(main())
        """,
    ),
}


@pytest.mark.skipif(
    ON_LIBUV or SANITIZED, reason="another poller, or a library before ours"
)
@pytest.mark.parametrize("what", PRELOADED)
def test_beside_a_preloaded_library(fast_script, tmp_path, what):
    if shutil.which("cc") is None:
        pytest.skip("there is no compiler: this is a system for users")
    text, program = PRELOADED[what]
    source, library = tmp_path / "preloaded.c", tmp_path / "preloaded.so"
    source.write_text(text)
    command = ["cc", "-shared", "-fPIC", source, "-o", library, "-ldl"]
    subprocess.run(command, check=True)
    fast_script(program, LD_PRELOAD=str(library))


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
