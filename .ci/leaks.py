#!/usr/bin/env python3
"""Runs Python under sanitizers and judges their reports.

CPython keeps memory to its end, and a leak in an application's own objects
passes through our frames too, because our loop calls the application.  So a
leak is ours if, from the allocation outwards, a frame of fastloop's comes
before the bytecode interpreter's.  Any other kind of report is a failure,
also one of CPython's code.

    leaks.py REPORTS 0|1 WORD...

The WORDs are for the interpreter that runs this: a program, or `-m pytest`.
REPORTS is where reports go, without their ends; with 0, what leaks is not
judged: what ends an interpreter in the middle of things leaves behind what is
CPython's.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Not the exit status of failed tests.
FINDINGS = 3
# The sanitizer itself, at the end of a process: nothing was judged.
CRASHED = "LeakSanitizer has encountered a fatal error"
FAILURES = (
    "ERROR:",
    "runtime error:",
    CRASHED,
    "WARNING: ThreadSanitizer:",
)
FRAME = re.compile(r"^\s+#\d+ 0x[0-9a-f]+ in (\S+)(.*)$", re.M)
FASTLOOP = re.compile(r"\b_core\.|[ /]src/")
INTERPRETER = re.compile(r"^_PyEval_|^PyEval_")


def is_ours(stack: str) -> bool:
    """Whether fastloop asked for the memory whose allocation this is."""
    for name, place in FRAME.findall(stack):
        if FASTLOOP.search(place):
            return True
        if INTERPRETER.match(name):
            return False
    return False


def judge(text: str) -> list[str]:
    """The parts of a report that are failures."""
    bad = []
    for part in re.split(r"(?m)^(?===\d+==ERROR)", text):
        if "LeakSanitizer: detected memory leaks" in part:
            blocks = re.split(r"(?m)^(?=(?:Direct|Indirect) leak of)", part)
            bad += [b for b in blocks[1:] if is_ours(b)]
        elif any(word in part for word in FAILURES):
            bad.append(part)
    return bad


def options(log: Path, leaks: bool) -> dict[str, str]:
    common = f"log_path={log}"
    return {
        "ASAN_OPTIONS": f"{common}:detect_leaks={leaks:d}:"
        "malloc_context_size=40:allocator_may_return_null=1",
        "LSAN_OPTIONS": f"exitcode=0:suppressions={HERE / 'lsan.supp'}:"
        "print_suppressions=0",
        "UBSAN_OPTIONS": f"{common}:print_stacktrace=1",
        # The children that tests fork start threads of their own; a daemon
        # thread counts as a leaked one.
        "TSAN_OPTIONS": f"{common}:suppressions={HERE / 'tsan.supp'}:"
        "die_after_fork=0:report_thread_leaks=0",
    }


def run(log: Path, leaks: str, *words: str) -> tuple[int, list, list]:
    """Run it; return its status, the reports and their failures."""
    for old in log.parent.glob(log.name + ".*"):
        old.unlink()
    code = subprocess.call(
        [sys.executable, *words],
        env={**os.environ, **options(log, leaks == "1")},
    )
    found = sorted(log.parent.glob(log.name + ".*"))
    texts = [report.read_text(errors="replace") for report in found]
    return code, found, [bad for text in texts for bad in judge(text)]


def main(reports: str, leaks: str, *words: str) -> int:
    code, found, bad = run(Path(reports), leaks, *words)
    if code == 0 and bad and all(CRASHED in text for text in bad):
        print(f"{CRASHED}: once more", flush=True)
        code, found, bad = run(Path(reports), leaks, *words)
    for text in bad[:20]:
        print(text)
    print(f"{len(found)} sanitizer reports, {len(bad)} findings in fastloop")
    return FINDINGS if bad else code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
