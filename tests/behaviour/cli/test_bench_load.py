"""`bench --http`: how load is put on a server, and what that used."""

import asyncio

import pytest
from patience import PATIENCE

from fastloop.cli import client

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"content-length:0\r\n\r\n"


async def load(answer, rate):
    """Load a server that has this answer; return what the client found.

    Also the connections it took.
    """
    taken = []

    async def serve(reader, writer):
        taken.append(asyncio.current_task())
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await answer(writer)
        except (EOFError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        found = await client.load(port, "/", 1, 0.1, rate)
    finally:
        server.close()
    await asyncio.gather(*taken)
    return found, len(taken)


@pytest.mark.parametrize(
    ("text", "connections"),
    [
        (EMPTY, 1),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 1),
        (
            OK + b"Transfer-Encoding:gzip, chunked\r\n\r\n"
            b"2\r\nok\r\n0\r\n\r\n",
            1,
        ),
        (OK + b"Connection:close\r\ncontent-length: 0\r\n\r\n", 11),
    ],
)
def test_an_answer_is_read_to_its_end(text, connections):
    async def answer(writer):
        writer.write(text)

    found, taken = asyncio.run(load(answer, 100.0))
    assert (found["requests"], taken) == (10, connections)
    assert found["p50"] <= found["p99"]


def test_a_stall_counts_for_all_that_were_due_meanwhile():
    stalls = iter([0.2])

    async def answer(writer):
        await asyncio.sleep(next(stalls, 0))
        writer.write(EMPTY)

    found, _ = asyncio.run(load(answer, 100.0))
    assert found["p50"] >= 100


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", ValueError),
        (b"HTTP/1.1 200", EOFError),
        (b"", TimeoutError),
    ],
)
@pytest.mark.parametrize("rate", [0.0, 100.0])
def test_a_request_that_fails_ends_the_load(monkeypatch, text, error, rate):
    monkeypatch.setattr(client, "_GRACE", PATIENCE if text else 0.1)

    async def answer(writer):
        writer.write(text)
        if b"200" in text:
            writer.close()

    with pytest.raises(error):
        asyncio.run(load(answer, rate))


def test_percentiles_are_of_the_nearest_rank():
    found = client.percentiles([number / 1e3 for number in range(1, 1001)])
    assert {key: round(one) for key, one in found.items()} == {
        "p50": 500,
        "p99": 990,
    }
