"""call_soon: many callbacks in one turn, and one callback in each turn.

A turn that runs one callback also shows what a poll costs, so the chain is
measured again with 250 connections that say nothing.
"""

from __future__ import annotations

import asyncio
import socket

from harness.case import Figure, LoopFactory, Run, simple_case

ORDER = 10
BATCH = 1_000
TURNS = 20
CHAIN = 10_000


def nothing(*args: object) -> None:
    pass


def batch(new_loop: LoopFactory, run: Run) -> Figure:
    loop = new_loop()

    def turn() -> None:
        call_soon = loop.call_soon
        for _ in range(BATCH):
            call_soon(nothing)

    figure = run.sample_turns(loop, turn, BATCH, TURNS)
    loop.close()
    return figure


def batch_with_arguments(new_loop: LoopFactory, run: Run) -> Figure:
    loop = new_loop()

    def turn() -> None:
        call_soon = loop.call_soon
        for _ in range(BATCH):
            call_soon(nothing, 1, 2, 3)

    figure = run.sample_turns(loop, turn, BATCH, TURNS)
    loop.close()
    return figure


def run_chain(loop: asyncio.AbstractEventLoop, run: Run) -> Figure:
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


def chain(new_loop: LoopFactory, run: Run) -> Figure:
    loop = new_loop()
    figure = run_chain(loop, run)
    loop.close()
    return figure


def chain_with_idle(new_loop: LoopFactory, run: Run) -> Figure:
    loop = new_loop()
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
    loop.close()
    return figure


CASES = (
    simple_case("call_soon", "call_soon, batch", batch, serial=True),
    simple_case(
        "call_soon_3args",
        "call_soon, batch, 3 arguments",
        batch_with_arguments,
        serial=True,
    ),
    simple_case("chain", "call_soon chain", chain, serial=True),
    simple_case(
        "chain_idle250",
        "call_soon chain, 250 idle connections",
        chain_with_idle,
        serial=True,
    ),
)
