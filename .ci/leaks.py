#!/usr/bin/env python3
"""Runs our own tests under ASan and UBSan and judges what they report.

CPython keeps memory to its end, and a leak in an application's own objects
passes through our frames too, because our loop calls the application.  So a
leak is ours if, from the allocation outwards, a frame of fastloop's comes
before the bytecode interpreter's.  Any other kind of report is a failure,
also one of CPython's code.

    leaks.py FOLDER           reports go to FOLDER; $VENV is the environment
    leaks.py FOLDER abrupt    the tests that end interpreters in the middle of
                              things; what leaks then is not judged
"""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OWN = (
    "unit",
    "behaviour",
    "fault/test_limits.py",
    "fault/test_net_calls.py",
    "fault/test_slow_systems.py",
)
# An interpreter that ends in the middle of things, or runs out of memory,
# leaves behind what is CPython's.  The floods are in the gate for their time.
FLOODS = "test_tls_key_floods"
ABRUPT = ("isolated", "fault/test_memory.py", f"behaviour/tls/{FLOODS}.py")
# Python alone, in a process for each step: it takes most of an hour here.
NOT_OURS = (
    "behaviour/cli",
    "behaviour/package/test_metrics_adapters.py",
    "behaviour/package/test_pytest_*.py",
    "behaviour/package/test_top_finds.py",
)
# At its end CPython frees the states of daemon threads while those still let
# go of the GIL (drop_gil): its own fault, and ASan's report comes too late to
# be complete.
NOT_ABRUPT = "not [asyncio and not daemon_thread"
# Not the exit status of failed tests.
FINDINGS = 3
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
        elif "ERROR:" in part or "runtime error:" in part:
            bad.append(part)
        elif "LeakSanitizer has encountered a fatal error" in part:
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
    }


def main(folder: str, abrupt: str = "") -> int:
    log = Path(folder) / f"asan-report{abrupt}"
    for old in log.parent.glob(log.name + ".*"):
        old.unlink()
    tests = [f"tests/{name}" for name in (ABRUPT if abrupt else OWN)]
    python = Path(os.environ.get("VENV", ".venv"), "bin", "python")
    code = subprocess.call(
        [
            python,
            "-m",
            "pytest",
            "-q",
            *tests,
            *(f"--ignore-glob=tests/{name}" for name in NOT_OURS),
            "-k",
            NOT_ABRUPT if abrupt else f"not [asyncio and not {FLOODS}",
        ],
        env={**os.environ, **options(log, not abrupt)},
    )
    reports = sorted(log.parent.glob(log.name + ".*"))
    bad = []
    for report in reports:
        bad += judge(report.read_text(errors="replace"))
    for text in bad[:20]:
        print(text)
    print(f"{len(reports)} sanitizer reports, {len(bad)} findings in fastloop")
    return FINDINGS if bad else code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
