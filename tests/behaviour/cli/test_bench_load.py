"""`bench --http`: how load is put on a server, and what that used."""

import asyncio

import pytest

from fastloop.cli import client

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"content-length:0\r\n\r\n"


async def load(answer, rate, seconds=0.1):
    """Load a server that has this answer; return what the client found.

    Also the connections it took.
    """
    taken = []

    async def serve(reader, writer):
        taken.append(asyncio.current_task())
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await answer(writer)
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loader = client._Load(port, "/", rate, spins=False)
    found = await loader.run(1, seconds)
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
    assert (found["requests"], found["errors"], found["late"]) == (10, 0, 0)
    assert taken == connections
    assert found["p50"] <= found["p90"] <= found["p99"]
    assert "p999" not in found


def test_what_has_no_answer_is_late_and_no_error(monkeypatch):
    monkeypatch.setattr(client, "_GRACE", 0.1)

    async def answer(writer):
        pass

    found, _ = asyncio.run(load(answer, 100.0))
    assert (found["requests"], found["errors"], found["late"]) == (10, 0, 10)


def test_a_connection_that_cannot_be_opened_again_is_an_error(monkeypatch):
    opened = []

    async def connect(self):
        if opened:
            raise ConnectionRefusedError
        opened.append(self)
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def answer(writer):
        writer.close()

    monkeypatch.setattr(client._Load, "_connect", connect)
    found, _ = asyncio.run(load(answer, 0.0))
    assert (found["requests"], found["errors"]) == (0, 2)


def test_percentiles_are_of_the_nearest_rank():
    loader = client._Load(0, "/", 0.0, spins=False)
    loader._latencies = [number / 1e3 for number in range(1, 1001)]
    found = {key: round(one) for key, one in loader._percentiles().items()}
    assert found == {"p50": 500, "p90": 900, "p99": 990, "p999": 999}
