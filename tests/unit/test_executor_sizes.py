"""How many threads a pool may have, and a pool that is half collected."""

from __future__ import annotations

import concurrent.futures
import ctypes
import threading

import pytest

NOT_BUILT = "the fastloop package is not built"
fastloop = pytest.importorskip(
    "fastloop", reason=NOT_BUILT, exc_type=ImportError
)
executor = pytest.importorskip(
    "fastloop.executor", reason=NOT_BUILT, exc_type=ImportError
)
pool_type = executor.DefaultExecutor
#: Py_tp_clear of typeslots.h
TP_CLEAR = 51


@pytest.mark.parametrize("size", [0, -1, -0.5, float("-inf")])
def test_a_pool_has_a_thread_at_least(size):
    for kind in concurrent.futures.ThreadPoolExecutor, pool_type:
        with pytest.raises(ValueError, match="max_workers must be greater"):
            kind(size)


@pytest.mark.parametrize("size", ["3", [], 1j, object()])
def test_a_size_is_a_number(size):
    for kind in concurrent.futures.ThreadPoolExecutor, pool_type:
        with pytest.raises(TypeError, match="'<=' not supported"):
            kind(size)


@pytest.mark.parametrize(
    "size", [True, 0.5, 2.5, 10**9, 2**32, 2**70, float("inf")]
)
def test_a_pool_may_be_allowed_more_threads_than_there_is_room_for(size):
    for kind in concurrent.futures.ThreadPoolExecutor, pool_type:
        with kind(size) as pool:
            assert pool._max_workers == size
            assert pool.submit(int, "5").result(20) == 5


def test_a_fraction_of_a_thread_is_one():
    gate = threading.Event()
    pool = pool_type(1.5)
    for _ in range(9):
        pool.submit(gate.wait, 20)
    assert len(pool._threads) == 2
    gate.set()
    pool.shutdown()


@pytest.mark.parametrize("arguments", [(0, int), (-1, int), (1,), (2.5, int)])
def test_the_core_checks_its_arguments(arguments):
    with pytest.raises((ValueError, TypeError)):
        fastloop._core.ThreadPool(*arguments)


def test_a_pool_that_the_collector_took_apart_refuses():
    pool = pool_type(1)
    get_slot = ctypes.pythonapi.PyType_GetSlot
    get_slot.argtypes = [ctypes.py_object, ctypes.c_int]
    get_slot.restype = ctypes.c_void_p
    clear = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object)(
        get_slot(fastloop._core.ThreadPool, TP_CLEAR)
    )
    assert clear(pool) == 0
    with pytest.raises(RuntimeError):
        pool.submit(int)
    pool.shutdown()
