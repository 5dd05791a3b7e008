"""`doctor` and `info`: what is wrong is found, with its place and its fix."""

from __future__ import annotations

import json
import sys

import pytest

from fastloop.cli.doctor import environment
from fastloop.cli.doctor_code import read_python, read_start


def wrong(findings):
    return [f.what.split(": ", 1)[1] for f in findings if f.level == "wrong"]


@pytest.mark.parametrize(
    ("source", "starts"),
    [
        ("import uvloop\nuvloop.install()", "uvloop.install() picks uvloop"),
        ("from uvloop import run as go\ngo(1)", "uvloop.run() picks"),
        ("import uvloop as u\nisinstance(a, (int, u.Loop))", "isinstance("),
        ("import nest_asyncio as n\nn.apply()", "nest_asyncio.apply()"),
        ("from gevent import monkey\nmonkey.patch_all()", "gevent.monkey."),
        (
            "import asyncio\n"
            "asyncio.run(f(), loop_factory=asyncio.SelectorEventLoop)",
            "asyncio.SelectorEventLoop picks asyncio's own loop",
        ),
        (
            "import uvicorn\nuvicorn.run('a', loop='uvloop')",
            "uvicorn.run(loop",
        ),
        ("app.config.USE_UVLOOP = True", "USE_UVLOOP picks uvloop"),
        ("anyio.run(f, backend_options=dict(use_uvloop=True))", "use_uvloop"),
        (
            "import dask\n"
            "dask.config.set({'distributed.admin.event-loop': 'uvloop'})",
            "Dask is told to use uvloop",
        ),
    ],
)
def test_what_picks_another_loop_is_found(source, starts):
    (found,) = wrong(read_python(source, "app.py"))
    assert found.startswith(starts)


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio\nasyncio.run(main())",
        "import fastloop\nfastloop.run(main())",
        "import uvicorn\nuvicorn.run('a', loop='fastloop:new_event_loop')",
        "def install(): pass\ninstall()",
        "isinstance(a, int)",
        "x = = 3",
    ],
)
def test_what_is_fine_is_not_reported(source):
    assert wrong(read_python(source, "app.py")) == []


def test_policies_are_told_of():
    source = "import asyncio\nasyncio.set_event_loop_policy(p)"
    (found,) = read_python(source, "app.py")
    assert found.level == ("wrong" if sys.version_info >= (3, 16) else "note")
    assert "3.16" in found.what


def test_start_files_that_name_a_loop_are_found():
    text = 'web: uvicorn a:b --loop uvloop\nCMD ["x", "--loop", "auto"]\n'
    assert len(wrong(read_start(text, "Procfile"))) == 2
    assert not read_start("--loop fastloop:new_event_loop", "Procfile")


def test_environment_variables_that_choose_a_loop_are_found():
    found = environment({"UVICORN_LOOP": "uvloop", "SANIC_USE_UVLOOP": "0"})
    assert [f.level for f in found] == ["wrong"]
    assert environment({})[0].level == "ok"


def test_a_folder_is_read_and_the_status_tells(fastloop_command):
    folder = fastloop_command.folder / "pack" / "deep"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "app.py").write_text("import uvloop\n\nuvloop.install()\n")
    for program in ("pack", "pack.deep:app", "pack/deep/app.py"):
        done = fastloop_command("doctor", program, status=1)
        assert "pack/deep/app.py:3: uvloop.install()" in done.stdout
        assert "fix: " in done.stdout
    (folder / "app.py").write_text("import asyncio\n")
    done = fastloop_command("doctor", "pack")
    assert "2 files of pack: nothing picks another loop" in done.stdout
    assert "Nothing is wrong, neither here nor in `pack`.\n" in done.stdout
    done = fastloop_command("doctor", "pack/__init__.py")
    assert "ok     pack/__init__.py: nothing picks another" in done.stdout


def test_nothing_of_the_program_is_run(fastloop_command):
    fastloop_command.write("app.py", "raise SystemExit('was run')")
    fastloop_command("doctor", "app:app")


def test_doctor_has_json(fastloop_command):
    found = json.loads(fastloop_command("doctor", "--json").stdout)
    assert {"level", "what", "fix"} == set(found[0])


def test_doctor_refuses_what_is_not_there(fastloop_command):
    sentence = fastloop_command.refused("doctor", "nope:app")
    assert sentence == "there is no file, folder or module nope:app"


def test_info_names_versions_and_the_default_loop(fastloop_command):
    import fastloop

    found = json.loads(fastloop_command("info", "--json").stdout)
    assert found["fastloop"] == fastloop.__version__
    assert found["libuv"] == fastloop.libuv_version()
    assert found["default loop"].startswith("asyncio.")
    assert "asyncio" in found["loops"]


def test_info_says_if_something_replaced_the_default(fastloop_command):
    done = fastloop_command("run", "-m", "fastloop", "info")
    assert "fastloop.loop.Loop, put in the place" in done.stdout
