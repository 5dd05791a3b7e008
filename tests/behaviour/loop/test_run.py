"""run_forever, run_until_complete and stop, and the loop after each."""

import sys


def test_asyncgen_hooks_of_an_outer_loop_are_restored(loop, iterate):
    def firstiter(generator):
        pass

    def finalizer(generator):
        pass

    old = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=firstiter, finalizer=finalizer)
    try:
        iterate()
        assert sys.get_asyncgen_hooks() == (firstiter, finalizer)
    finally:
        sys.set_asyncgen_hooks(*old)
