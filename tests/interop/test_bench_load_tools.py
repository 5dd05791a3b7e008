"""The load tools of `bench --http`: what they count of a real server."""

from __future__ import annotations

import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("psutil", reason="psutil is not installed")

from fastloop.cli import Refused, load
from fastloop.cli.processes import Processes

TOOLS = ("wrk", "h2load")


class Handler(BaseHTTPRequestHandler):
    """Answers with the status and the words after it that its server has."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked += 1
        self.send_response(*self.server.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """Counts requests; what a tool breaks off is no error."""

    daemon_threads = True
    block_on_close = False
    asked = 0
    status = (200, "OK")

    def handle_error(self, *_):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ask(server):
    """ask(tool): load the server for a second with two connections."""

    def ask(tool):
        with Processes() as processes:
            loader = load.Load(tool, "/", 2, processes)
            return loader, loader.ask(server.server_port, 1)

    return ask


def on_path(tool):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_counts_what_the_server_answers(server, ask, tool):
    on_path(tool)
    _, found = ask(tool)
    assert found.errors == 0
    # What was under way at the end of each connection is not counted.
    assert 0 <= server.asked - found.requests <= 4
    assert 0.9 < found.seconds < 1.5


@pytest.mark.parametrize("tool", TOOLS)
def test_an_error_is_counted_once(server, ask, tool):
    on_path(tool)
    server.status = (500, "No")
    _, found = ask(tool)
    assert found.errors == found.requests > 0


def test_answers_whose_status_h2load_does_not_read_are_refused(server, ask):
    """So are hypercorn's: there are no words after the number."""
    on_path("h2load")
    server.status = (200, "")
    with pytest.raises(Refused, match="choose another --load"):
        ask("h2load")


def test_h2load_is_left_where_nobody_named_it(server, ask, monkeypatch):
    on_path("h2load")
    monkeypatch.setattr(load, "TOOLS", ("h2load",))
    server.status = (200, "")
    loader, found = ask(None)
    assert loader.tool == "own"
    assert found.errors == 0 and found.requests > 0
