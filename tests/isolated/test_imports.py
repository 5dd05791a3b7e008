"""What importing fastloop does to a program that has not made a loop."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from isolated_scripts import LIMIT, environment


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
    for plugin in ("asyncio", "anyio", "xdist", "hypothesispytest"):
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


GEVENT = """
import types
monkey = types.ModuleType("gevent.monkey")
monkey.is_module_patched = lambda name: name in patched
sys.modules["gevent.monkey"] = monkey
"""


def test_modules_that_gevent_patched_are_refused(fast_script):
    """gevent itself is not needed here: interop would be the place."""
    done = fast_script(
        GEVENT
        + """
for patched in ({"threading"}, {"select"}, {"select", "socket"}):
    try:
        new_loop()
    except RuntimeError as exc:
        print(exc)
patched = {"os", "signal"}
new_loop().close()
"""
    )
    assert done.stdout.count("gevent's monkey.patch_all()") == 3


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="without a GIL the types are immortal, and with them the module",
)
def test_a_module_is_collected_together_with_its_loops(fast_script):
    """The GC clears the types, and what they refer to, before the loops.

    ASan reports a loop that then uses the module's state.
    """
    fast_script(
        """
import gc, importlib.util, weakref
spec = importlib.util.find_spec("fastloop._core")

def import_again():
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    class Loop(module.BaseLoop, asyncio.AbstractEventLoop):
        pass
    gc.collect()  # so that the GC clears the types before newer objects
    loop = Loop()
    read_end, write_end = os.pipe()
    os.close(write_end)
    loop.add_reader(read_end, os.close, read_end)
    handles = loop.call_soon(print), loop.call_later(100, print)
    cycle = [loop, handles]
    cycle.append(cycle)
    return weakref.ref(module), weakref.ref(loop), read_end

for _ in range(3):
    module, loop, read_end = import_again()
    gc.collect()
    assert module() is loop() is None
    os.close(read_end)
"""
    )
