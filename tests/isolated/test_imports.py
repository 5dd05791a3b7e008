"""What importing fastloop does to a program that has not made a loop."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

import pytest
from builds import environment
from isolated_scripts import LIMIT


def test_fastloop_imported_before_pytest(tmp_path):
    """pytest warns of a plugin whose assertions it cannot rewrite any more.

    It knows a plugin's packages by the files of the installed distribution.
    """
    import fastloop

    home = Path(fastloop.__file__).parent
    (tmp_path / "fastloop").symlink_to(home)
    info = tmp_path / "asyncio_fastloop-0.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: asyncio-fastloop\nVersion: 0.0.0\n")
    (info / "RECORD").write_text("fastloop/__init__.py,,\n")
    (info / "entry_points.txt").write_text(
        "[pytest11]\nfastloop = fastloop.testing.plugin\n"
    )
    (tmp_path / "test_nothing.py").write_text("def test_nothing(): pass\n")
    arguments = ["-W", "error", "-p", "no:cacheprovider"]
    others = (
        "asyncio",
        "anyio",
        "xdist",
        "hypothesispytest",
        "looptime_plugin",
    )
    for plugin in others:
        arguments += ["-p", f"no:{plugin}"]
    code = (
        "import fastloop, pytest, sys; "
        f"sys.exit(pytest.main({[*arguments, 'test_nothing.py']}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr


IMPORTS = """
import asyncio, sys
async def main(): pass
asyncio.run(main())
known = {*sys.modules}
import fastloop
print(*{*sys.modules} - known)
fastloop.install
fastloop.run(main())
print(*{*sys.modules} - known)
"""


def test_a_program_pays_for_few_modules_beside_asyncios():
    """From 3.14 on asyncio imports no typing, so fastloop does not either."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", IMPORTS],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=environment(),
        check=True,
    )
    first, then = (set(line.split()) for line in done.stdout.splitlines())
    assert first - {"__future__"} == {"fastloop"}
    assert then - {"__future__"} <= followed("fastloop")


LAZY = """
import fastloop
fastloop.new_event_loop().close()
print(fastloop._core.StreamTransport._sendfile_compatible.name)
"""


@pytest.mark.skipif(sys.version_info < (3, 15), reason="not before 3.15")
def test_lazy_imports_leave_nothing_out():
    """A module that is imported for its effects would have none."""
    done = subprocess.run(
        [sys.executable, "-X", "lazy_imports=all", "-c", LAZY],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=environment(),
    )
    assert (done.stdout, done.stderr) == ("TRY_NATIVE\n", "")


def imports(node: ast.AST, package: str) -> Iterator[str]:
    """Yield what statements import of the package, but for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ImportFrom) and child.level:
            home = "." * child.level + (child.module or "")
            yield (home := resolve_name(home, package))
            yield from (f"{home}.{one.name}" for one in child.names)
        elif not (
            isinstance(child, ast.If)
            and ast.unparse(child.test) == "TYPE_CHECKING"
        ):
            yield from imports(child, package)


def followed(*names: str) -> set[str]:
    """Return the modules that a tool finds which freezes a program.

    Nuitka follows no other imports, so a frozen program has no other modules.
    """
    import fastloop

    found = {"fastloop._loop._windows"}  # for that system alone
    left = [*names]
    while left:
        name = left.pop()
        path = Path(fastloop.__file__).parents[1] / name.replace(".", "/")
        package = name if path.is_dir() else name.rpartition(".")[0]
        path = path / "__init__.py" if path.is_dir() else Path(f"{path}.py")
        if name not in found and path.exists():
            left += imports(ast.parse(path.read_text()), package)
        found.add(name)
    return found


@pytest.mark.parametrize(
    ("module", "asks", "thread", "patch"),
    [
        ("gevent.monkey", "is_module_patched", "threading", "patch_all"),
        ("eventlet.patcher", "is_monkey_patched", "thread", "monkey_patch"),
    ],
)
def test_patched_modules_are_refused(fast_script, module, asks, thread, patch):
    """The libraries are not needed here: interop would be the place."""
    done = fast_script(f"""
import types
module = sys.modules[{module!r}] = types.ModuleType({module!r})
module.{asks} = lambda name: name in patched
for patched in ({{{thread!r}}}, {{"select"}}, {{"select", "socket"}}):
    try:
        new_loop()
    except RuntimeError as exc:
        print(exc)
patched = {{"os", "signal"}}
new_loop().close()
""")
    assert done.stdout.count(f" {module}.{patch}()") == 3
