"""`bench --http`: how load is put on a server, and what that used."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("psutil", reason="psutil is not installed")

from fastloop.cli import Refused, client
from fastloop.cli.http import _cpu_of
from fastloop.cli.load import Load, _read_h2load, _read_oha, _read_wrk
from fastloop.cli.processes import Processes

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
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + EMPTY, 1),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", 1),
        (
            OK + b"Transfer-Encoding:gzip, chunked\r\n\r\n"
            b"2;a=b\r\nok\r\n0\r\nx: y\r\nz: y\r\n\r\n",
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


def test_children_that_have_ended_count_as_their_server_does():
    before = _cpu_of(os.getpid())
    spend = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", spend], check=True)
    assert _cpu_of(os.getpid()) - before >= 0.4


# -- what the tools write -----------------------------------------------------

WRK = """Running 2m test @ http://127.0.0.1:8080/
  1 threads and 8 connections
  6667 requests in 1.10m, 735.71KB read
{}Requests/sec:    101.01
Transfer/sec:     11.15KB
"""
H2LOAD = """finished in 2.01s, 1775.00 req/s, 169.90KB/s
requests: 3550 total, 3551 started, 3550 done, {} errored, 0 timeout
status codes: {}
traffic: 339.80KB (347951) total, 232.32KB (237895) headers
"""
#: As oha's schema.json has it, without what is not read.
OHA = {
    "summary": {
        "successRate": 1.0,
        "total": 2.0017,
        "slowest": 0.01,
        "requestsPerSec": 501.6,
        "totalData": 2000,
        "sizePerRequest": 2,
    },
    "rps": {"mean": 500.0, "stddev": None},
    "statusCodeDistribution": {"200": 990, "302": 10},
    "errorDistribution": {"aborted due to deadline": 4},
}


def test_what_wrk_writes_is_read():
    """The rate has more digits than the time."""
    found = _read_wrk(WRK.format(""))
    assert (found.requests, found.errors) == (6667, 0)
    assert found.seconds == pytest.approx(66.0, abs=0.01)
    more = "  Socket errors: connect 0, read 3, write 0, timeout 2\n"
    more += "  Non-2xx or 3xx responses: 7\n"
    assert _read_wrk(WRK.format(more)).errors == 12
    assert _read_wrk("unable to connect") is None


def test_what_h2load_writes_is_read():
    good = H2LOAD.format("3550 succeeded, 0 failed, 0", "3551 2xx, 0 3xx")
    found = _read_h2load(good)
    assert (found.requests, found.errors) == (3550, 0)
    assert found.seconds == 2.0
    bad = H2LOAD.format("3540 succeeded, 10 failed, 3", "3540 2xx, 7 5xx")
    assert _read_h2load(bad).errors == 10
    assert _read_h2load("could not resolve") is None


def test_what_oha_writes_is_read():
    found = _read_oha(json.dumps(OHA))
    assert (found.requests, found.errors) == (1000, 0)
    assert found.seconds == 2.0017
    bad = {"statusCodeDistribution": {"200": 5, "404": 1, "500": 2}}
    bad["errorDistribution"] = {"connection closed before message": 3}
    found = _read_oha(json.dumps(OHA | bad))
    assert (found.requests, found.errors) == (8, 6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        json.dumps(OHA | {"statusCodeDistribution": [200]}),
        json.dumps(OHA | {"statusCodeDistribution": {"200": "5"}}),
        json.dumps(OHA | {"errorDistribution": None}),
        json.dumps(OHA | {"summary": {"total": None}}),
        json.dumps(OHA | {"summary": {"total": 0}}),
    ],
)
def test_what_is_not_of_ohas_format_is_not_read(text):
    assert _read_oha(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--output-format <OUTPUT_FORMAT>", "--output-format json"),
        ("-j, --json", "-j"),
    ],
)
def test_oha_is_asked_for_json_and_to_follow_nothing(
    tmp_path, monkeypatch, text, words
):
    """Each version in its own words; a redirection is an answer."""
    (tmp_path / "found").write_text(json.dumps(OHA))
    tool = tmp_path / "oha"
    tool.write_text(
        f"#!/bin/sh\n[ $1 = --help ] && echo '{text}' && exit\n"
        f'echo "$@" > {tmp_path}/words\ncat {tmp_path}/found\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with Processes() as processes:
        found = Load("oha", "/x", 8, processes).ask(80, 2.0)
        assert found.requests == 1000
        (tmp_path / "found").write_text("thread 'main' panicked")
        with pytest.raises(Refused, match="could not read the output of oha"):
            Load("oha", "/x", 8, processes).ask(80, 2.0)
    rest = "--no-tui --redirect 0 -c 8 -z 2s http://127.0.0.1:80/x"
    assert (tmp_path / "words").read_text() == f"{words} {rest}\n"
