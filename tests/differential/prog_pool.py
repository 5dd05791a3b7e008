"""Runs programs in forked workers, so that one that crashes is only one.

A worker writes the number of a program before it runs it.  If the worker
dies, or says nothing for a while, that program is what did it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import fcntl
import gc
import itertools
import json
import logging
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from prog_peer import PATIENCE

import fastloop

#: Seconds after which a worker that says nothing has hung: over HANG.
SILENCE = 22.0 + 4 * PATIENCE
#: Programs of a worker, before another one takes over.
LIFE = 400


#: Of this process, if it is a worker: where it says what it does.
VOICES: list[int] = []


@dataclass
class Result:
    """What became of one program."""

    seed: int
    kind: str  # empty if nothing is wrong
    text: str


class Worker:
    """A forked process that runs programs, and its voice."""

    def __init__(self, seeds: list[int], run: Callable[[int], Any]) -> None:
        self.seeds = seeds
        self.current: int | None = None
        self.rest = b""
        self.loop = ""  # which runs, as far as was said
        self.heard = time.monotonic()
        self.errors = tempfile.TemporaryFile()
        self.voice, speaking = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self.voice)
                self.work(speaking, run)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(speaking)

    def work(self, speaking: int, run: Callable[[int], Any]) -> None:
        os.dup2(self.errors.fileno(), 2)
        # Out of the way of programs that close descriptors of others.
        speaking = fcntl.fcntl(speaking, fcntl.F_DUPFD, 900)
        VOICES.append(speaking)
        prepare()
        for seed in self.seeds:
            os.write(speaking, f"begin {seed}\n".encode())
            kind, text = run(seed)
            result = json.dumps([seed, kind, text])
            os.write(speaking, f"end {result}\n".encode())

    def listen(self) -> Iterator[Result | None]:
        """Return results; None when the worker is gone."""
        data = os.read(self.voice, 65536)
        self.heard = time.monotonic()
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            word, _, text = line.decode().partition(" ")
            if word == "begin":
                self.current = int(text)
            elif word == "alive":
                self.loop = text
            else:
                self.current = None
                seed, kind, what = json.loads(text)
                self.seeds.remove(seed)
                yield Result(seed, kind, what)
        if not data:
            yield from self.buried("")
            yield None

    def buried(self, why: str) -> Iterator[Result]:
        """Return what a dead worker's last program did."""
        if self.current is not None:
            time.sleep(0.2)  # it may be dying
        flags = 0 if self.current is None else os.WNOHANG
        pid, status = os.waitpid(self.pid, flags)
        if not pid:
            os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
        os.close(self.voice)
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace")
        self.errors.close()
        code = os.waitstatus_to_exitcode(status)
        if self.current is not None:
            seed, self.current = self.current, None
            self.seeds.remove(seed)
            name = why or f"exit code {code}"
            if not why and code < 0:
                name = signal.Signals(-code).name
            # A descriptor that a program has replaced may block asyncio.
            kind = "both" if self.loop == "asyncio" and why else "crash"
            yield Result(seed, kind, f"{name}\n{shortened(said)}")
        elif code:
            raise RuntimeError(f"a worker failed: {shortened(said)}")


def shortened(text: str, most: int = 1500) -> str:
    """Return a text without its middle: a fatal error's name comes first."""
    if len(text) <= 2 * most:
        return text
    return f"{text[:most]}\n[...]\n{text[-most:]}"


def say_alive(loop: str) -> None:
    """Be heard, and by which loop: one program may take many runs of it."""
    for voice in VOICES:
        os.write(voice, f"alive {loop}\n".encode())


def prepare() -> None:
    """Make a worker's process a good place for programs."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    logging.disable()
    sys.setswitchinterval(0.0005)
    # What a process has once; libuv's part is opened by the first wait.
    loop = fastloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0.001))
    loop.close()
    gc.collect()
    gc.freeze()
    if gc.get_threshold()[0] > 1:  # --worst collect says 1
        gc.disable()


def run_all(
    seeds: Iterator[int], run: Callable[[int], Any], count: int
) -> Iterator[Result]:
    """Run every seed's program in some workers; return the results."""
    workers: list[Worker] = []
    left: list[int] = []
    try:
        while True:
            while len(workers) < count:
                batch = left or list(itertools.islice(seeds, LIFE))
                if not batch:
                    break
                left = []
                workers.append(Worker(batch, run))
            if not workers:
                return
            voices = [worker.voice for worker in workers]
            ready, _, _ = select.select(voices, [], [], 1.0)
            for worker in list(workers):
                if worker.voice in ready:
                    for result in worker.listen():
                        if result is not None:
                            yield result
                            continue
                        workers.remove(worker)
                        left += worker.seeds
                elif time.monotonic() - worker.heard > SILENCE:
                    os.kill(worker.pid, signal.SIGABRT)  # says where it is
                    workers.remove(worker)
                    yield from worker.buried("says nothing")
                    left += worker.seeds
    finally:
        for worker in workers:
            with contextlib.suppress(OSError):
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
                os.close(worker.voice)
            worker.errors.close()


def run_one(run: Callable[[int], Any]) -> Result:
    """Run something in a worker of its own."""
    return next(run_all(iter([0]), run, 1))
