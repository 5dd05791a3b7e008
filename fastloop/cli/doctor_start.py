"""Reads files that start programs, and the commands in them.

Such files are Procfile, Dockerfile, scripts, units and the configuration of
servers and tools.  A command counts if it names a server and an application
or an option of the server: `pip install uvicorn` starts none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .doctor_rules import UNKNOWN, VARIABLES, Event

__all__ = ["START_FILES", "read_command", "read_start", "read_variable"]

START_FILES = re.compile(
    r"(Dockerfile.*|Containerfile.*|Procfile.*|Makefile|[Jj]ustfile|\.env"
    r"|.*\.(sh|bash|ya?ml|toml|ini|cfg|conf|service|env|dockerfile))\Z"
)
#: The options of each server, and the setting that each option sets.
_OPTIONS: dict[str, dict[str, str]] = {
    "fastapi": {},
    "granian": {"--loop": "granian.loop"},
    "gunicorn": {
        "-k": "worker_class",
        "--worker-class": "worker_class",
        "--asgi-loop": "asgi_loop",
    },
    "hypercorn": {"-k": "worker_class", "--worker-class": "worker_class"},
    "uvicorn": {"--loop": "uvicorn.loop"},
}
#: The setting of a server without such an option, and its variable.
_DEFAULTS = {
    "fastapi": ("uvicorn.loop", "none"),
    "granian": ("granian.loop", "GRANIAN_LOOP"),
    "uvicorn": ("uvicorn.loop", "UVICORN_LOOP"),
}
_APPLICATION = re.compile(r"([A-Za-z_][\w.]*:[A-Za-z_][\w.]*|\$\S+)\Z")
#: A command with one of these words before a server's name starts no server.
_NOT_STARTED = set(
    "add apk apt apt-get echo grep install kill killall pgrep pip pkill "
    "printf remove rm service supervisorctl systemctl uninstall which".split()
)
_WORD = re.compile(r"""[^\s"'`,\[\](){}]+""")
_BETWEEN = re.compile(r"\s*(?:&&|\|\||;|\||&(?!\w))\s*")
#: A variable in a command, and its default.
_USE = re.compile(r"""\$(?:\{(\w+)(?::?[-=]["']?([\w.:/-]+)["']?)?\}|(\w+))""")
#: A line that gives a variable of its own a value of one word.
_GIVEN = re.compile(
    r"""\s*(?:(?:export\s+|ENV\s+|ARG\s+|Environment=["']?)?(\w+)="""
    r"""|ENV\s+(\w+)\s+)["']?([\w.:/-]+)["']?\s*\Z"""
)
#: A here-document that a shell prints: it goes to no file and no command.
_PRINTED = re.compile(
    r"""[^#|>]*\bcat\b(?:[^|>]|>&)*(?<!<)<<-?\s*["']?(\w+)(?:[^|>]|>&)*\Z"""
)
#: A variable of a sentence, such as "Run gunicorn ..." or "usage: gunicorn".
_SENTENCE = re.compile(
    r"""\s*(?:\w+\s+)?\w+\s*=\s*["'](?:[A-Z][\w-]*|[\w-]+:)\s[^"']*["']\s*\Z"""
)
#: The signs of make and just before a command that they do not print.
_PREFIX = re.compile(r"^\s+(?:@[-+]?|[-+]@?)\s*(?=\w)")
_EXTRAS = re.compile(r"(\w)\[[\w, -]*\]")
_COMMENT = re.compile(r"(^|\s)(#|//).*|^\s*;.*")
#: A key of YAML whose value is the text of the lines below, as one line.
_FOLDED = re.compile(r"(\s*(?:- )?[\w.-]+:)\s*>[-+\d]*\s*\Z")
_ITEM = re.compile(r"\s*-\s+[\"']?([^\s\"':](?:\S*?[^\s:])??)[\"']?\s*\Z")
#: A line with the arguments of the command that stands before it.
_ARGUMENTS = re.compile(r"\s*(args:|CMD\s*\[)")
_COMMAND = re.compile(r"\s*(?:- )?(command:|ENTRYPOINT\s*\[)")
_SETTING = re.compile(
    r"\s*[\"']?(worker_class|asgi_loop|event-loop"
    r"|distributed\.admin\.event-loop)[\"']?\s*[=:]\s*[\"']?([\w.:]+)"
)
_VARIABLE = re.compile(
    rf"\b({'|'.join(VARIABLES)})\b[\"']?"
    r"[=:\s]+(?:value:\s*|\$\{\w+:-)?[\"']?([\w.:-][^\"'\n}]*)"
)


