"""Builds fastloop._core, the C extension, from every .c file under src/.

All that is static is in pyproject.toml; here is what needs a decision: where
libuv is, and how to compile.  Switches are environment variables, so that they
reach a build started by pip:

    FASTLOOP_DEBUG=1          asserts, -O0 -g3
    FASTLOOP_SANITIZE=LIST    address,undefined or thread; asserts stay on
    FASTLOOP_LTO=1            link-time optimisation; measured: no gain
    FASTLOOP_WERROR=1         warnings are errors; for developers and CI

Objects are compiled side by side and only when a file they read or their
command changed; compile_commands.json is written beside this file.
"""

import concurrent.futures
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
LIBUV_FLOOR = (1, 42, 0)

if sys.platform == "win32":
    sys.exit(
        "fastloop does not run on Windows: its core makes POSIX system calls. "
        "Use asyncio's own event loop there, or WSL."
    )
if sys.implementation.name != "cpython" or sys.version_info < (3, 11):
    sys.exit(
        "fastloop needs CPython 3.11 or newer; this is "
        f"{sys.implementation.name} {sys.version.split()[0]}."
    )


def version() -> str:
    """The package's version, whose one home is fastloop/__init__.py."""
    text = (HERE / "fastloop" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(
        r'^__version__(?:\s*:[^=\n]+)?\s*=\s*"([^"]+)"', text, re.M
    )
    if found is None:
        sys.exit('fastloop/__init__.py has no line __version__ = "..."')
    return found[1]


def switch(name: str) -> bool:
    """Whether the environment variable NAME is set to something but 0."""
    return os.environ.get(name, "0") not in ("", "0")


def refuse_libuv(found: str) -> None:
    floor = ".".join(map(str, LIBUV_FLOOR[:2]))
    sys.exit(
        f"fastloop needs libuv {floor} or newer with its headers, and "
        f"{found}; install it with `apt-get install libuv1-dev pkg-config` "
        "(Debian, Ubuntu), `dnf install libuv-devel pkgconf-pkg-config` "
        "(Fedora), `apk add libuv-dev pkgconf` (Alpine) or "
        "`brew install libuv pkgconf` (macOS)."
    )


def libuv() -> tuple[list[str], list[str]]:
    """libuv's compile and link flags, or the end of the build."""
    tool = os.environ.get("PKG_CONFIG") or next(
        filter(shutil.which, ("pkg-config", "pkgconf")), ""
    )
    if not tool or shutil.which(tool) is None:
        refuse_libuv("pkg-config, which finds it, was not found")

    def ask(*args: str) -> str:
        done = subprocess.run(
            [tool, *args, "libuv"], capture_output=True, text=True
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    has = ask("--modversion")
    if not has:
        refuse_libuv("pkg-config found none")
    if tuple(map(int, re.findall(r"\d+", has)))[:3] < LIBUV_FLOOR:
        refuse_libuv(f"pkg-config found {has}")
    return shlex.split(ask("--cflags")), shlex.split(ask("--libs"))


def sources() -> list[str]:
    """Every .c file under src/, as a path from here."""
    found = sorted((HERE / "src").rglob("*.c"))
    return [str(path.relative_to(HERE)) for path in found]


class Flavour:
    """The compiler's and linker's flags that the switches ask for."""

    def __init__(self) -> None:
        self.debug = switch("FASTLOOP_DEBUG")
        self.sanitize = os.environ.get("FASTLOOP_SANITIZE", "")
        self.lto = switch("FASTLOOP_LTO") and not (self.debug or self.sanitize)
        self.compile = [
            "-std=c11",
            "-D_GNU_SOURCE",
            f'-DFL_VERSION="{version()}"',
            "-fvisibility=hidden",
            "-fno-strict-overflow",
            "-fstack-protector-strong",
            "-Wall",
            "-Wextra",
            "-Wno-unused-parameter",
            "-Wno-missing-field-initializers",
            "-U_FORTIFY_SOURCE",
        ]
        self.link: list[str] = []
        if sys.platform.startswith("linux"):
            self.link += ["-Wl,-z,relro", "-Wl,-z,now"]
        if switch("FASTLOOP_WERROR"):
            self.compile += ["-Werror"]
        if self.sanitize:
            self.compile += [
                "-O1",
                "-g3",
                f"-fsanitize={self.sanitize}",
                "-fno-sanitize-recover=undefined",
                "-fno-omit-frame-pointer",
            ]
            self.link += [f"-fsanitize={self.sanitize}"]
        elif self.debug:
            self.compile += ["-O0", "-g3"]
        else:
            self.compile += ["-O3", "-DNDEBUG", "-D_FORTIFY_SOURCE=2"]
        if self.debug or self.sanitize:
            self.compile += ["-UNDEBUG", "-DFASTLOOP_DEBUG=1"]
        if self.lto:
            self.compile += ["-flto"]
            self.link += ["-flto", "-O3"]

    def name(self) -> str:
        """A folder name: no two flavours share objects."""
        kind = self.sanitize.replace(",", "-") or (
            "debug" if self.debug else "release"
        )
        return kind + ("-lto" if self.lto else "")


class Build(build_ext):
    """build_ext with parallel, incremental compilation."""

    def build_extension(self, ext: Extension) -> None:
        flavour = Flavour()
        uv_compile, uv_link = libuv()
        # Not build_temp: an editable install's is new each time.
        abi = sysconfig.get_config_var("SOABI")
        work = HERE / "build" / f"{abi}-{flavour.name()}"
        work.mkdir(parents=True, exist_ok=True)
        base = [
            *self.compiler.compiler_so,
            *(f"-I{d}" for d in (HERE / "src", *self.compiler.include_dirs)),
            *uv_compile,
            *flavour.compile,
        ]
        jobs = []
        for unit in ext.sources:
            obj = work / Path(unit).with_suffix(".o")
            obj.parent.mkdir(parents=True, exist_ok=True)
            jobs.append((unit, obj, [*base, "-c", unit, "-o", str(obj)]))
        self.write_database(jobs)
        count = os.cpu_count() or 1
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            done = [pool.submit(compile_one, *job) for job in jobs]
            failed = [
                unit for unit, ok in (d.result() for d in done) if not ok
            ]
        if failed:
            sys.exit("fastloop: did not compile: " + ", ".join(failed))
        self.link(
            ext,
            work,
            [str(obj) for _, obj, _ in jobs],
            [*flavour.link, *uv_link],
        )

    def link(
        self, ext: Extension, work: Path, objects: list[str], args: list[str]
    ) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        stamp = work / "link.json"
        inputs = [args, [(o, os.stat(o).st_mtime_ns) for o in objects]]
        wanted = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        if target.exists() and stamp.exists():
            seen = json.loads(stamp.read_text())
            if seen == [wanted, target.stat().st_mtime_ns]:
                return
        # Another flavour may have left a newer file at this path.
        self.compiler.force = True
        self.compiler.link_shared_object(
            objects, str(target), extra_postargs=args
        )
        stamp.write_text(json.dumps([wanted, target.stat().st_mtime_ns]))

    def write_database(self, jobs: list[tuple[str, Path, list[str]]]) -> None:
        rows = [
            {"directory": str(HERE), "file": unit, "arguments": command}
            for unit, _, command in jobs
        ]
        text = json.dumps(rows, indent=1) + "\n"
        path = HERE / "compile_commands.json"
        try:
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        except OSError as exc:
            print(f"compile_commands.json not written: {exc}")


def compile_one(unit: str, obj: Path, command: list[str]) -> tuple[str, bool]:
    """Compile UNIT unless OBJ is newer than all it was made from."""
    record = obj.with_suffix(".cmd")
    deps = obj.with_suffix(".d")
    line = shlex.join(command)
    if fresh(obj, deps) and record.exists() and record.read_text() == line:
        return unit, True
    done = subprocess.run(
        [*command, "-MD", "-MF", str(deps)],
        cwd=HERE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    print(f"  cc {unit}\n{done.stdout}", end="", flush=True)
    if done.returncode == 0:
        record.write_text(line)
    return unit, done.returncode == 0


def fresh(obj: Path, deps: Path) -> bool:
    try:
        text = deps.read_text().replace("\\\n", " ").split(":", 1)[1]
        made = obj.stat().st_mtime_ns
        return all(os.stat(n).st_mtime_ns <= made for n in text.split())
    except (OSError, IndexError):
        return False


os.chdir(HERE)
setup(
    version=version(),
    ext_modules=[Extension("fastloop._core", sources())],
    cmdclass={"build_ext": Build},
)
