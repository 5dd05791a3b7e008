"""`doctor`: finds errors and choices of another loop, each with its fix.

This module checks the machine and the environment, `doctor_files` the
program's own files.  Nothing of the program is imported or run, except by
`doctor_import` where the user asks for that.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import PurePosixPath

from . import info
from .commands import Refused, wrapped
from .doctor_files import read
from .doctor_rules import (
    VARIABLES,
    Event,
    Finding,
    aiohttp_uses_aiofastnet,
    judge,
)
from .doctor_start import read_variable
from .machine import processors, text_of
from .options import as_text, parser_of

__all__ = ["environment", "main", "variables"]


def main(words: list[str]) -> int:
    """Print the findings; return 1 if something is wrong, else 0."""
    parser = parser_of("doctor", "Exit status 1 if something is wrong.")
    parser.add_argument(
        "program",
        nargs="?",
        help="module:app, a Python file or a folder whose files to read",
    )
    parser.add_argument(
        "--import",
        dest="imports",
        action="store_true",
        help="import the program as well, in a process of its own, and see "
        "what it calls",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(words)
    if options.imports and not options.program:
        raise Refused("--import needs a program: module:app or a Python file")
    findings = _installation()
    findings += machine(runs=findings[0].level == "ok")
    findings += environment(dict(os.environ))
    if options.program:
        findings += read(options.program, variables(dict(os.environ)))
    if options.imports:
        from .doctor_import import imported

        findings += imported(options.program)
    wrong = sum(finding.level == "wrong" for finding in findings)
    if options.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(finding.lines() for finding in findings))
        print(f"\n{wrapped(_verdict(wrong, options.program))}")
    return 1 if wrong else 0


def _verdict(wrong: int, program: str | None) -> str:
    if wrong:
        return f"{wrong} thing{'s are' if wrong > 1 else ' is'} wrong."
    if program:
        return f"Nothing is wrong, neither here nor in `{program}`."
    return (
        "Nothing is wrong here. `python -m fastloop doctor PATH` looks into "
        "a program as well."
    )


def _installation() -> list[Finding]:
    try:
        found = info.facts()
    except Refused as exc:
        pip = f"{sys.executable} -m pip install . in its checkout"
        missing = isinstance(exc.__cause__, ImportError)
        fix = f"install fastloop for this Python: {pip}"
        return [Finding("wrong", str(exc), fix if missing else "")]
    found["loops that are installed:"] = found.pop("loops")
    findings = [
        Finding("ok", f"{name} {as_text(value)}")
        for name, value in found.items()
    ]
    if aiohttp_uses_aiofastnet():
        text = "aiohttp takes the transports of aiofastnet, which is installed"
        fix = "pip uninstall aiofastnet, for programs that import aiohttp"
        findings.append(Finding("note", text, fix))
    return findings


def machine(runs: bool) -> list[Finding]:
    """Return the limits of process, container and kernel.

    runs says whether fastloop's loop ran in this process.
    """
    looks = (_descriptors(), _backlog(), _quota(), _seccomp(runs))
    return [finding for finding in looks if finding is not None]


def _descriptors() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Finding("ok", "any number of descriptors may be open")
    if soft >= 4096:
        return Finding("ok", f"{soft:,} descriptors may be open")
    limit = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    return Finding(
        "note",
        f"only {soft} descriptors may be open: a server holds fewer "
        "connections than that",
        f"ulimit -n {limit}, or LimitNOFILE= in the systemd unit",
    )


def _backlog() -> Finding | None:
    text = text_of("/proc/sys/net/core/somaxconn")
    if not text or int(text) >= 1024:
        return Finding("ok", f"somaxconn is {text}") if text else None
    return Finding(
        "note",
        f"somaxconn is {text}: a burst of connections may be refused",
        "sysctl -w net.core.somaxconn=4096",
    )


def _quota() -> Finding:
    """A quota below one CPU stops the loop for most of each period."""
    quota = min(_cgroup_quotas(), default=None)
    if quota is None:
        return Finding("ok", f"{len(processors())} CPUs, no quota")
    if quota >= 1:
        return Finding("ok", f"this process may use {quota:g} CPUs")
    return Finding(
        "note",
        f"this process may use {quota:g} of a CPU: the kernel stops it when "
        "that is spent, and latency suffers",
        "give it at least one CPU (docker run --cpus 1, CPUQuota=100%)",
    )


def _cgroup_quotas() -> Iterator[float]:
    """Yield the CPUs that a control group and the groups above it allow."""
    for line in text_of("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, files = "/sys/fs/cgroup", ["cpu.max"]
        elif "cpu" in controllers.split(","):
            top = "/sys/fs/cgroup/cpu"
            files = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        group = PurePosixPath(top + path)
        for folder in (group, *group.parents):
            texts = [text_of(f"{folder}/{name}") for name in files]
            match " ".join(texts).split():
                case [quota, period] if quota.isdecimal():  # not max, not -1
                    yield int(quota) / int(period)


def _seccomp(runs: bool) -> Finding | None:
    if not re.search(r"^Seccomp:\s*2$", text_of("/proc/self/status"), re.M):
        return None
    effect = "may be why fastloop's loop does not run"
    if runs:
        effect = "allows what fastloop's loop needs: one ran just now"
    return Finding("note", f"a seccomp filter is active and {effect}")


def environment(names: dict[str, str]) -> list[Finding]:
    """Return what environment variables do to a program's loop."""
    events = variables(names)
    found = judge(events, {event.fact() for event in events})
    debug = names.get("PYTHONASYNCIODEBUG") or names.get("PYTHONDEVMODE")
    if debug:
        found.append(
            Finding(
                "note",
                "asyncio's debug mode is on in the environment, which makes "
                "every loop slow",
                "unset PYTHONASYNCIODEBUG and PYTHONDEVMODE in production",
            )
        )
    return found or [Finding("ok", "no environment variable chooses a loop")]


def variables(names: dict[str, str]) -> list[Event]:
    """Return the settings that environment variables are."""
    return [
        event
        for name in VARIABLES
        if names.get(name, "").strip()
        for event in read_variable(name, names[name])
    ]
