"""call_soon: many callbacks in one iteration, and one callback in each.

An iteration that runs one callback also shows what a poll costs, so the chain
is measured again with 250 connections that say nothing.
"""

from __future__ import annotations

import asyncio
import socket

from harness.case import Figure, Run, loop_case

ORDER = 10
BATCH = 1_000
ITERATIONS = 20
CHAIN = 10_000

Loop = asyncio.AbstractEventLoop


def nothing() -> None:
    pass


@loop_case("call_soon", "call_soon, batch")
def batch(loop: Loop, run: Run) -> Figure:
    def schedule() -> None:
        call_soon = loop.call_soon
        for _ in range(BATCH):
            call_soon(nothing)

    return run.sample_iterations(loop, schedule, BATCH, ITERATIONS)


def run_chain(loop: Loop, run: Run) -> Figure:
    call_soon = loop.call_soon
    left = 0

    def link() -> None:
        nonlocal left
        left -= 1
        if left:
            call_soon(link)
        else:
            loop.stop()

    def chain() -> None:
        nonlocal left
        left = CHAIN
        loop.call_soon(link)
        loop.run_forever()

    return run.sample(chain, CHAIN)


chain = loop_case("chain", "call_soon chain")(run_chain)


@loop_case("chain_idle250", "call_soon chain, 250 idle connections")
def chain_with_idle(loop: Loop, run: Run) -> Figure:
    accepted = asyncio.Semaphore(0)

    class Idle(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.release()

    async def connect() -> tuple[asyncio.Server, list[socket.socket]]:
        server = await loop.create_server(Idle, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        clients = []
        for _ in range(250):
            clients.append(socket.create_connection(address))
            await accepted.acquire()
        return server, clients

    server, clients = loop.run_until_complete(connect())
    figure = run_chain(loop, run)
    for client in clients:
        client.close()
    server.close()
    # Lets the loop see that the connections are gone.
    loop.run_until_complete(asyncio.sleep(0.01))
    return figure


CASES = (batch, chain, chain_with_idle)
