"""A MongoDB that fits a page: enough of OP_MSG for a driver's daily calls.

Debian has no MongoDB, and what is on trial is the driver's use of the event
loop, not a database.  Each connection is served by a blocking thread, so that
no event loop but the tested one has a part in it.  Documents live in lists,
matched by equality; a find gives batches of what the caller asked, so that
cursors and getMore are exercised.  No topologyVersion is announced: drivers
then poll and do not stream the server's state.
"""

from __future__ import annotations

import itertools
import socketserver
import struct
import threading
from collections import defaultdict
from typing import Any

import bson

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
HEADER = struct.Struct("<iiii")
BATCH = 101

Document = dict[str, Any]


def matches(document: Document, query: Document) -> bool:
    """Equality, and the $lt and $in that tests ask for."""
    for key, want in query.items():
        value = document.get(key)
        if isinstance(want, dict):
            if "$lt" in want and not value < want["$lt"]:
                return False
            if "$in" in want and value not in want["$in"]:
                return False
        elif value != want:
            return False
    return True


class Store:
    """The data of one server, and the commands on it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.collections: dict[str, list[Document]] = defaultdict(list)
        self.cursors: dict[int, list[Document]] = {}
        self.numbers = itertools.count(1)
        self.commands: list[str] = []

    def answer(self, command: Document) -> Document:
        """The reply to a command, its errors included."""
        name = next(iter(command))
        run = getattr(self, f"do_{name.lower()}", None)
        with self.lock:
            self.commands.append(name)
            if run is None:
                return {
                    "ok": 0.0,
                    "code": 59,
                    "codeName": "CommandNotFound",
                    "errmsg": f"no such command: '{name}'",
                }
            return {**run(command, command[name]), "ok": 1.0}

    def do_hello(self, command: Document, _: Any) -> Document:
        return {
            "helloOk": True,
            "ismaster": True,
            "isWritablePrimary": True,
            "maxBsonObjectSize": 16 << 20,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
            "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0,
            "maxWireVersion": 25,
            "readOnly": False,
        }

    do_ismaster = do_hello

    def do_ping(self, command: Document, _: Any) -> Document:
        return {}

    do_endsessions = do_ping

    def do_insert(self, command: Document, name: str) -> Document:
        held = self.collections[name]
        known = {d["_id"] for d in held}
        errors = []
        for index, document in enumerate(command["documents"]):
            if document["_id"] in known:
                text = f"E11000 duplicate key: {document['_id']}"
                errors.append({"index": index, "code": 11000, "errmsg": text})
                break
            known.add(document["_id"])
            held.append(document)
        count = len(command["documents"]) - len(errors)
        return {"n": count} | ({"writeErrors": errors} if errors else {})

    def do_find(self, command: Document, name: str) -> Document:
        found = [
            d
            for d in self.collections[name]
            if matches(d, command.get("filter", {}))
        ]
        for key, way in reversed((command.get("sort") or {}).items()):
            found.sort(key=lambda d: d[key], reverse=way < 0)
        found = found[command.get("skip", 0) :]
        limit = command.get("limit", 0)
        found = found[:limit] if limit else found
        if command.get("singleBatch"):
            return self._cursor(name, found, len(found), "firstBatch")
        size = command.get("batchSize", BATCH)
        return self._cursor(name, found, size, "firstBatch")

    def do_getmore(self, command: Document, number: int) -> Document:
        rest = self.cursors.pop(number)
        size = command.get("batchSize") or len(rest)
        return self._cursor(
            command["collection"], rest, size, "nextBatch", number
        )

    def do_killcursors(self, command: Document, _: Any) -> Document:
        for number in command["cursors"]:
            self.cursors.pop(number, None)
        return {"cursorsKilled": command["cursors"]}

    def do_aggregate(self, command: Document, name: str) -> Document:
        stages = {k: v for s in command["pipeline"] for k, v in s.items()}
        if not set(stages) <= {"$match", "$group"}:
            raise NotImplementedError(f"stages {list(stages)}")
        query = stages.get("$match", {})
        count = sum(matches(d, query) for d in self.collections[name])
        batch = [{"_id": 1, "n": count}] if count else []
        return self._cursor(name, batch, 1, "firstBatch")

    def do_update(self, command: Document, name: str) -> Document:
        count = 0
        for update in command["updates"]:
            found = [
                d for d in self.collections[name] if matches(d, update["q"])
            ]
            for document in found if update.get("multi") else found[:1]:
                document.update(update["u"].get("$set", {}))
                for key, by in update["u"].get("$inc", {}).items():
                    document[key] = document.get(key, 0) + by
                count += 1
        return {"n": count, "nModified": count}

    def do_delete(self, command: Document, name: str) -> Document:
        held = self.collections[name]
        before = len(held)
        for delete in command["deletes"]:
            found = [d for d in held if matches(d, delete["q"])]
            gone = found[: delete["limit"] or len(found)]
            held[:] = [d for d in held if d not in gone]
        return {"n": before - len(held)}

    def do_drop(self, command: Document, name: str) -> Document:
        self.collections.pop(name, None)
        return {}

    def _cursor(
        self,
        name: str,
        documents: list[Document],
        size: int,
        key: str,
        number: int = 0,
    ) -> Document:
        batch, rest = documents[:size], documents[size:]
        if rest:
            number = number or next(self.numbers)
            self.cursors[number] = rest
        return {
            "cursor": {
                "id": bson.Int64(number if rest else 0),
                "ns": f"db.{name}",
                key: batch,
            }
        }


def parse_msg(body: bytes) -> tuple[int, Document]:
    """The flags and the command of an OP_MSG, its sequences put back."""
    (flags,) = struct.unpack_from("<I", body)
    end = len(body) - (4 if flags & 1 else 0)
    command, at, sequences = {}, 4, {}
    while at < end:
        kind, (size,) = body[at], struct.unpack_from("<i", body, at + 1)
        section = body[at + 1 : at + 1 + size]
        if kind == 0:
            command = bson.decode(section)
        else:
            name, _, rest = section[4:].partition(b"\0")
            sequences[name.decode()] = bson.decode_all(rest)
        at += 1 + size
    return flags, command | sequences


class Connection(socketserver.StreamRequestHandler):
    """One driver's connection: a reply to each message."""

    server: MongoResponder
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while header := self.rfile.read(HEADER.size):
            length, request, _, opcode = HEADER.unpack(header)
            body = self.rfile.read(length - HEADER.size)
            store = self.server.store
            more_to_come = False
            if opcode == OP_QUERY:
                name, _, rest = body[4:].partition(b"\0")
                reply = bson.encode(store.answer(bson.decode(rest[8:])))
                head = struct.pack("<iqii", 8, 0, 0, 1)
                kind = OP_REPLY
            elif opcode == OP_MSG:
                flags, command = parse_msg(body)
                more_to_come = bool(flags & 2)
                reply = bson.encode(store.answer(command))
                head = struct.pack("<Ib", 0, 0)
                kind = OP_MSG
            else:
                raise ValueError(f"opcode {opcode}")
            if more_to_come:
                continue
            size = HEADER.size + len(head) + len(reply)
            self.wfile.write(
                HEADER.pack(size, 0, request, kind) + head + reply
            )


class MongoResponder(socketserver.ThreadingTCPServer):
    """The server on an ephemeral port; a context manager that serves."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.store = Store()
        self.thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}
        )

    @property
    def url(self) -> str:
        """What to give a client."""
        return f"mongodb://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> MongoResponder:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()
