"""Runs the fuzzers: `python tests/fuzz/run.py TARGET... --seconds N`.

With files, they are run instead of new inputs, to see a finding again.  The
exit status is 1 if anything was found.  README.md here tells more.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
TARGETS = sorted(path.stem[5:] for path in HERE.glob("fuzz_*.py"))
#: Seconds that one input may take, on a machine that does other work as well.
HANG = 30
#: Inputs that are run again and again at the end, to see memory grow.
AGAIN = 60
#: Of each target's corpus, the smallest inputs that reach anything new.
KEPT_BYTES = 24 * 1024


def environment() -> dict[str, str]:
    """Return the variables for a process that has the sanitizers."""
    env = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(TOP)}
    built = glob.glob(str(TOP / "fastloop" / "_core.*.so"))
    if not any(b"__sanitizer_cov" in Path(p).read_bytes() for p in built):
        return env
    import atheris

    return env | {
        "LD_PRELOAD": f"{atheris.path()}/asan_with_fuzzer.so",
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=32:"
        "allocator_may_return_null=1:handle_abort=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def call(words: list[str], log: Path, env: dict[str, str]) -> str:
    """Run this file as a child; return its output, "" if it failed."""
    with tempfile.TemporaryDirectory() as scratch, log.open("w") as out:
        code = subprocess.call(
            [sys.executable, str(HERE / "run.py"), *words],
            env={**env, "TMPDIR": scratch},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    text = log.read_text(errors="replace")
    if code == 0:
        return text or "\n"
    print("\n".join(text.splitlines()[-60:]))
    print(f"fuzz: exit status {code}, see {log}")
    return ""


def unpack(target: str, corpus: Path) -> None:
    """Write the inputs that are kept in the repository, a file for each."""
    corpus.mkdir(parents=True, exist_ok=True)
    kept = HERE / "corpus" / f"{target}.txt"
    lines = kept.read_text().split() if kept.exists() else []
    found = [bytes.fromhex(line) for line in lines]
    for data in found or (random.Random(n).randbytes(99) for n in range(50)):
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)


def keep(target: str, folder: Path, env: dict[str, str]) -> None:
    """Put the inputs that reach something new into the repository."""
    with tempfile.TemporaryDirectory(dir=folder) as small:
        words = [small, str(folder / "corpus"), "-merge=1"]
        call(["--child", target, *words], folder / "merge.log", env)
        found = [path.read_bytes() for path in Path(small).iterdir()]
    lines: list[str] = []
    for data in sorted(found, key=lambda data: (len(data), data)):
        if sum(map(len, lines)) + 2 * len(data) < KEPT_BYTES:
            lines.append(data.hex())
    (HERE / "corpus" / f"{target}.txt").write_text("\n".join(lines) + "\n")


def summary(text: str) -> str:
    """Say what libFuzzer did."""
    runs = re.findall(r"number_of_executed_units: (\d+)", text)
    edges = re.findall(r" cov: (\d+) .* corp: (\d+)/", text)
    seconds = re.findall(r"Done \d+ runs in (\d+) second", text)
    if not (runs and edges and seconds):
        return ""
    return (
        f"{runs[-1]} inputs in {seconds[-1]} s, {edges[-1][0]} edges, "
        f"{edges[-1][1]} inputs kept"
    )


def fuzz(target: str, seconds: int, env: dict[str, str], save: bool) -> bool:
    """Run one target; return whether nothing was found."""
    folder = TOP / "build" / "fuzz" / target
    corpus = folder / "corpus"
    unpack(target, corpus)
    words = [
        str(corpus),
        f"-max_total_time={seconds}",
        f"-timeout={HANG}",
        f"-artifact_prefix={folder}/",
        "-len_control=0",
        "-print_final_stats=1",
        "-rss_limit_mb=3000",
    ]
    print(f"fuzz: {target}, {seconds} s", flush=True)
    text = call(["--child", target, *words], folder / "fuzz.log", env)
    said = summary(text)
    if not said:
        print(f"fuzz: {target}: FOUND something; a file {folder}/crash-* or")
        print(f"timeout-* is its input: {HERE}/run.py {target} FILE")
        return False
    print(f"fuzz: {target}: {said}", flush=True)
    if save:
        keep(target, folder, env)
    files = sorted(map(str, corpus.iterdir()))
    words = ["--replay", target, *files[:AGAIN]]
    ended = call(words, folder / "replay.log", env)
    print(f"fuzz: {target}: memory {'stays' if ended else 'GROWS'}")
    return bool(ended)


def child(words: list[str]) -> None:
    """Be the process that has the sanitizers."""
    sys.path[:0] = [str(HERE), str(HERE.parent / "unit")]
    import harness

    (harness.fuzz if words[0] == "--child" else harness.replay)(
        words[1], words[2:]
    )


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    if sys.argv[1:2] in (["--child"], ["--replay"]):
        child(sys.argv[1:])
        return 0
    parser = argparse.ArgumentParser(prog="tests/fuzz/run.py")
    parser.add_argument("words", nargs="*", metavar="TARGET or FILE")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument(
        "--save", action="store_true", help="write tests/fuzz/corpus"
    )
    options = parser.parse_args()
    targets = [word for word in options.words if word in TARGETS]
    files = [word for word in options.words if word not in TARGETS]
    env = environment()
    if files:
        if len(targets) != 1:
            parser.error(f"which of {', '.join(TARGETS)} are the files of?")
        words = [str(HERE / "run.py"), "--replay", *targets, *files]
        return subprocess.call([sys.executable, *words], env=env)
    if "LD_PRELOAD" not in env:
        parser.error("the extension is not built for it: see `make fuzz`")
    found = [
        target
        for target in targets or TARGETS
        if not fuzz(target, options.seconds, env, options.save)
    ]
    print(f"fuzz: findings in {', '.join(found) or 'no target'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
