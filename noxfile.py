"""The stages of .ci/run, a session each, as .ci/stages.toml has them.

    nox --list       names and describes them
    nox -s 3.14      runs one of them; .ci/run runs them side by side

A session without a tag runs for each change.  The others are the gate, in
parts named by their tag, each at most 30 minutes on two idle cores.

An environment is made by tools/setup-env and not by nox, because Debian 12
lacks 3.14 and 3.15: they run inside a Debian tree of their own (.ci/pythons),
which nox cannot enter.  The extension is built in place, so all sessions of a
part build it for one Python with the same options.
"""

from __future__ import annotations

import datetime
import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import nox
from nox.command import CommandFailed

TOP = Path(__file__).resolve().parent
LOGS = TOP / "build" / "ci"
STAGES = tomllib.loads((TOP / ".ci" / "stages.toml").read_text("utf-8"))
WORDS = {k: " ".join(v.split()) for k, v in STAGES.pop("words").items()}
ENV: dict[str, dict[str, str]] = STAGES.pop("env")

nox.options.default_venv_backend = "none"
nox.options.error_on_external_run = False


def files(*patterns: str) -> list[str]:
    """Return the paths of those in tests/ that match."""
    found = (p for one in patterns for p in sorted(TOP.glob(f"tests/{one}")))
    return [str(path.relative_to(TOP)) for path in found]


#: What ThreadSanitizer looks at; the rest has one thread, or starts processes,
#: whose threads are others' to look at.
THREADED = [
    path
    for path in files(
        "behaviour/**/test_*.py", "isolated/test_*.py", "unit/**/test_*.py"
    )
    if not re.search("/(cli|package)/", path)
    and re.search("threading|to_thread|[Ee]xecutor", (TOP / path).read_text())
]
#: A test is run at least five times for its references: all files take eight
#: hours, so each day has its share of them.
SHARES = 20
TODAY = datetime.date.today().toordinal() % SHARES
COUNTED = [
    path
    for path in files("behaviour/*/test_*.py")
    if "/test_pytest_" not in path
]
WORDS |= {
    "LOGS": str(LOGS),
    "THREADED": " ".join(THREADED[0::2]),
    "THREADED_REST": " ".join(THREADED[1::2]),
    "COUNTED_TODAY": " ".join(COUNTED[TODAY::SHARES]),
}


def filled(text: str) -> str:
    """Return a command with what its {WORDS} stand for."""
    return re.sub(r"{(\w+)}", lambda found: filled(WORDS[found[1]]), text)


def passes(
    session: nox.Session, label: str, run: str | list[str], fields: Any
) -> bool:
    """Whether a run of a session passes, and has a report of its tests."""
    python = label.split()[0]
    venv = ".venv" if python == "3.11" else f".venv-{python}"
    report = LOGS / f"{session.name}.{label.replace(' ', '-')}.xml"
    env = {**ENV["every"], **ENV.get(python, {}), **fields.get("env", {})}
    env |= {"VENV": venv, "PYTEST_ADDOPTS": f"--junitxml={report}"}
    commands = [run] if isinstance(run, str) else run
    if python == "newcomer":
        prefix = [".ci/pythons", python]
    else:
        prefix = [".ci/pythons", "run", python]
        env["PYTEST_ADDOPTS"] += (
            f" -raR {filled('{AGAIN}')} -p no:cacheprovider -o "
            f"faulthandler_timeout={2 * int(env['PYTEST_TIMEOUT'])} "
            + os.environ.get("PYTEST_ADDOPTS", "")
        )
        needs = fields.get("needs", "test")
        commands = [f"tools/setup-env build {needs}", *commands]
    for command in commands:
        text = filled(command).replace("REPORT", str(report))
        text = re.sub("^python ", f"{venv}/bin/python ", text)
        try:
            session.run(*prefix, *shlex.split(text), env=env)
        except CommandFailed:
            return False
    has_tests = re.search("-m pytest|^make (test|lint)", text)
    return report.exists() or not has_tests


def define(name: str, fields: Any) -> None:
    """Make a session of a stage; it names those of its runs that failed."""

    def session(session: nox.Session) -> None:
        LOGS.mkdir(parents=True, exist_ok=True)
        failed = [
            label
            for label, run in fields["run"].items()
            if not passes(session, label, run, fields)
        ]
        if failed:
            session.error(f"failed: {', '.join(failed)}")

    session.__doc__ = fields["about"]
    nox.session(
        session, name=name, tags=[fields.get("part")] * ("part" in fields)
    )


for name, fields in STAGES.items():
    define(name, fields)
