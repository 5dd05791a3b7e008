"""Helpers of the tests of registered descriptors."""

import asyncio
import time


def nothing(*args):
    pass


def iterations(loop, count=1):
    for _ in range(count):
        loop.run_until_complete(asyncio.sleep(0))


def idle_cpu(loop, seconds=0.1):
    """Return the CPU seconds this process uses while the loop waits."""
    loop.run_until_complete(asyncio.sleep(0.002))
    start = time.process_time()
    loop.run_until_complete(asyncio.sleep(seconds))
    return time.process_time() - start
