"""Builds fastloop._core, the C extension, from every .c file under src/.

All that is static is in pyproject.toml; here is what needs a decision: where
libuv is, how to compile, and where the links of README.md lead on PyPI.
Switches are environment variables, so that they reach a build started by pip:

    FASTLOOP_DEBUG=1          asserts, -O0 -g3
    FASTLOOP_SANITIZE=LIST    address,undefined or thread; asserts stay on
    FASTLOOP_WERROR=1         warnings are errors; for developers and CI
    FASTLOOP_WINDOWS=SYSTEM   win_amd64, win_arm64 or win32: a wheel for it, of
                              the Python files alone

ninja compiles side by side, and only what changed or whose command changed;
it writes compile_commands.json beside this file.
"""

import filecmp
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

from setuptools import Extension, setup
from setuptools import __version__ as setuptools_version
from setuptools.command.build_ext import build_ext
from setuptools.command.egg_info import egg_info

HERE = Path(__file__).resolve().parent
LIBUV_FLOOR = (1, 42, 0)
#: Python.h says the 64 bits of files too, but some units have system headers
#: before it: on 32-bit systems they would differ about ino_t, and so about
#: structs.
BASE_FLAGS = """-std=c11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64
-fvisibility=hidden -fno-strict-overflow -fstack-protector-strong -Wall
-Wextra -Wno-unused-parameter -Wno-missing-field-initializers"""
ASSERTS = ["-UNDEBUG", "-DFASTLOOP_DEBUG=1"]
#: The commands that compile: those of wheels, of editable installs, of ours.
BUILDS = {"bdist_wheel", "editable_wheel", "build", "build_ext"}
#: A link or a picture of README.md whose target is a file of the repository.
TARGET = re.compile(
    r'(?P<before>(?P<picture>!?)\[[^]]*\]\(|src="|srcset=")'
    r"(?P<target>(?![a-z]+:|#)[^)\"]+)"
)
#: How ninja compiles and links; the commands come before it.
RULES = """
rule cc
  command = $cc -MD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = cc $in
rule link
  command = $ld $in $libs -o $out
  description = ld $out
"""

#: The system that a wheel without the core is for: on Windows asyncio's own
#: loop takes its place.
WINDOWS = os.environ.get("FASTLOOP_WINDOWS") or (
    sysconfig.get_platform() if sys.platform == "win32" else ""
)


def check_python() -> None:
    """Ends each command on a Python that is too old.

    pip asks for what it has to build with, and for the name and the version,
    before it compares this Python with `requires-python`.
    """
    if sys.implementation.name != "cpython" or sys.version_info < (3, 11):
        sys.exit(
            "fastloop needs CPython 3.11 or newer, and this is "
            f"{sys.implementation.name} {sys.version.split()[0]}."
        )
    free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")
    if free_threaded and sys.version_info < (3, 14):
        sys.exit(
            "fastloop needs free-threaded CPython 3.14 or newer, and this is "
            f"{sys.version.split()[0]}, where free threading was an "
            "experiment; CPython 3.13 with a GIL will do."
        )
    # 0 is what setuptools says if its metadata is not installed.
    if 0 < int(setuptools_version.partition(".")[0]) < 77:
        sys.exit(
            "fastloop needs setuptools 77 or newer to build, and this is "
            f"{setuptools_version}: pip install -U setuptools"
        )


check_python()


def switch(name: str) -> bool:
    """Whether the environment variable NAME is set to something but 0."""
    return os.environ.get(name, "0") not in ("", "0")


