"""`run`: the user's program, unchanged, on fastloop.

The words are read as the interpreter reads its own.  `become` says how the
program runs.
"""

from __future__ import annotations

import os
import sys

from .become import become, set_path
from .commands import Refused, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

__all__ = ["Program", "main", "parse"]

USAGE = """\
usage: python -m fastloop run [PYTHON OPTIONS] prog.py [ARGUMENTS]
       python -m fastloop run [PYTHON OPTIONS] -m module [ARGUMENTS]
       python -m fastloop run [PYTHON OPTIONS] -c code [ARGUMENTS]

Runs the program as `python` would, with fastloop as asyncio's default loop.
A program that names another loop's class itself keeps that loop; `run` says so
when it ends, with the file and line that started the loop."""

#: Letters of the interpreter's options: with a word, and without.
_WITH_WORD = frozenset("cmWX")
_ALONE = frozenset("bBdEhiIOPqRsStuvVx?")
_LONG_WITH_WORD = "--check-hash-based-pycs"
_HELP = ("-h", "-?", "--help")
#: Options that print something and end.
_PRINTS = (
    *("-V", "--version"),
    *("--help-all", "--help-env", "--help-xoptions"),
)
#: The folder of the package.  Python runs it by this name also where options
#: such as -S and -I keep it from finding the package.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Program:
    """A program and how it was named: a file, a module or code.

    how is "", "-m" or "-c"; words are its arguments.
    """

    def __init__(self, how: str, name: str, words: list[str]) -> None:
        self.how = how
        self.name = name
        self.words = words
        #: Whether the first line of the file is to be left out.
        self.skips_line = False

    def __str__(self) -> str:
        text = " ".join(filter(None, [self.how, self.name, *self.words]))
        return os.fsencode(text).decode(errors="replace")  # no surrogates

    def command(self) -> list[str]:
        """Return the words that name it on a command line."""
        how = self.how or "--" * self.name.startswith("-")
        return [*filter(None, [how]), self.name, *self.words]

    def check(self) -> None:
        """Raise Refused if there is no such program, as far as one sees."""
        self.check_file()
        if self.how == "-m":
            self._check_module()
        elif self.how == "" and os.path.isdir(self.name):
            if not os.path.exists(os.path.join(self.name, "__main__.py")):
                raise Refused(f"{self.name} is a folder without __main__.py")

    def check_file(self) -> None:
        """Raise Refused if it is a file that is not there."""
        if self.how or self.name == "-":
            return
        try:
            os.stat(self.name)
        except FileNotFoundError:
            raise Refused(f"there is no program {self.name}") from None
        except OSError as exc:
            reason = f"cannot open {self.name}: {exc.strerror}"
            raise Refused(reason) from None

    def _check_module(self) -> None:
        """The top package only: to look deeper would import it."""
        from importlib.machinery import PathFinder
        from importlib.util import find_spec

        top = self.name.partition(".")[0]
        here = [os.getcwd()]  # first for `-m`, and not in sys.path now
        if not top or not (PathFinder.find_spec(top, here) or find_spec(top)):
            raise Refused(f"there is no module {self.name}")


def parse(words: list[str], command: str = "run") -> Program:
    """Return the program that the words name, or raise Refused."""
    options, program = _split(words, command)
    if options:
        raise Refused(f"{command} knows no option {options[0][0]}")
    return _needed(program, command)


def _needed(program: Program | None, command: str) -> Program:
    if program is None:
        raise Refused(
            f"{command} needs a program: prog.py, -m module, -c code"
        )
    return program


def _split(
    words: list[str], command: str
) -> tuple[list[list[str]], Program | None]:
    """Return the interpreter's options and the program that follows."""
    options: list[list[str]] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        for option in _options(word, rest, command):
            if option[0] in ("-c", "-m"):
                return options, Program(option[0], option[1], rest)
            options.append(option)
    return options, Program("", rest[0], rest[1:]) if rest else None


def _options(word: str, rest: list[str], command: str) -> Iterator[list[str]]:
    """Yield the options in a word, as the interpreter finds them.

    An option that takes a word has it behind it: the end of the same word, or
    the next one, which is removed from the rest.
    """
    if word == _LONG_WITH_WORD:
        yield [word, _next_word(word, rest, command)]
    elif word in _HELP or word in _PRINTS:
        yield [word]
    elif word.startswith("--"):
        raise Refused(f"{command} knows no option {word}")
    else:
        for place, letter in enumerate(word[1:], 2):
            option = f"-{letter}"
            if letter in _WITH_WORD:
                value = word[place:] or _next_word(option, rest, command)
                yield [option, value]
                return
            if letter not in _ALONE:
                raise Refused(f"{command} knows no option {word}")
            yield [option]


def _next_word(option: str, rest: list[str], command: str) -> str:
    if not rest:
        raise Refused(f"{command} {option} needs one word more")
    return rest.pop(0)


def main(words: list[str]) -> int:
    """Become the program that the words name; return 0 where it ends."""
    try:
        options, found = _split(words, "run")
        names = {option[0] for option in options}
        if names.intersection(_HELP):
            print(USAGE)
            return 0
        if names.intersection(_PRINTS):
            _start_python(options, [])
        program = _needed(found, "run")
        program.check_file()
        program.skips_line = "-x" in names
        if names - {"-x"}:
            _start_again(options, program)
        if not program.how and program.name == "-" and _has_terminal():
            # Only the interpreter itself can be interactive.
            _start_again([["-i"]], Program("-c", "", program.words))
        set_path(program)
        _take_fastloop()
    except Refused as exc:
        tell(str(exc))
        return 2
    become(program)
    return 0


def _has_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _start_python(options: list[list[str]], words: list[str]) -> NoReturn:
    sys.stdout.flush()
    given = [word for option in options for word in option]
    os.execv(sys.executable, [sys.executable, *given, *words])


def _start_again(options: list[list[str]], program: Program) -> NoReturn:
    """Only a new interpreter takes its options; it gets this one's, too."""
    own, _ = _split(sys.orig_argv[1:], "python")
    skip = ["-x"] * program.skips_line
    _start_python(
        own + [option for option in options if option != ["-x"]],
        [_PACKAGE, "run", *skip, *program.command()],
    )


def _take_fastloop() -> None:
    try:
        from .default_loop import set_default_loop
        from .ending import tell_of_other_loops

        set_default_loop("fastloop")
    except ImportError as exc:
        raise Refused(f"fastloop cannot be used: {exc}") from exc
    tell_of_other_loops()
