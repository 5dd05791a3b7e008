"""The metrics socket: clients of any manners, and answers of any kind.

A client may send, stop reading, reset or leave; one that reads to the end gets
a JSON document.  `top` shows what a server answers, or says in one sentence
that it is none of fastloop's.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import socket
import tempfile
import threading
from typing import Any

from fuzz_plot import edit
from harness import Run, Tape, check, note, one_iteration

import fastloop
from fastloop import cli

INSTRUMENTED = [
    "fastloop.metrics",
    "fastloop.observe.metrics_socket",
    "fastloop.observe.reading",
    "fastloop.observe.top",
]
MOST_BYTES = 200
CHECKS_MEMORY = False  # a thread answers


class Server:
    """A socket with a given answer."""

    def __init__(self, path: str) -> None:
        self.path, self.answer = path, b""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(path)
        self.sock.listen(8)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            peer, _ = self.sock.accept()
            with peer, contextlib.suppress(OSError):
                peer.sendall(self.answer)


def ask(path: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def client(tape: Tape, path: str) -> None:
    """Do what no client should."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        if tape.byte() % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        sock.connect(path)
        for _ in range(tape.byte() % 4):
            how = tape.byte() % 4
            note("client", how)
            with contextlib.suppress(OSError):
                if how == 0:
                    sock.sendall(tape.bytes())
                elif how == 1:
                    sock.recv(1 + tape.byte())
                else:
                    sock.shutdown(how - 2)


def show(server: Server, answer: bytes, words: tuple[str, ...]) -> None:
    """Have top read an answer."""
    note("show", answer, words)
    server.answer = answer
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(["top", server.path, "--once", *words])
    said = err.getvalue()
    if code == 0:
        out.flush()
        check(out.buffer.getvalue() and not said, said)
    else:
        check(code == 2 and said.count("\n") == 1, code, said)


def start() -> Run:
    """Make a loop that shows its metrics, and a server that pretends to."""
    folder = tempfile.mkdtemp()
    loop: Any = fastloop.new_event_loop()
    path = f"{folder}/m"
    loop.enable_metrics(socket=path)
    one_iteration(loop)
    server = Server(f"{folder}/s")
    good = json.loads(ask(path))

    def run(tape: Tape) -> None:
        kind = tape.byte() % 8
        if kind == 0:
            for _ in range(tape.byte() % 6):
                client(tape, path)
            found = json.loads(ask(path))
            check(list(found) == list(good), found)
            check(len(found["loops"]) == 1 and not loop.is_closed(), found)
            return
        words = tape.pick(((), ("--json",), ()))
        if kind == 1:
            return show(server, tape.bytes(), words)
        document = copy.deepcopy(good)
        for _ in range(kind - 1):
            document = edit(tape, document)
        answer = json.dumps(document).encode()
        if tape.byte() % 8 == 0:
            answer = answer[: tape.size()] + tape.bytes()
        show(server, answer, words)

    return run
