"""`run`: the user's program, unchanged, on fastloop.

The program becomes `__main__` of this very process, as the interpreter would
make it: the same module object, `sys.argv`, `sys.path[0]`, no `__spec__` for a
script, so that pickles and spawned processes find it.  What it raises goes to
the interpreter, which ends as it would have; only the frames of this package
are taken from the traceback.
"""

from __future__ import annotations

import io
import os
import sys
from importlib.machinery import (
    BuiltinImporter,
    SourceFileLoader,
    SourcelessFileLoader,
)

from .commands import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, TracebackType
    from typing import Any, NoReturn

__all__ = ["Program", "become", "main", "parse"]

USAGE = """\
usage: python -m fastloop run [PYTHON OPTIONS] prog.py [ARGUMENTS]
       python -m fastloop run [PYTHON OPTIONS] -m module [ARGUMENTS]
       python -m fastloop run [PYTHON OPTIONS] -c code [ARGUMENTS]

Runs the program as `python` would, with fastloop as asyncio's default loop.
A program that names another loop's class itself keeps that loop:
`python -m fastloop doctor prog.py` finds where."""

#: Options of the interpreter that take a word, and those that do not.
_WITH_WORD = ("-X", "-W")
_ALONE = frozenset("bBdEiIOPqsSuv")


class Program:
    """A program and how it was named: a file, a module or code.

    how is "", "-m" or "-c"; words are its arguments.
    """

    def __init__(self, how: str, name: str, words: list[str]) -> None:
        self.how = how
        self.name = name
        self.words = words

    def __str__(self) -> str:
        return " ".join(filter(None, [self.how, self.name, *self.words]))

    def command(self) -> list[str]:
        """Return the words that name it on a command line."""
        return [*filter(None, [self.how]), self.name, *self.words]

    def check(self) -> None:
        """Raise Refused if there is no such program, as far as one sees."""
        if self.how == "" and self.name != "-":
            if not os.path.exists(self.name):
                raise Refused(f"there is no program {self.name}")
            if os.path.isdir(self.name) and not os.path.exists(
                os.path.join(self.name, "__main__.py")
            ):
                raise Refused(f"{self.name} is a folder without __main__.py")
        elif self.how == "-m":
            self._check_module()

    def _check_module(self) -> None:
        """The top package only: to look deeper would import it."""
        from importlib.util import find_spec

        top = self.name.partition(".")[0]
        if not top or find_spec(top) is None:
            raise Refused(f"there is no module {self.name}")


def parse(words: list[str], command: str = "run") -> Program:
    """Return the program that the words name, or raise Refused."""
    if words and words[0] in ("-m", "-c"):
        if len(words) == 1:
            raise Refused(f"{command} {words[0]} wants one word more")
        return Program(words[0], words[1], words[2:])
    for how in ("-m", "-c"):
        if words and words[0].startswith(how) and len(words[0]) > 2:
            return Program(how, words[0][2:], words[1:])
    if not words:
        raise Refused(
            f"{command} wants a program: prog.py, -m module, -c code"
        )
    if words[0].startswith("-") and words[0] != "-":
        raise Refused(f"{command} knows no option {words[0]}")
    return Program("", words[0], words[1:])


def main(words: list[str]) -> int:
    """Become the program that the words name; return 0 where it ends."""
    if words[:1] in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    try:
        count = _python_options(words)
        program = parse(words[count:])
        program.check()
        if count:
            _start_again(words[:count], program)
        _take_fastloop()
    except Refused as exc:
        print(f"fastloop: {exc}", file=sys.stderr)
        return 2
    become(program)
    return 0


def _python_options(words: list[str]) -> int:
    """Return how many of the first words are the interpreter's options."""
    count = 0
    while count < len(words):
        word = words[count]
        if word in _WITH_WORD:
            count += 2
        elif word[:2] in _WITH_WORD or (
            word[:1] == "-" and word[1:] and set(word[1:]) <= _ALONE
        ):
            count += 1
        else:
            break
    return min(count, len(words))


def _start_again(options: list[str], program: Program) -> NoReturn:
    """Only a new interpreter takes its options."""
    python = [sys.executable, *options, "-m", "fastloop", "run"]
    sys.stdout.flush()
    os.execv(sys.executable, [*python, *program.command()])


def _take_fastloop() -> None:
    try:
        from .adopt import adopt

        adopt("fastloop")
    except ImportError as exc:
        raise Refused(f"fastloop cannot be used: {exc}") from exc


def become(program: Program) -> None:
    """Run the program as this process's `__main__`; it returns or raises."""
    try:
        if program.how == "-m":
            sys.argv[:] = ["-m", *program.words]
            _run_module(program.name)
        elif program.how == "-c":
            _run_code(program)
        elif os.path.isdir(program.name) or program.name.endswith(".zip"):
            sys.argv[:] = [program.name, *program.words]
            _replace_path(os.path.abspath(program.name), always=True)
            _run_module("__main__", alter_argv=False)
        else:
            _run_file(program)
    except BaseException:
        _hide_frames()
        raise


def _run_module(name: str, alter_argv: bool = True) -> None:
    """What the interpreter itself calls for `-m`."""
    import runpy

    if alter_argv:
        _replace_path(os.getcwd())
    _fresh_main()
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]


def _run_file(program: Program) -> None:
    sys.argv[:] = [program.name, *program.words]
    if program.name == "-":
        _replace_path("")
        names = _fresh_main(__file__="<stdin>", __loader__=BuiltinImporter)
        source = sys.stdin.read()
        exec(compile(source, "<stdin>", "exec", 0, True), names)
        return
    path = os.path.abspath(program.name)
    _replace_path(os.path.dirname(os.path.realpath(path)))
    compiled = path.endswith(".pyc")
    kind = SourcelessFileLoader if compiled else SourceFileLoader
    loader = kind("__main__", path)
    names = _fresh_main(__file__=path, __loader__=loader)
    code = loader.get_code("__main__") if compiled else _compiled(path)
    assert code is not None
    exec(code, names)


def _compiled(path: str) -> CodeType:
    """A loader would keep the bytecode, which Python does not for a script."""
    try:
        with io.open_code(path) as file:
            source = file.read()
    except OSError as exc:
        print(f"fastloop: cannot open {path}: {exc.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    code: CodeType = compile(source, path, "exec", 0, True)
    return code


def _run_code(program: Program) -> None:
    sys.argv[:] = ["-c", *program.words]
    _replace_path("")
    names = _fresh_main(__loader__=BuiltinImporter)
    source = program.name
    if sys.version_info >= (3, 14):
        from textwrap import dedent

        source = dedent(source)
    exec(compile(source, "<string>", "exec", 0, True), names)


def _replace_path(first: str, always: bool = False) -> None:
    """Have `sys.path` begin as it would without us."""
    if not sys.flags.safe_path:
        sys.path[:1] = [first]
    elif always:
        sys.path.insert(0, first)


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


def _hide_frames() -> None:
    """Have the report of the exception that flies leave out this package."""
    hook = sys.excepthook

    def report(
        kind: type[BaseException],
        exc: BaseException,
        trace: TracebackType | None,
    ) -> None:
        sys.excepthook = hook
        rest, seen = trace, trace
        while seen is not None:
            if seen.tb_frame.f_code.co_filename == __file__:
                rest = seen.tb_next
            seen = seen.tb_next
        exc.__traceback__ = rest
        hook(kind, exc, rest)

    sys.excepthook = report
