"""What `doctor` looks for: one table of rules, each with its fix.

The modules that read files create an `Event` for each call, setting and
server command that a rule may be about.  `judge` applies the rules to them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from .commands import wrapped

__all__ = [
    "FACTORY",
    "OTHER_LOOPS",
    "RULES",
    "SETTINGS",
    "UNKNOWN",
    "VARIABLES",
    "Event",
    "Finding",
    "Rule",
    "aiohttp_uses_aiofastnet",
    "is_installed",
    "is_known",
    "judge",
]

_MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


@dataclass
class Finding:
    """One result of a check; level is ok, note or wrong."""

    level: str
    what: str
    fix: str = ""

    def lines(self) -> str:
        """Return it as text; the fix has a line of its own."""
        indent = " " * 8
        lines = wrapped(f"{_MARKS[self.level]}  {self.what}", indent)
        if self.fix:
            lines += "\n" + wrapped(f"{indent}fix: {self.fix}", indent)
        return lines


@dataclass
class Event:
    """One thing that a program does.

    name is the full name of a call with (), or of a setting.  subject is the
    text of the call or setting in the program.  form is the text of the
    setting with {} for its value.  started_by is the file or server that has
    it: some rules do not hold if `python -m fastloop run` starts that one.
    If the program has the fact unless, no rule is about the event.  A program
    that may_do_without a loop's package uses that loop where it is installed.
    """

    name: str
    value: str
    subject: str
    form: str = "{}"
    started_by: str = ""
    place: str = ""
    unless: str = ""
    in_tests: bool = False
    may_do_without: bool = False

    def fact(self) -> str:
        """Return the fact that a rule may name in `unless`."""
        return f"{self.name}={self.value}" if self.value else self.name


def _always() -> bool:
    return True


def is_installed(name: str) -> bool:
    """Whether a package is installed here."""
    return find_spec(name) is not None


def _installed(*names: str) -> Callable[[], bool]:
    return lambda: any(map(is_installed, names))


def aiohttp_uses_aiofastnet() -> bool:
    """Whether aiohttp would take its transports from aiofastnet here."""
    if not _installed("aiohttp")() or not _installed("aiofastnet")():
        return False
    try:
        major, minor = version("aiohttp").split(".")[:2]
    except PackageNotFoundError:
        return True  # a source tree, as new as any
    return (int(major), int(minor)) >= (3, 15)


@dataclass(frozen=True)
class Rule:
    """A pattern of events, what these events do, and the fix.

    name and value are patterns of `fnmatch`.  {} in the fix stands for the
    setting with the value `instead`.  The rule holds if needs() is true and no
    fact of the program is in unless.  With follows_run, it does not hold for
    a program or server that `python -m fastloop run` starts.
    """

    name: str
    does: str
    fix: str
    value: str = "*"
    instead: str = ""
    level: str = "wrong"
    needs: Callable[[], bool] = _always
    unless: frozenset[str] = frozenset()
    follows_run: bool = False

    def is_about(self, event: Event, facts: Set[str]) -> bool:
        """Whether it holds for an event of a program with these facts."""
        run = self.follows_run and f"run {event.started_by}" in facts
        return (
            fnmatchcase(event.name, self.name)
            and fnmatchcase(event.value, self.value)
            and not run
            and event.unless not in facts
            and not self.unless & facts
            and self.needs()
        )


#: The value of a setting that is computed when the program runs.
UNKNOWN = "?"
#: What uvicorn's option has to be.
FACTORY = "fastloop:new_event_loop"
#: Packages whose loops take the place of asyncio's, with uvloop's names.
OTHER_LOOPS = ("uvloop", "rloop", "rsloop", "zuvloop", "winloop")
#: Names of settings that are looked for wherever a program has them.
SETTINGS = {
    "USE_UVLOOP",
    "asgi_loop",
    "distributed.admin.event-loop",
    "event-loop",
    "use_uvloop",
    "worker_class",
}
#: Environment variables that are settings.
VARIABLES = {
    "DASK_DISTRIBUTED__ADMIN__EVENT_LOOP": "distributed.admin.event-loop",
    "GRANIAN_LOOP": "granian.loop",
    "GUNICORN_CMD_ARGS": "gunicorn",  # no setting: the command's arguments
    "SANIC_USE_UVLOOP": "USE_UVLOOP",
    "UVICORN_LOOP": "uvicorn.loop",
    "WORKER_CLASS": "worker_class",  # of widespread scripts and images
}

_RUN = "`python -m fastloop run`"
_NEW_LOOP = "fastloop.run(main()) or loop_factory=fastloop.new_event_loop"
_POLICY = f"no policy: {_NEW_LOOP}"
_INSTALL = "fastloop.install() at the top of the application's module"
_UVICORN = "{} (uvicorn 0.36 or newer)"
_GRANIAN = f"{{}}, and start it by {_RUN}"
_WORKER = (
    "a class of your own in its place: class FastloopWorker(UvicornWorker): "
    f'CONFIG_KWARGS = {{"loop": "{FACTORY}", "http": "auto"}}'
)
_POST_FORK = "{}, and fastloop.install() in post_fork of gunicorn.conf.py"
_SANIC = f"{{}}, and {_INSTALL}"
_DASK = f"leave it at asyncio, and {_INSTALL}"
_UVLOOP_HERE = "takes uvloop, which is installed here"
_COMPUTED = "is computed when the program runs"
_ANOTHER = "picks another loop"
_ASYNCIOS = "picks asyncio's own loop"
_OWN_TRANSPORTS = "puts its own transports in the place of fastloop's"
_ALONE = "run that part of the program in a process of its own"


def _loop_rules() -> Iterator[Rule]:
    for loop in OTHER_LOOPS:
        picks = f"picks {loop}"
        factory = "fastloop.new_event_loop"
        yield Rule(f"{loop}.install()", picks, _NEW_LOOP)
        yield Rule(f"{loop}.run()", picks, "fastloop.run")
        yield Rule(f"{loop}.new_event_loop()", picks, factory)
        yield Rule(f"{loop}.Loop()", picks, factory)
        yield Rule(f"{loop}.EventLoopPolicy()", picks, _POLICY)
        for name in ("Loop", "new_event_loop", "EventLoopPolicy"):
            text = f"may make the program use {loop}"
            yield Rule(
                f"reference {loop}.{name}", text, _NEW_LOOP, level="note"
            )
        yield Rule(
            "isinstance()",
            "is false on fastloop",
            "ask for what the code needs, or for fastloop.Loop as well",
            value=f"{loop}.Loop",
            level="note",
        )


def _policy_rules() -> Iterator[Rule]:
    names = ["asyncio.set_event_loop_policy", "asyncio.DefaultEventLoopPolicy"]
    level, does = "note", "may pick another loop; Python 3.16 removes it"
    if sys.version_info >= (3, 14):
        names += ["fastloop.install", "fastloop.EventLoopPolicy"]
        does = "warns from Python 3.14 on; Python 3.16 removes it"
    if sys.version_info >= (3, 16):
        level, does = "wrong", "is not in Python 3.16"
    for name in names:
        yield Rule(f"{name}()", does, _POLICY, level=level)


def _uvicorn_rules() -> Iterator[Rule]:
    name = "uvicorn.loop"
    yield Rule(name, _ANOTHER, _UVICORN, "*uvloop", FACTORY)
    yield Rule(name, _ASYNCIOS, _UVICORN, "asyncio", FACTORY)
    either = f"{_UVICORN}, or start it by {_RUN}"
    yield Rule(
        name,
        _UVLOOP_HERE,
        either,
        "auto",
        FACTORY,
        needs=_installed("uvloop"),
        follows_run=True,
    )
    text = "takes asyncio's own loop"
    yield Rule(
        name, text, either, "auto", FACTORY, level="note", follows_run=True
    )
    text = f"{_COMPUTED}; only {FACTORY} is fastloop"
    yield Rule(name, text, "", "[?]", level="note")


def _worker_rules() -> Iterator[Rule]:
    name = "worker_class"
    yield Rule(
        name, "picks uvloop", f"{{}}, and {_INSTALL}", "uvloop", "asyncio"
    )
    for module in ("uvicorn.workers", "uvicorn_worker"):
        yield Rule(
            name,
            "takes uvloop if that is installed, otherwise asyncio's own loop",
            _WORKER,
            f"{module}.UvicornWorker",
            follows_run=True,
        )
        yield Rule(name, _ASYNCIOS, _WORKER, f"{module}.UvicornH11Worker")
    yield Rule(
        name,
        _UVLOOP_HERE,
        _POST_FORK.replace("{}", 'asgi_loop = "asyncio"'),
        "asgi",
        needs=_installed("uvloop"),
        unless=frozenset({"asgi_loop=asyncio"}),
    )
    yield Rule(
        name,
        "picks uvloop",
        _POST_FORK,
        "aiohttp*.GunicornUVLoopWebWorker",
        "aiohttp.GunicornWebWorker",
    )
    for green in ("gevent", "eventlet"):
        yield Rule(
            name,
            f"replaces the system calls of the process by {green}'s",
            "gthread, or an ASGI worker",
            f"*{green}*",
        )
    text = f"{_COMPUTED}; no worker of uvicorn's own takes fastloop"
    yield Rule(name, text, "", "[?]", level="note")
    yield Rule("asgi_loop", "picks uvloop", _POST_FORK, "uvloop", "asyncio")
    yield Rule(
        "asgi_loop",
        _UVLOOP_HERE,
        _POST_FORK,
        "auto",
        "asyncio",
        needs=_installed("uvloop"),
        unless=frozenset({"asgi_loop=asyncio"}),
    )


def _server_rules() -> Iterator[Rule]:
    yield from _uvicorn_rules()
    yield from _worker_rules()
    name = "granian.loop"
    for value in ("uvloop", "rloop", "winloop"):
        yield Rule(name, _ANOTHER, _GRANIAN, value, "asyncio")
    yield Rule(
        name,
        "takes rloop or uvloop, whichever is installed here",
        _GRANIAN,
        "auto",
        "asyncio",
        needs=_installed("rloop", "uvloop"),
        unless=frozenset({"granian.loops.register()=auto"}),
    )
    yield Rule("USE_UVLOOP", "picks uvloop", _SANIC, "True", "False")
    yield Rule(
        "sanic.Sanic()",
        _UVLOOP_HERE,
        _SANIC.replace("{}", "app.config.USE_UVLOOP = False"),
        needs=_installed("uvloop"),
        unless=frozenset({"USE_UVLOOP=False", f"USE_UVLOOP={UNKNOWN}"}),
    )
    anyio = "for anyio, {} in its place"
    factory = "fastloop.new_event_loop"
    yield Rule("use_uvloop", "picks uvloop", anyio, "True", factory)
    for name in ("distributed.admin.event-loop", "event-loop"):
        yield Rule(name, "makes Dask use uvloop", _DASK, "uvloop")


def _patch_rules() -> Iterator[Rule]:
    nesting = "changes asyncio's own loop, which fastloop refuses"
    instead = "use await instead of running a second loop; notebooks allow it "
    instead += "at the top level"
    yield Rule("nest_asyncio.apply()", nesting, instead)
    yield Rule("nest_asyncio2.apply()", nesting, instead)
    for name in ("gevent.monkey.patch_*()", "eventlet.*monkey_patch()"):
        green = name.partition(".")[0]
        text = f"makes system calls use {green}'s loop"
        yield Rule(name, text, _ALONE)
    for name in ("patch_loop", "loop_factory", "install_policy"):
        yield Rule(f"aiofastnet.{name}()", _OWN_TRANSPORTS, "leave it out")
    yield Rule(
        "import aiohttp",
        f"takes aiofastnet, which is installed here and {_OWN_TRANSPORTS}",
        "pip uninstall aiofastnet",
        needs=aiohttp_uses_aiofastnet,
    )


#: Names of events that only the `unless` of a rule uses.
_FACTS = {"granian.loops.register()"}
#: The first rule about an event is the one that counts.
RULES = (
    *_loop_rules(),
    Rule(
        "asyncio.SelectorEventLoop()",
        _ASYNCIOS,
        f"{_NEW_LOOP}, or no factory at all and {_RUN}",
    ),
    *_policy_rules(),
    *_server_rules(),
    *_patch_rules(),
)


_NAMES = re.compile("|".join(translate(rule.name) for rule in RULES))


def is_known(name: str) -> bool:
    """Whether a rule is about events of this name, or about its facts."""
    return name in _FACTS or _NAMES.match(name) is not None


def judge(events: Iterable[Event], facts: Set[str]) -> list[Finding]:
    """Return the findings about a program's events.

    An event in a test gives only a note: the program runs without its tests.
    """
    found = []
    imported = set()
    for event in events:
        if event.name.startswith("import ") and not event.in_tests:
            if event.name in imported:
                continue  # once is enough
            imported.add(event.name)
        rule = next((r for r in RULES if r.is_about(event, facts)), None)
        if rule is None:
            continue
        level, does = rule.level, rule.does
        package = event.name.partition(".")[0]
        if (
            event.may_do_without
            and package in OTHER_LOOPS
            and not is_installed(package)
        ):
            level, does = "note", f"{does} where that is installed"
        if event.in_tests:
            level, does = "note", f"{does}, in a test"
        fix = rule.fix.replace("{}", event.form.replace("{}", rule.instead))
        where = f"{event.place}: " if event.place else ""
        found.append(Finding(level, f"{where}{event.subject} {does}", fix))
    return found
