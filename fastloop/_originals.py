"""Whether a function is still CPython's own, or a program has replaced it.

The core does what some functions of the standard library do, without a call.
A program that has replaced such a function expects to be called.
"""

from __future__ import annotations

import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def is_defined_in(module: ModuleType, function: object) -> bool:
    """Whether a function is a module's own, and not a replacement.

    A function that was set in the module, or on its class, has the globals of
    another module, whenever that was done.  Only an exact function is asked:
    tracers' wrappers pass on the attributes of what they wrap.
    """
    return type(
        function
    ) is types.FunctionType and function.__globals__ is vars(module)
