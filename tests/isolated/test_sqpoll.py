"""No SQPOLL thread behind the user's back (libuv 1.45 to 1.48).

Those releases start a kernel polling thread with every loop unless the
environment says UV_USE_IO_URING=0.  A loop of ours must make none, and leave
the environment as it was; a user that asks for io_uring gets it.
"""

import sys

import pytest

import fastloop

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="io_uring is Linux's"
)

PROGRAM = """
import pathlib, subprocess

def threads():
    names = pathlib.Path("/proc/self/task").glob("*/comm")
    return [n for n in (p.read_text().strip() for p in names)
            if n.startswith("iou-")]

async def main():
    server = await asyncio.start_server(lambda r, w: w.close(),
                                        "127.0.0.1", 0)
    r, w = await asyncio.open_connection(*server.sockets[0].getsockname())
    await r.read()
    w.close()
    server.close()
    await asyncio.sleep(0.001)
    return threads()

before = os.environ.get("UV_USE_IO_URING")
seen = []
for _ in range(3):
    loop = new_loop()
    seen.append(loop.run_until_complete(main()))
    loop.close()
# Of the C environment, which os.environ is a copy of.
child = subprocess.run(["env"], capture_output=True, text=True).stdout
after = [line.partition("=")[2] for line in child.splitlines()
         if line.startswith("UV_USE_IO_URING=")]
assert after == ([] if before is None else [before]), after
polling = [name for names in seen for name in names if "sqp" in name]
print("polling" if polling else "none", seen)
"""
SQPOLL_RELEASES = range(45, 49)


def minor() -> int:
    return int(fastloop.libuv_version().split(".")[1])


def test_no_polling_thread(fast_script, monkeypatch):
    monkeypatch.delenv("UV_USE_IO_URING", raising=False)
    done = fast_script(PROGRAM)
    assert done.stdout.startswith("none"), done.stdout


def test_a_user_who_asks_for_io_uring_gets_it(fast_script, monkeypatch):
    """Which also shows that the test above would see the thread."""
    if minor() not in SQPOLL_RELEASES:
        pytest.skip("only libuv 1.45 to 1.48 make SQPOLL threads")
    monkeypatch.setenv("UV_USE_IO_URING", "1")
    done = fast_script(PROGRAM)
    if done.stdout.endswith("none [[], [], []]\n"):
        pytest.skip("this kernel gives a process no io_uring")
    assert done.stdout.startswith("polling"), done.stdout
