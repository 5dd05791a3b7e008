"""Every system call and allocation of the core fails once, in turn.

fault_program.py does the work in a process of its own, under shim.c.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
SANITIZED = "sanitizer" in (sysconfig.get_config_var("CONFIG_ARGS") or "")

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux", reason="the shim is made for Linux"
    ),
    pytest.mark.skipif(
        SANITIZED, reason="a sanitizer wraps the same functions"
    ),
]

CALLS = [
    ("calloc", "ENOMEM"),
    ("malloc", "ENOMEM"),
    ("aligned_alloc", "ENOMEM"),
    ("mmap", "ENOMEM"),
    ("realloc", "ENOMEM"),
    ("epoll_ctl", "ENOSPC"),
    ("epoll_ctl_mod", "ENOMEM"),
    ("fcntl", "EBADF"),
    ("ioctl", "EINVAL"),
    ("accept4", "EMFILE"),
    ("accept4", "ECONNABORTED"),
    ("getsockname", "ENOTSOCK"),
    ("setsockopt", "EINVAL"),
    ("recv", "ECONNRESET"),
    ("recv", "EAGAIN"),
    ("recv", "EINTR"),
    ("send", "EPIPE"),
    ("send", "EAGAIN"),
    ("send", "ENOBUFS"),
    ("sendmsg", "ECONNRESET"),
    ("sendmsg", "EAGAIN"),
    ("recvfrom", "ECONNRESET"),
    ("recvfrom", "EAGAIN"),
    ("recvmmsg", "ECONNREFUSED"),
    ("recvmmsg", "EAGAIN"),
    ("recvmmsg", "EINTR"),
    ("sendto", "EPERM"),
    ("sendto", "EAGAIN"),
    ("read", "EINTR"),
    ("timerfd_settime", "EINVAL"),
]
#: What is called when a loop is made; none is kept, so each makes its own.
MAKING = [
    ("calloc", "ENOMEM"),
    ("epoll_create1", "EMFILE"),
    ("epoll_ctl", "ENOMEM"),
    ("timerfd_create", "EMFILE"),
    ("pipe2", "EMFILE"),
    ("eventfd", "EMFILE"),
]


@pytest.fixture
def sweep(shim):
    """Return a function that runs the program and returns its total."""
    import fastloop

    home = str(Path(fastloop.__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")

    def sweep(*words, **env):
        done = subprocess.run(
            [
                sys.executable,
                "-X",
                "faulthandler",
                str(HERE / "fault_program.py"),
                str(shim),
                *words,
            ],
            env={
                **os.environ,
                "LD_PRELOAD": str(shim),
                "PYTHONPATH": home + (os.pathsep + path if path else ""),
                **env,
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-500:]
        word, total = done.stdout.split()[-2:]
        assert word == "total"
        return int(total)

    return sweep


@pytest.mark.parametrize(("name", "code"), CALLS)
def test_one_call_fails(sweep, name, code):
    assert sweep(name, code) > 0


@pytest.mark.parametrize(("name", "code"), MAKING)
def test_making_a_loop_fails(sweep, name, code):
    assert sweep(name, code) > 0


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("epoll_ctl", "ENOMEM"),
        ("epoll_ctl_mod", "ENOMEM"),
        ("send", "EAGAIN"),
        ("sendto", "EAGAIN"),
        ("recvmmsg", "ENOMEM"),
    ],
)
def test_all_further_calls_fail(sweep, name, code):
    """Not one failure but every call from the Nth to the 30th after it."""
    assert sweep(name, code, "30") > 0


@pytest.mark.parametrize("size", ["1", "3", "1000"])
@pytest.mark.parametrize("again", ["0", "2", "3"])
def test_short_reads_and_writes(sweep, size, again):
    """Every read and write moves a few bytes; each Nth would block."""
    assert sweep("cut", size, again) > 0


@pytest.mark.parametrize("microseconds", ["2000", "6000"])
def test_away_between_the_timer_and_the_poll(sweep, microseconds):
    """libuv 1.44 runs due timers first, and would then wait for ever."""
    assert sweep("delay", microseconds) == 3


def test_slow_polls_are_left_out_as_others(sweep):
    """A sandbox or a tracer makes a system call long."""
    assert sweep("slow", "100") < 300


@pytest.mark.parametrize("milliseconds", ["4", "50"])
def test_ticks_that_come_late(sweep, milliseconds):
    """A virtual machine that waits for its processor misses ticks.  A sleep is
    a wait, a look, and then at most one look more for the tick.
    """
    assert sweep("coarse", milliseconds) in (2, 3)
