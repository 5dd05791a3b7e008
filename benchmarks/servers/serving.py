"""What the servers of the benchmarks share: how they start and how they end.

A server prints one line of JSON, {"port": P, "pid": PID}, when it listens,
and serves until it gets SIGTERM.  If the process that would send one ends,
the kernel ends the server: a watch on a pipe would be one more descriptor in
the loop that is measured.

With --workers several processes or threads serve one socket, each with a loop
of its own, as those of gunicorn and of `uvicorn --workers` do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Coroutine
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

sys.path.append(str(Path(__file__).resolve().parents[1]))

from harness import first_client, loops, parent  # noqa: E402

Main = Callable[[Namespace], Coroutine[Any, Any, None]]


def parser(description: str | None) -> argparse.ArgumentParser:
    new = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    new.add_argument("--loop", choices=loops.LOOPS, required=True)
    new.add_argument("--cpu", type=int, help="the one CPU to run on")
    new.add_argument("--workers", type=int, help="how many, on any CPU")
    new.add_argument("--threads", action="store_true", help="as workers")
    new.set_defaults(sock=None)  # what workers share
    new.add_argument("--tls", action="store_true")
    new.add_argument(
        "--unvisited",
        action="store_true",
        help="serve no client that leaves before the first of the race",
    )
    return new


def announce(port: int) -> None:
    """Say on stdout that clients may come."""
    # One write: two threads may say so at once.
    sys.stdout.write(json.dumps({"port": port, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()


def port_of(server: asyncio.Server) -> int:
    return server.sockets[0].getsockname()[1]


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def fail(error: Exception) -> NoReturn:
    """End the server by an error: its loop cannot do this."""
    print(type(error).__name__, file=sys.stderr, flush=True)
    os._exit(1)


def run(args: Namespace, main: Main) -> None:
    factory = loops.loop_factory(args.loop)
    if not args.unvisited:
        first_client.have_one(factory)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(args))


def share(args: Namespace, main: Main) -> None:
    """Have workers serve one socket; announce it once all of them do."""
    args.sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    # Connections inherit it; asyncio sets it on those of its own sockets.
    args.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stdout = os.dup(1)
    said, say = os.pipe()
    os.dup2(say, 1)

    def work(own: Namespace) -> NoReturn:
        try:
            run(own, main)
        except Exception:
            traceback.print_exc()
        os._exit(1)

    def look(*_: Any) -> None:
        # A worker that ends is an error.  The race stops one that must wait.
        if os.waitpid(-1, os.WNOHANG)[0]:
            os._exit(1)

    signal.signal(signal.SIGCHLD, look)
    for _ in range(args.workers):
        if args.threads:
            own = Namespace(**{**vars(args), "sock": args.sock.dup()})
            Thread(target=work, args=(own,), daemon=True).start()
        elif os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            parent.set_up_process()
            work(args)
    with open(said) as lines:
        for _ in range(args.workers):
            lines.readline()
    os.dup2(stdout, 1)
    announce(args.sock.getsockname()[1])
    while True:
        signal.pause()


def serve(args: Namespace, main: Main) -> None:
    parent.set_up_process()
    if args.workers:
        share(args, main)
        return
    if args.cpu is not None:
        os.sched_setaffinity(0, {args.cpu})
    run(args, main)
