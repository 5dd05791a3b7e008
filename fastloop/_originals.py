"""Whether a function is still CPython's own, or an application replaced it.

For some functions of the standard library the core has code of its own.  If an
application replaces such a function, its replacement must be called.
"""

from __future__ import annotations

import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def is_defined_in(module: ModuleType, function: object) -> bool:
    """Whether a function is a module's own, and not a replacement.

    A function that was set in the module, or on its class, has the globals of
    another module, whenever that was done.  The type must be exactly that of
    functions: a tracer's wrapper has the attributes of the function that it
    wraps.  In C this is fl_method_is_from().
    """
    if type(function) is not types.FunctionType:
        return False
    return function.__globals__ is vars(module)
