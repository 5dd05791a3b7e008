"""No more descriptors, no more threads: what the loop raises and survives."""

import contextlib
import signal

from few_descriptors import few_descriptors


def test_a_signal_handler_works_after_one_without_descriptors(loop_factory):
    loop = loop_factory()
    with few_descriptors(), contextlib.suppress(OSError, RuntimeError):
        loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.add_signal_handler(signal.SIGUSR1, loop.stop)
    loop.call_soon(signal.raise_signal, signal.SIGUSR1)
    loop.run_forever()
    loop.close()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
