"""How the interpreter that runs the tests was built, and on which poller; and
how a child of it finds the package.
"""

import os
import sys
import sysconfig
from pathlib import Path

#: Built to run without a GIL.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
#: Has a GIL, which a free-threaded build can have too.
HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
#: Built with AddressSanitizer or another sanitizer.
SANITIZED = "sanitizer" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
#: The loop waits by libuv's poller, which promises less: docs/differences.md.
ON_LIBUV = sys.platform != "linux" or bool(os.environ.get("FASTLOOP_POLLER"))


def environment(*folders: object, **more: str) -> dict[str, str]:
    """Return a child's environment: it imports from these folders, and the
    package under test.
    """
    import fastloop

    path = [*folders, Path(fastloop.__file__).resolve().parents[1]]
    path += filter(None, [os.environ.get("PYTHONPATH")])
    own = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    return own | {"PYTHONPATH": os.pathsep.join(map(str, path)), **more}
