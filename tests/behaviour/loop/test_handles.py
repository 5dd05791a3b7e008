"""Handle and TimerHandle objects, kept, dropped, cancelled or outliving."""

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from loop_helpers import every_scheduler, nothing
from patience import PATIENCE

#: The stack of a thread: enough for as many nested deallocators as 3.13
#: allows, too small for those of a chain of so many objects.
STACK_BYTES = 1 << 21
LINKS = 50_000


@pytest.mark.no_refcount
@pytest.mark.parametrize("name", ["_callback", "_context"])
@every_scheduler
def test_a_long_chain_of_handles_is_freed(loop_factory, make, name):
    """Each one refers to the one before, by an attribute that may be set."""

    def make_and_free():
        loop = loop_factory()
        last = nothing
        for _ in range(LINKS):
            handle = make(loop, nothing)
            setattr(handle, name, last)
            last = handle
        alive = weakref.ref(last)
        loop.close()
        del handle, last
        gc.collect()
        assert alive() is None

    before = threading.stack_size(STACK_BYTES)
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(make_and_free).result(PATIENCE)
    finally:
        threading.stack_size(before)
