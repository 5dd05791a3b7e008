"""The tools that judge must be able to find fault."""

import importlib.util

import pytest

from .conftest import TOP

OURS = """
=================================================================
==7==ERROR: LeakSanitizer: detected memory leaks

Direct leak of 24 byte(s) in 1 object(s) allocated from:
    #0 0x7f in __interceptor_malloc (/usr/lib/libasan.so.8+0xb9)
    #1 0x55 in _PyMem_DebugRawAlloc Objects/obmalloc.c:2695
    #2 0x7e in fl_ready_grow src/core/ready_queue.c:40
    #3 0x55 in _PyEval_EvalFrameDefault Python/generated_cases.c.h:813
"""
THEIRS = """
==7==ERROR: LeakSanitizer: detected memory leaks

Indirect leak of 24 byte(s) in 1 object(s) allocated from:
    #0 0x7f in __interceptor_malloc (/usr/lib/libasan.so.8+0xb9)
    #1 0x55 in _PyEval_EvalFrameDefault Python/generated_cases.c.h:813
    #2 0x7e in fl_loop_run src/loop/run.c:40
"""
CRASH = """
==9==ERROR: AddressSanitizer: heap-use-after-free on address 0x6
READ of size 8 at 0x6 thread T0
    #0 0x7e in list_first src/base/list.h:12
"""


@pytest.fixture(scope="module")
def leaks():
    spec = importlib.util.spec_from_file_location(
        "leaks", TOP / ".ci" / "leaks.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_leaks_of_ours_are_found(leaks):
    assert len(leaks.judge(OURS)) == 1
    assert leaks.judge(THEIRS) == []
    assert len(leaks.judge(OURS + THEIRS)) == 1


def test_crashes_are_found(leaks):
    assert len(leaks.judge(CRASH)) == 1
    assert len(leaks.judge("src/a.c:3:9: runtime error: overflow")) == 1
    assert leaks.judge("nothing to say\n") == []
