"""An asyncio whose classes have other slots than ours is refused, not used."""

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
    (
        "events",
        "Handle" if sys.version_info < (3, 14) else "_ThreadSafeHandle",
    ),
    ("events", "TimerHandle"),
    ("transports", "_FlowControlMixin"),
)


@pytest.mark.parametrize(("module", "name"), CLASSES)
@pytest.mark.parametrize("slots", [("_novel",), ("_loop",)])
def test_a_class_with_one_slot_more(tmp_path, module, name, slots):
    script = Script("asyncio", tmp_path)
    done = script(PROGRAM.format(module=module, name=name, slots=slots))
    assert "fastloop does not know this asyncio" in done.stdout
