"""`run`: modules that are patched on import, and the children's default."""

import re
import zipfile

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


SERVE = """
import asyncio, multiprocessing, os

class Item: pass

async def main(): pass

def other(item):
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())

def own(item):
    assert type(item) is Item
    asyncio.run(main())
    assert type(asyncio.new_event_loop()).__module__ == "fastloop.loop"

if __name__ == "__main__":
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    for method in ("fork", "spawn", "forkserver"):
        for target in (own, other):
            context = multiprocessing.get_context(method)
            child = context.Process(target=target, args=(Item(),))
            child.start()
            child.join()
            print(target.__name__, child.pid, child.exitcode)
"""


def test_a_process_on_another_loop_says_so(fastloop_command):
    """A server's workers are such processes, and its main one has no loop."""
    fastloop_command.write("serve.py", SERVE)
    done = fastloop_command("run", "serve.py")
    rows = [row.split() for row in done.stdout.splitlines()]
    assert [status for _, _, status in rows] == ["0"] * 6
    pids = [pid for name, pid, _ in rows if name == "other"]
    said = done.stderr.replace("\n", " ")
    assert re.findall(r"fastloop: process (\d+) did not run on", said) == pids
    assert said.count("fastloop: ") == 3
    assert said.count("asyncio.unix_events._UnixSelectorEventLoop, which") == 3