def read_start(text: str) -> list[Event]:
    """Return the events of a file; their places are the numbers of lines."""
    found = []
    known: dict[str, str] = {}
    for lineno, line in _lines(text):
        line = _filled(line, known)
        events = list(_settings(line))
        if _SENTENCE.match(line):
            line = ""
        line = _EXTRAS.sub(r"\1-extra", _PREFIX.sub("", line, count=1))
        for command in _BETWEEN.split(line):
            events += read_command(command)
        for event in events:
            event.place = str(lineno)
        found += events
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    r"""Yield lines without comments and the number of each.

    These count as one line: lines that a \ joins, a list in brackets, a YAML
    list of single words, text that YAML folds, a variable of Kubernetes with
    its value, and a command with the arguments that Docker or Kubernetes adds
    to it.
    """
    whole, first, in_list, folded = "", 1, False, -1
    is_command = False
    for lineno, raw in _unprinted(text):
        line = _COMMENT.sub("", raw)
        if not line.strip():
            continue
        item = _ITEM.match(line)
        indent = len(line) - len(line.lstrip())
        folded = folded if 0 <= folded < indent else -1
        adds = is_command and _ARGUMENTS.match(line)
        goes_on = (
            whole.endswith("\\")
            or folded >= 0
            or _is_in_brackets(whole, line)
            or (item and in_list)
            or re.match(r"\s*value:", line)
            or adds
        )
        if goes_on:
            whole = (
                f"{whole.removesuffix(chr(92))} {item[1] if item else line}"
            )
        else:
            yield first, whole
            whole, first = item[1] if item else line, lineno
            if fold := _FOLDED.match(line):
                whole, folded = fold[1], indent
            if not item:  # an item belongs to the key above it
                is_command = bool(_COMMAND.match(line))
        in_list = bool(item or (adds and line.rstrip().endswith(":")))
    yield first, whole


def _unprinted(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are in no printed here-document."""
    end = ""
    for lineno, line in enumerate(text.splitlines(), 1):
        if end:
            end = "" if line.strip() == end else end
            continue
        yield lineno, line
        if "<<" in line and (printed := _PRINTED.match(line)):
            end = printed[1]


def _is_in_brackets(before: str, line: str) -> bool:
    """Whether a line goes on with a list that was not closed before it."""
    return (
        before.rstrip()[-1:] in "[," or line.lstrip()[0] == "]"
    ) and 0 < before.count("[") - before.count("]")


def _filled(line: str, known: dict[str, str]) -> str:
    """Return a line with the values of variables, and note new values.

    known has the variables of the lines above.  One that may be a setting
    keeps its name, because its value is judged where the variable gets it.
    """

    def value(use: re.Match[str]) -> str:
        name = use[1] or use[3]
        if name in VARIABLES and not use[2]:
            return f"${name}"
        return known.get(name) or use[2] or f"${name}"

    line = _USE.sub(value, line)
    if given := _GIVEN.match(line):
        known[given[1] or given[2]] = given[3]
    return line


def _settings(line: str) -> Iterator[Event]:
    """Yield the settings and variables of a line."""
    setting = _SETTING.match(line)
    if setting:
        name, value = setting.groups()
        yield Event(name, value, f"{name} = {value}", f'{name} = "{{}}"')
    for variable in _VARIABLE.finditer(line):
        yield from read_variable(*variable.groups())


def read_variable(name: str, value: str) -> Iterator[Event]:
    """Yield the events of an environment variable."""
    meaning = VARIABLES[name]
    if meaning == "gunicorn":
        yield from read_command(f"{meaning} {value}")
        return
    first = value.split()[0]
    known = {"true": "True", "yes": "True", "on": "True", "1": "True"}
    known |= {"false": "False", "no": "False", "off": "False", "0": "False"}
    meant = known.get(first.lower(), first)
    text = f"{name}={first}"
    yield Event(meaning, meant, text, f"{name}={{}}")
    yield Event(f"variable {name}", "", text)


def read_command(text: str) -> list[Event]:
    """Return the events of a command that starts a server or a program."""
    words = [word for word in _WORD.findall(text) if word != "\\"]
    adopted = _adopted(words)
    for count, word in enumerate(words):
        server = re.split(r"[/=]", word)[-1]
        if words[count + 1 : count + 2] in (["="], [":"]):
            continue  # a key of that name is no command
        if server in _OPTIONS and not word.startswith("-"):
            if not _NOT_STARTED.isdisjoint(words[:count]):
                return []
            by = f"adopted {server}" if adopted else server
            return [*adopted, *_server(server, words[count + 1 :], by)]
    return adopted


def _adopted(words: list[str]) -> list[Event]:
    """Return the events of a command with `python -m fastloop run`."""
    if "fastloop" not in words:
        return []
    match words[words.index("fastloop") + 1 :]:
        case ["run", "-m", module, *_]:
            last = module.rpartition(".")[2]
            names = [last, f"adopted {last}", f"{last}.py"]
        case ["run", path, *_]:
            names = [path.rpartition("/")[2]]
        case _:
            return []
    return [Event(f"run {name}", "", "") for name in names]


def _server(server: str, after: list[str], by: str) -> list[Event]:
    """Return the settings of one server's start, or its default."""
    found = []
    options = _OPTIONS[server]
    words = iter(after)
    for word in words:
        option, equals, value = word.partition("=")
        if word[:2] == "-k" and len(word) > 2:
            option, equals, value = "-k", "=", word[2:]
        if option not in options:
            continue
        value = value if equals else next(words, "")
        subject = f"{server} {option} {value}"
        event = Event(options[option], value, subject, f"{option} {{}}", by)
        if value.startswith("$"):
            event.value, event.unless = UNKNOWN, f"variable {value[1:]}"
        found.append(event)
    name, variable = _DEFAULTS.get(server, ("", ""))
    given = any(event.name == name for event in found)
    if name and not given and _names_application(server, after):
        form = "--loop {}"
        if server == "fastapi":
            form = f"uvicorn module:app {form}"
        event = Event(name, "auto", server, form, by)
        event.unless = f"variable {variable}"
        found.append(event)
    return found


def _names_application(server: str, words: list[str]) -> bool:
    if server == "fastapi":
        return words[:1] in (["run"], ["dev"])
    return any(_APPLICATION.match(word) for word in words)
