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
import math
import socket
import tempfile
import threading
from typing import Any

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
NUMBERS = (0, -1, 1, 1e-9, 9e-10, 1e15, 1e16, math.nan, math.inf, 1 << 64, 0.5)
#: Text that a terminal may not take.
TEXTS = ("", "$x", "<&>", "\n", "\0", "\ud800", "\x1b[2J", "é漢" * 99)


def value(tape: Tape, document: Any) -> Any:
    kind = tape.byte() % 8
    if kind == 0:
        return copy.deepcopy(document)
    if kind == 1:
        return tape.pick((None, True, False, [], {}, [[]], {"": ""}))
    if kind < 5:
        return tape.pick(NUMBERS)
    return tape.pick(TEXTS)


def edit(tape: Tape, document: Any) -> Any:
    """Change one value of a document, as deep as the tape says."""
    keys = list(document) if isinstance(document, dict) else None
    if isinstance(document, list):
        keys = list(range(len(document)))
    how = tape.byte()
    if not keys or how < 8:
        return value(tape, document)
    key = tape.pick(keys)
    if how < 160:
        document[key] = edit(tape, copy.deepcopy(document[key]))
    elif how < 190:
        del document[key]
    elif how < 220 and isinstance(document, list):
        document.append(copy.deepcopy(document[key]))
    elif how < 250 and isinstance(document, dict):
        document[str(value(tape, key))] = document[key]
    else:
        document[key] = value(tape, document[key])
    return document


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
