"""`run`: the user's program, unchanged, on fastloop.

The program runs in the module object `__main__` of this process, with its own
`sys.argv` and `sys.path[0]`, so pickles and spawned processes find it.  An
exception of the program reaches the interpreter, which then ends as without
fastloop.
"""

import os
import sys

from .commands import Refused, tell

USAGE = """\
usage: python [PYTHON OPTIONS] -m fastloop run prog.py [ARGUMENTS]
       python [PYTHON OPTIONS] -m fastloop run -m module [ARGUMENTS]
       python [PYTHON OPTIONS] -m fastloop run -c code [ARGUMENTS]

Runs the program as `python` would, with fastloop as asyncio's default loop.
A program that names another loop's class itself keeps that loop; `run` says so
when it ends, with the file and line that started the loop."""


class Program:
    """A program and how it was named: a file, a module or code.

    how is "", "-m" or "-c"; words are its arguments.
    """

    def __init__(self, how: str, name: str, words: list[str]) -> None:
        self.how = how
        self.name = name
        self.words = words

    def __str__(self) -> str:
        text = " ".join(self.command())
        return os.fsencode(text).decode(errors="replace")  # no surrogates

    def command(self) -> list[str]:
        """Return the words that name it on a command line."""
        return [*filter(None, [self.how]), self.name, *self.words]

    def check(self) -> None:
        """Raise Refused if it is a file that cannot be read."""
        if not self.how and not os.access(self.name, os.R_OK):
            hint = f"; a module is `-m {self.name}`" * self.name.isidentifier()
            raise Refused(
                f"there is no program {self.name} that can be read{hint}"
            )

    def set_path(self) -> None:
        """Set the first entry of `sys.path`, as the interpreter would.

        Call this before asyncio is imported: a program may have files in the
        place of modules that asyncio imports.
        """
        if self.how == "-m":
            first = os.getcwd()
        elif self.how == "-c":
            first = ""
        elif self._is_package():
            sys.path.insert(0, self._path)
            return
        else:
            first = os.path.dirname(os.path.realpath(self._path))
        if not sys.flags.safe_path:
            sys.path.insert(0, first)

    def become(self) -> None:
        """Run it as this process's `__main__`; returns or raises."""
        sys.argv[:] = [self.how or self.name, *self.words]
        if self.how == "-m":
            _run_module(self.name, True)
        elif self.how == "-c":
            code = self.name
            if sys.version_info >= (3, 14):  # as the interpreter
                from textwrap import dedent

                code = dedent(code)
            _execute(code, "<string>")
        elif self._is_package():
            _run_module("__main__", False)
        else:
            self._run_file()

    @property
    def _path(self) -> str:
        # Not abspath(): a ".." behind a symbolic link is another folder's.
        # The current folder may have been deleted: an absolute name needs
        # none.
        name = self.name
        return name if os.path.isabs(name) else os.path.join(os.getcwd(), name)

    def _is_package(self) -> bool:
        """Whether it is a folder or an archive that Python can import."""
        from pkgutil import get_importer

        return get_importer(self._path) is not None

    def _run_file(self) -> None:
        from importlib.machinery import SourceFileLoader
        from io import open_code

        path = self._path
        with open_code(path) as file:
            source = file.read()
        loader = SourceFileLoader("__main__", path)
        _execute(source, path, __file__=path, __loader__=loader)


def _run_module(name: str, alter_argv: bool) -> None:
    """Run a module by the function that the interpreter calls for `-m`."""
    import runpy

    _fresh_main()
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _execute(source: bytes | str, file: str, **names: object) -> None:
    found = _fresh_main(**names)
    exec(compile(source, file, "exec", dont_inherit=True), found)


def _fresh_main(**more: object) -> dict[str, object]:
    """Return the names of `__main__`, as a new program finds them."""
    import builtins
    from importlib.machinery import BuiltinImporter

    names = vars(sys.modules["__main__"])
    names.clear()
    names.update(
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __loader__=BuiltinImporter,
        __spec__=None,
        __builtins__=builtins,
    )
    names.update(more)
    return names


def parse(words: list[str], command: str = "run") -> Program:
    """Return the program that the words name, or raise Refused."""
    if not words:
        raise Refused(
            f"{command} needs a program: prog.py, -m module, -c code"
        )
    first, *rest = words
    how = first[:2]
    if how in ("-m", "-c"):
        if first != how:  # -mNAME
            return Program(how, first[2:], rest)
        if not rest:
            raise Refused(f"{command} {how} needs one word more")
        return Program(how, rest[0], rest[1:])
    if first.startswith("-"):
        raise Refused(
            f"{command} knows no option {first}; options of Python come "
            f"first, as in `python -X dev -m fastloop {command}`"
        )
    return Program("", first, rest)


def main(words: list[str]) -> int:
    """Become the program that the words name; return 0 where it ends."""
    if words and words[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    try:
        program = parse(words)
        program.check()
        program.set_path()
        _take_fastloop()
    except Refused as exc:
        tell(str(exc))
        return 2
    program.become()
    return 0


def _take_fastloop() -> None:
    from fastloop import is_native

    if not is_native:
        from fastloop._loop._windows import ABOUT

        tell(f"this is {ABOUT}")
        return
    try:
        from fastloop._loop._environment import is_off

        from .default_loop import set_default_loop

        if is_off():
            tell("FASTLOOP_DISABLE=loop: this is asyncio's own loop")
        else:
            set_default_loop("fastloop")
    except ImportError as exc:
        raise Refused(f"fastloop cannot be used: {exc}") from exc
