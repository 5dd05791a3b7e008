"""`run`: modules that are patched on import, and the children's default."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest
from cli_helpers import LIMIT

from fastloop.cli import default_loop

AUTO = """
def auto_loop_factory(use_subprocess=False):
    raise AssertionError("the archive's own")
"""
MAIN = """
import uvicorn.loops.auto
import uvicorn.server

auto = uvicorn.loops.auto
for module in (auto, uvicorn.server):
    for loader in (module.__loader__, module.__spec__.loader):
        print(type(loader).__name__)
loop = auto.auto_loop_factory()()
print(type(loop).__module__)
loop.close()
"""


def test_a_changed_module_may_come_from_an_archive(fastloop_command):
    """Its loader is that of the archive's other modules, too."""
    path = fastloop_command.folder / "app.pyz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", MAIN)
        archive.writestr("uvicorn/__init__.py", "")
        archive.writestr("uvicorn/server.py", "")
        archive.writestr("uvicorn/loops/__init__.py", "")
        archive.writestr("uvicorn/loops/auto.py", AUTO)
    done = fastloop_command("run", "app.pyz")
    found = ["zipimporter"] * 4
    assert done.stdout.splitlines() == [*found, "fastloop.loop"]


CHILD = """
import sys
{missing}
before = [*sys.path]
exec({source!r})
assert sys.path == before
import asyncio
asyncio.new_event_loop().close()
assert type(asyncio.new_event_loop()).__module__.startswith("asyncio.")
"""


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("fastloop", "sys.modules['fastloop'] = None"),
        ("fastloop", "sys.modules['fastloop._core'] = None"),
        ("no_such_loop", ""),
    ],
)
def test_a_child_without_the_kind_is_left_alone(kind, missing):
    """It may be of another Python, or on another machine."""
    source = default_loop._source(kind, None)
    subprocess.run(
        [sys.executable, "-c", CHILD.format(source=source, missing=missing)],
        check=True,
        timeout=LIMIT,
    )


GATEWAY = """
import execnet
gateway = execnet.makegateway("popen")
channel = gateway.remote_exec(
    "import asyncio\\n"
    "loop = asyncio.new_event_loop()\\n"
    "channel.send(type(loop).__module__)\\n"
    "loop.close()\\n"
)
print(channel.receive())
gateway.exit()
execnet.default_group.terminate(5)
"""


def test_a_gateway_of_execnets_default_group_has_the_same_default(
    fastloop_command,
):
    pytest.importorskip("execnet", reason="needs execnet")
    assert fastloop_command("run", "-c", GATEWAY).stdout == "fastloop.loop\n"
