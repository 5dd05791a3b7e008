"""How the interpreter that runs the tests was built, and on which poller."""

import os
import sys
import sysconfig

#: Built to run without a GIL.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
#: Has a GIL, which a free-threaded build can have too.
HAS_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()
#: Built with AddressSanitizer or another sanitizer.
SANITIZED = "sanitizer" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
#: The loop waits by libuv's poller, which promises less: docs/differences.md.
ON_LIBUV = sys.platform != "linux" or bool(os.environ.get("FASTLOOP_POLLER"))
