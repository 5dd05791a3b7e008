"""Runs a program as this process's `__main__`, as the interpreter would.

The program runs in the module object `__main__`, with its own `sys.argv` and
`sys.path[0]`.  A script has no `__spec__`, as under `python prog.py`.  So
pickles and spawned processes find it.  An exception of the program reaches the
interpreter, which then ends as without fastloop.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import (
    BuiltinImporter,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import MAGIC_NUMBER
from io import open_code

from .commands import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

    from .run import Program

__all__ = ["become", "set_path"]


def become(program: Program) -> None:
    """Run the program as this process's `__main__`; it returns or raises."""
    if program.how == "-m":
        sys.argv[:] = ["-m", *program.words]
        _run_module(program.name, True)
    elif program.how == "-c":
        sys.argv[:] = ["-c", *program.words]
        _run_code(program.name)
    else:
        sys.argv[:] = [program.name, *program.words]
        _run_file(program)


def set_path(program: Program) -> None:
    """Set the first entry of `sys.path`, as the interpreter would.

    Before the modules that a program may have a file in place of: it must find
    its own, as if it had imported asyncio itself.
    """
    if program.how == "-m":
        first = os.getcwd()
    elif program.how == "-c" or program.name == "-":
        first = ""
    else:
        path = _path_of(program)
        if _has_modules(path):
            sys.path.insert(0, path)
            return
        first = os.path.dirname(os.path.realpath(path))
    if not sys.flags.safe_path:
        sys.path.insert(0, first)


def _path_of(program: Program) -> str:
    # Not abspath(): a ".." behind a symbolic link is another folder's.  The
    # current folder may have been deleted: an absolute name needs none.
    name = program.name
    return name if os.path.isabs(name) else os.path.join(os.getcwd(), name)


def _run_module(name: str, alter_argv: bool) -> None:
    """Run a module by the function that the interpreter calls for `-m`."""
    import runpy

    _fresh_main()
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _run_file(program: Program) -> None:
    if program.name == "-":
        names = _fresh_main(__file__="<stdin>", __loader__=BuiltinImporter)
        source = sys.stdin.buffer.read() if sys.stdin else b""
        _execute(_compiled(source, "<stdin>"), names)
        return
    path = _path_of(program)
    if _has_modules(path):
        _run_module("__main__", False)
        return
    source = _read(path)
    if path.endswith(".pyc") or source[:2] == MAGIC_NUMBER[:2]:
        bytecode = SourcelessFileLoader("__main__", path)
        names = _fresh_main(__file__=path, __loader__=bytecode)
        _execute(bytecode.get_code("__main__"), names)
        return
    if program.skips_line:
        source = source[source.find(b"\n") :] if b"\n" in source else b""
    # Its get_code() would write the bytecode to a file.  Python does not do
    # that for a script.
    loader = SourceFileLoader("__main__", path)
    names = _fresh_main(__file__=path, __loader__=loader)
    _execute(_compiled(source, path), names)


def _compiled(source: bytes | str, name: str) -> CodeType:
    code: CodeType = compile(source, name, "exec", dont_inherit=True)
    return code


def _execute(code: CodeType | None, names: dict[str, Any]) -> None:
    try:
        assert code is not None
        exec(code, names)
    finally:
        # As the interpreter does: exit functions and `python -i` can see it.
        names.pop("__file__", None)
        names.pop("__cached__", None)


def _has_modules(path: str) -> bool:
    """Whether the path is a folder or an archive that Python can import."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def _read(path: str) -> bytes:
    try:
        with open_code(path) as file:
            return file.read()
    except OSError as exc:
        tell(f"cannot open {path}: {exc.strerror}")
        raise SystemExit(2) from None


def _run_code(source: str) -> None:
    names = _fresh_main(__loader__=BuiltinImporter)
    if sys.version_info >= (3, 14):
        from textwrap import dedent

        source = dedent(source)
    code = _compiled(source, "<string>")
    if sys.version_info >= (3, 13):
        # Tracebacks then show the lines.  3.13.0 looks them up by the name.
        import linecache

        by_code = hasattr(linecache, "_interactive_cache")
        key = code if by_code else "<string>"
        linecache._register_code(key, source, "<string>")  # type: ignore[attr-defined]
    exec(code, names)


def _fresh_main(**more: object) -> dict[str, Any]:
    """Return the names of `__main__`, as a new program finds them."""
    main = sys.modules["__main__"]
    names = main.__dict__
    names.clear()
    import builtins

    names.update(
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __loader__=None,
        __spec__=None,
        __builtins__=builtins,
    )
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    if "__file__" in more and sys.version_info < (3, 15):
        names["__cached__"] = None
    names.update(more)
    return names