def check_compiler() -> None:
    """Ends the build where there is no C compiler, or no Python.h."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    program = shlex.split(command)[0]
    if shutil.which(program) is None:
        sys.exit(
            f"fastloop needs a C compiler, and `{program}` was not found; "
            "install one with `apt-get install gcc libc6-dev` (Debian, "
            "Ubuntu), `dnf install gcc` (Fedora), `apk add gcc musl-dev` "
            "(Alpine) or `xcode-select --install` (macOS), or name yours in "
            "the environment variable CC."
        )
    folder = sysconfig.get_path("include")
    if not Path(folder, "Python.h").exists():
        version = sysconfig.get_python_version()
        sys.exit(
            f"fastloop needs Python's headers, and {folder}/Python.h does "
            f"not exist; install them with `apt-get install python{version}"
            f"-dev` (Debian, Ubuntu), `dnf install python{version}-devel` "
            "(Fedora) or `apk add python3-dev` (Alpine)."
        )


LIBUV_ADVICE = (
    "install it with `apt-get install libuv1-dev pkg-config` (Debian, Ubuntu)"
    ", `dnf install libuv-devel pkgconf-pkg-config` (Fedora), `apk add "
    "libuv-dev pkgconf` (Alpine) or `brew install libuv pkgconf` (macOS)."
)


def refuse_libuv(found: str, advice: str = LIBUV_ADVICE) -> NoReturn:
    floor = ".".join(map(str, LIBUV_FLOOR[:2]))
    sys.exit(
        f"fastloop needs libuv {floor} or newer with its headers, and "
        f"{found}; {advice}"
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
        refuse_libuv(
            f"pkg-config found {has}",
            "install a wheel, which contains one, or build libuv into a "
            "folder, name it by PKG_CONFIG_PATH=FOLDER/lib/pkgconfig and "
            "LDFLAGS=-Wl,-rpath,FOLDER/lib, and build again.",
        )
    return shlex.split(ask("--cflags")), shlex.split(ask("--libs"))


def flavour() -> tuple[str, list[str], list[str]]:
    """A folder's name, compiler's and linker's flags, as the switches say."""
    sanitize = os.environ.get("FASTLOOP_SANITIZE", "")
    linux = sys.platform.startswith("linux")
    link = ["-Wl,-z,relro", "-Wl,-z,now"] if linux else []
    base = [*BASE_FLAGS.split(), "-U_FORTIFY_SOURCE"]
    if sanitize:
        name = sanitize.replace(",", "-")
        both = [f"-fsanitize={sanitize}"]
        extra = ["-O1", "-g3", "-fno-omit-frame-pointer", *ASSERTS]
        extra += ["-fno-sanitize-recover=undefined"]
    elif switch("FASTLOOP_DEBUG"):
        name, both, extra = "debug", [], ["-O0", "-g3", *ASSERTS]
    else:
        name, both = "release", []
        # Any folder makes the same file.
        extra = ["-O3", "-DNDEBUG", f"-ffile-prefix-map={HERE}=."]
        # A distribution may set a higher level than our 2.
        given = map(os.environ.get, ("CFLAGS", "CPPFLAGS"))
        if any("_FORTIFY_SOURCE" in (flags or "") for flags in given):
            base.remove("-U_FORTIFY_SOURCE")
        else:
            extra += ["-D_FORTIFY_SOURCE=2"]
    if switch("FASTLOOP_WERROR"):
        extra += ["-Werror"]
    return name, [*base, *both, *extra], [*link, *both]


def ninja() -> str:
    """The program, of the package that pyproject.toml asks for or another.

    pip puts that package's folder first in PATH.  This Python's folder is for
    a virtual environment that is not active.
    """
    path = f"{os.environ.get('PATH', '')}:{Path(sys.executable).parent}"
    found = shutil.which("ninja", path=path)
    return found or sys.exit("fastloop needs ninja: pip install ninja")


def quoted(*words: object) -> str:
    """Words of a command or a list of files as ninja reads them."""
    return shlex.join(map(str, words)).replace("$", "$$")


