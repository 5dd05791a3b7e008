"""What the servers of the benchmarks share: how they start and how they end.

A server prints one line of JSON, {"port": P, "pid": PID}, when it listens,
and serves until it gets SIGTERM.  If the process that would send one ends,
the kernel ends the server: a watch on a pipe would be one more descriptor in
the loop that is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

sys.path.append(str(Path(__file__).resolve().parents[1]))

from harness import ROOT, first_client, loops, parent  # noqa: E402


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows the options every server has."""
    new = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    new.add_argument("--loop", choices=loops.LOOPS, required=True)
    new.add_argument("--cpu", type=int, help="the one CPU to run on")
    new.add_argument("--tls", action="store_true")
    new.add_argument(
        "--unvisited",
        action="store_true",
        help="serve no client that leaves before the first of the race",
    )
    return new


def announce(port: int) -> None:
    """Say on stdout that clients may come."""
    print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)


def port_of(server: asyncio.Server) -> int:
    """Return the port on which `server` listens."""
    return server.sockets[0].getsockname()[1]


def tls_context(args: argparse.Namespace) -> ssl.SSLContext | None:
    """Return the context of a server, or None without --tls."""
    if not args.tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    place = ROOT / "tests" / "certs"  # the tests' certificate
    context.load_cert_chain(place / "localhost.pem", place / "localhost.key")
    return context


async def forever() -> None:
    """Wait for the end of the server."""
    await asyncio.get_running_loop().create_future()


def fail(error: Exception) -> NoReturn:
    """End the server by an error: its loop cannot do this."""
    print(type(error).__name__, file=sys.stderr, flush=True)
    os._exit(1)


def serve(
    args: argparse.Namespace,
    main: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Run `main()` on the loop that `args` names, until SIGTERM."""
    parent.set_up_process()
    if args.cpu is not None:
        os.sched_setaffinity(0, {args.cpu})
    factory = loops.loop_factory(args.loop)
    if not args.unvisited:
        first_client.have_one(factory)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
