"""The command line: `python -m fastloop COMMAND`, or `fastloop COMMAND`.

Each command is a module with `main(words)`, imported when it is called.  `run`
becomes the user's program, so what happens before it is kept small: neither
argparse nor anything else that the program could notice is imported for it.
"""

import sys

from fastloop import is_native

from .commands import COMMANDS, HOME, Refused, tell, wrapped


def _usage() -> str:
    import os

    width = max(map(len, COMMANDS))
    lines = ["usage: python -m fastloop COMMAND ...", ""]
    lines += [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    lines += ["", "python -m fastloop COMMAND --help explains each."]
    if os.path.exists(f"{HOME}/docs/reference.md"):  # no wheel has them
        lines.append(wrapped(f"Read README.md and docs/ in {HOME}."))
    return "\n".join(lines)


def main(words: list[str] | None = None) -> int:
    """Run one command; return the exit status of the process.

    words are those after the program's name (None: `sys.argv`).  2 stands
    for a command that was refused, with one sentence on stderr, and 130 for
    one that Ctrl-C ended.  `run` raises what the program raises.
    """
    given = sys.argv[1:] if words is None else words
    first, rest = (given[0], given[1:]) if given else ("--help", [])
    if first == "run":
        from .run import main as run

        return run(rest)
    if first in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if first in ("-V", "--version"):
        from fastloop import __version__

        print(f"fastloop {__version__}")
        return 0
    if first not in COMMANDS:
        tell(f"there is no command {first!r}; --help lists the commands.")
        return 2
    if first != "info" and not is_native:
        from fastloop._loop._windows import ABOUT

        tell(f"`{first}` needs fastloop's loop, and this is {ABOUT}")
        return 2
    return _command(first, rest)


def command() -> None:
    """Run the command that `sys.argv` has; end with its status.

    A status of 0 raises no SystemExit, which `python -i` would report.
    """
    if not sys.flags.safe_path:
        # The current folder, or that of the script `fastloop`: a file there
        # must not take the place of a module that a command imports.
        del sys.path[0]
    status = main()
    if status:
        sys.exit(status)


def _command(name: str, words: list[str]) -> int:
    import io
    from importlib import import_module

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A program's path or text may have what the terminal cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = import_module(f"{__name__}.{name}").main(words)
        if sys.stdout:  # None if it was closed from the start
            sys.stdout.flush()
        return status
    except Refused as exc:
        tell(str(exc))
        return 2
    except KeyboardInterrupt:
        print("fastloop: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Nobody reads the output any more: discard what is left of it.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
