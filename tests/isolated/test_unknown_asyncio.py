"""An asyncio that has changed is refused with a sentence, not used."""

import sys

import pytest
from isolated_scripts import Script

PROGRAM = """
import asyncio.{module} as module

class Changed(module.{name}):
    __slots__ = {slots}

module.{name} = Changed
try:
    import fastloop._core
except ImportError as exc:
    print(exc)
"""
CLASSES = (
    ("events", "Handle"),
    ("events", "TimerHandle"),
    ("transports", "_FlowControlMixin"),
)


@pytest.mark.parametrize(("module", "name"), CLASSES)
@pytest.mark.parametrize("slots", [("_novel",), ("_loop",)])
def test_a_class_with_one_slot_more(tmp_path, module, name, slots):
    script = Script("asyncio", tmp_path)
    done = script(PROGRAM.format(module=module, name=name, slots=slots))
    assert "fastloop does not know this asyncio" in done.stdout


@pytest.mark.parametrize(
    "name",
    ["base_events._check_ssl_socket", "BaseEventLoop._check_running"],
)
def test_a_missing_private_name_is_an_import_error(tmp_path, name):
    done = Script("asyncio", tmp_path)(f"""
del asyncio.{name}
try:
    from fastloop import run
except ImportError as exc:
    print(exc)
""")
    assert "fastloop does not know this version of asyncio" in done.stdout
    assert name.partition(".")[2] in done.stdout


REPLACED = """
for name in (
    "_get_running_loop", "_set_running_loop", "get_running_loop",
    "get_event_loop",
):
    replacement = getattr(asyncio.events, "_py_" + name)
    setattr(asyncio.events, name, replacement)
    setattr(asyncio, name, replacement)

loop = new_loop()

async def child():
    return 5

async def main():
    future = loop.create_future()
    assert future.get_loop() is loop
    task = loop.create_task(child())
    assert task.get_loop() is loop
    return await task

assert loop.run_until_complete(main()) == 5
loop.close()
"""


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="3.14's C tasks ask C's running loop"
)
def test_another_notion_of_the_running_loop(script):
    """A library may have Python functions for it; C futures ask CPython's."""
    script(REPLACED)
