"""Compiles parts of src/ that are plain C; connects two TLS filters."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE
from tls_memory_link import Link, contexts, have_libssl

import fastloop

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def compiled(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., ctypes.CDLL]:
    """compiled(*files) makes a library of C files of this checkout.

    Words that begin with "-l" are libraries.
    """

    def load(*files: str) -> ctypes.CDLL:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no compiler: this is a system for users")
        if not (ROOT / "src").exists():
            pytest.skip("the tests of a wheel have no sources")
        built = tmp_path_factory.mktemp("library") / "library.so"
        subprocess.run(
            [
                compiler,
                *("-std=c11", "-D_GNU_SOURCE", "-O1", "-shared", "-fPIC"),
                *(f"-I{ROOT / 'src'}", f"-I{sysconfig.get_path('include')}"),
                *(f if f[:2] == "-l" else str(ROOT / f) for f in files),
                *("-o", str(built)),
            ],
            check=True,
            timeout=PATIENCE,
        )
        return ctypes.CDLL(str(built))

    return load


@pytest.fixture(params=["libssl", "sslobject"])
def engine(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The TLS engine of the connections that a test opens."""
    name: str = request.param
    if name == "sslobject":
        monkeypatch.setenv("FASTLOOP_DISABLE", "libssl")
    elif not have_libssl():
        pytest.skip("there is no libssl to call, or no GIL to call it under")
    return name


@pytest.fixture
def fast_loop(engine: str) -> Iterator[Any]:
    """A loop whose TLS connections have that engine."""
    loop = fastloop.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def new_link(fast_loop: Any) -> Iterator[Link]:
    """Two filters that have not sent anything yet."""
    link = Link(fast_loop, *contexts())
    link.begin()
    yield link
    link.end()


@pytest.fixture
def link(fast_loop: Any, engine: str) -> Iterator[Link]:
    """Two filters whose handshake is over."""
    link = Link(fast_loop, *contexts())
    assert link.client.engine == link.server.engine == engine
    link.begin()
    link.carry()
    assert link.client.protocol.calls == ["made"]
    assert link.server.protocol.calls == ["made"]
    yield link
    link.end()
