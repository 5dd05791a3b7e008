"""uvicorn under load for long: no error, and memory that stays flat.

    python tests/interop/soak_uvicorn.py [--requests N] [--loop NAME]

The load comes from the benchmarks' C client, which ends with an error on any
answer but the expected and on silence.  It runs in slices, each with its
connections anew; after each the server collects its garbage and its resident
memory is read.  Memory may grow while caches fill; from a third of the
requests on it may not.  If it did, more are served: a leak goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
# After what is installed: the package as it was built in place.
sys.path.append(str(Path(__file__).parents[2]))

from harness import build
from interop_process import LOOPS, Process

SLICE_SECONDS = 1.5
GROWTH_KIB = 512
#: Slices after which memory that still grows is a leak.
PATIENCE = 16


def resident_kib(pid: int) -> int:
    """A process's resident memory in KiB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    raise ProcessLookupError(pid)


def load(port: int, pid: int, connections: int) -> int:
    """One slice of load, and a collection; returns the requests answered."""
    done = subprocess.run(
        [
            *(build.build("http_load"), "--port", str(port)),
            *("--server", str(pid), "--connections", str(connections)),
            *("--seconds", str(SLICE_SECONDS), "--warmup", "0.1"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"the client says: {done.stderr}"
    urllib.request.urlopen(f"http://127.0.0.1:{port}/collect").close()
    return json.loads(done.stdout)["answered"]


def growth(seen: list[tuple[int, int]]) -> int:
    """KiB by which memory grew after the first third of the requests."""
    third = seen[-1][0] / 3
    return seen[-1][1] - next(kib for count, kib in seen if count >= third)


def soak(
    requests: int, loop: str, connections: int = 64, say=print
) -> list[tuple[int, int]]:
    """Serve so many requests; returns (requests, KiB) after each slice.

    Raises AssertionError if a request fails, the server logs anything or
    does not end cleanly, or its memory grows.
    """
    options = ("--host", "127.0.0.1", "--port", "0", "--no-access-log")
    server = Process.python(
        *("-m", "uvicorn", "plain_asgi:app", "--loop", LOOPS[loop]),
        *("--http", "httptools", "--lifespan", "off", *options),
    )
    try:
        port = int(server.wait_for(r"http://127\.0\.0\.1:(\d+)")[1])
        pid = server.child.pid
        log = server.log
        total, seen = 0, []
        while (
            total < requests
            or len(seen) < 3
            or (growth(seen) > GROWTH_KIB and len(seen) < PATIENCE)
        ):
            total += load(port, pid, connections)
            seen.append((total, resident_kib(pid)))
            say(f"{total:>9} requests, {seen[-1][1]} KiB resident")
        assert server.log == log, f"the server says: {server.log}"
        assert server.stop() in (0, -15)
    finally:
        server.kill()
    grown = growth(seen)
    assert grown <= GROWTH_KIB, f"memory grew by {grown} KiB: {seen}"
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--loop", choices=LOOPS, default="fastloop")
    args = parser.parse_args()
    try:
        soak(args.requests, args.loop, args.connections)
    except AssertionError as exc:
        sys.exit(f"failed: {exc}")
    print("no error, flat memory")


if __name__ == "__main__":
    main()