class Build(build_ext):
    """build_ext with a ninja file in place of its own compiling."""

    def build_extension(self, ext: Extension) -> None:
        uv_compile, uv_link = libuv()
        name, flags, link = flavour()
        # Not build_temp: an editable install's is new each time.  No two
        # flavours share a folder.
        abi = sysconfig.get_config_var("SOABI")
        work = Path("build", f"{abi}-{name}")
        version = self.distribution.get_version()
        folders = ["src", *self.compiler.include_dirs]
        flags += [*uv_compile, f'-DFL_VERSION="{version}"']
        flags += [f"-I{folder}" for folder in folders]
        cc = quoted(*self.compiler.compiler_so, *flags)
        ld = quoted(*self.compiler.linker_so, *link)
        # gcc calls libatomic where a processor lacks 64-bit or small atomic
        # operations, as that of the first Raspberry Pis does.
        system, _, machine = sysconfig.get_platform().partition("-")
        small = sysconfig.get_config_var("SIZEOF_VOID_P") == 4
        small = small and machine not in ("i686", "x86_64")
        if system == "linux" and (small or machine == "riscv64"):
            uv_link += ["-Wl,--as-needed", "-latomic"]
        text = f"cc = {cc}\nld = {ld}\nlibs = {quoted(*uv_link)}\n{RULES}"
        objects = [work / Path(unit).with_suffix(".o") for unit in ext.sources]
        for unit, obj in zip(ext.sources, objects, strict=True):
            text += f"build {obj}: cc {unit}\n"
        built = work / "_core.so"
        text += f"build {built}: link {' '.join(map(str, objects))}\n"
        work.mkdir(parents=True, exist_ok=True)
        self.run_ninja(work, text)
        self.check_loads(built)
        self.put(built, Path(self.get_ext_fullpath(ext.name)))

    @staticmethod
    def run_ninja(work: Path, text: str) -> None:
        """Run ninja on a file of this text, and say what each unit needs."""
        file = work / "build.ninja"
        file.write_text(f"builddir = {work}\n{text}")
        command = [ninja(), "-f", file]
        if sys.platform == "darwin":  # as setuptools does for its compilers
            target = sysconfig.get_config_var("MACOSX_DEPLOYMENT_TARGET")
            os.environ.setdefault("MACOSX_DEPLOYMENT_TARGET", target or "")
        found = subprocess.check_output([command[0], "--version"], text=True)
        knows_quiet = [*map(int, found.split(".")[:2])] >= [1, 11]
        if subprocess.call([*command, *["--quiet"] * knows_quiet]):
            sys.exit("fastloop did not compile")
        with open("compile_commands.json", "w") as out:
            subprocess.call([*command, "-t", "compdb", "cc"], stdout=out)

    @staticmethod
    def check_loads(built: Path) -> None:
        """Load it, to see if a symbol is undefined."""
        # It needs the sanitizer's library first, or is for another Python
        # (tools/wheels), or may be for ARM.
        others = map(
            os.environ.get, ("FASTLOOP_SANITIZE", "SETUPTOOLS_EXT_SUFFIX")
        )
        if any(others) or sys.platform != "linux":
            return
        try:
            import ctypes

            ctypes.CDLL(str(built.absolute()))
        except ImportError:
            return  # this Python was built without libffi
        except OSError as exc:
            # Other errors mean that it is for another processor, or that libuv
            # is in a folder which is not searched here.
            if re.search("undefined symbol|symbol not found", str(exc)):
                sys.exit(f"fastloop was compiled and cannot be loaded: {exc}")

    @staticmethod
    def put(built: Path, target: Path) -> None:
        """Copy BUILT, never into a file that a process has mapped."""
        if target.exists() and filecmp.cmp(built, target, shallow=False):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_suffix(".new")
        shutil.copy(built, new)
        new.replace(target)


class Metadata(egg_info):
    """egg_info with the bill of materials of tools/carry_libuv.py."""

    def run(self) -> None:
        super().run()
        for bill in HERE.glob("*.cdx.json"):
            folder = Path(self.egg_info, "sboms")
            folder.mkdir(exist_ok=True)
            shutil.copy(bill, folder)


def readme() -> str:
    """README.md; if pyproject.toml names the repository, with its address.

    The name is `Repository` in [project.urls], a repository on GitHub.  PyPI
    does not know what a relative link is relative to.
    """
    import tomllib  # Python 3.10 has none, and got its sentence above

    text = Path("README.md").read_text(encoding="utf-8")
    project = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))
    urls = project["project"].get("urls", {})
    address = urls.get("Repository", "").rstrip("/")

    def absolute(link: re.Match[str]) -> str:
        picture = link["picture"] or "src" in link["before"]
        kind = "raw" if picture else "blob"
        return f"{link['before']}{address}/{kind}/HEAD/{link['target']}"

    return TARGET.sub(absolute, text) if address else text


os.chdir(HERE)
# What is missing is said before setuptools says what it does: pip shows the
# build's output, and the sentence is then all of it.
if BUILDS.intersection(sys.argv) and not WINDOWS:
    check_compiler()
    libuv()
core = Extension("fastloop._core", sorted(map(str, Path("src").rglob("*.c"))))
setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    ext_modules=[] if WINDOWS else [core],
    # A wheel for any system would be taken by Linux.
    options={"bdist_wheel": {"plat_name": WINDOWS}} if WINDOWS else {},
    cmdclass={"build_ext": Build, "egg_info": Metadata},
)
