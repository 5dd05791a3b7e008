"""`doctor` and `info`: what is wrong is found, with its place and its fix."""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
import zipfile

import pytest
from cli_helpers import one_sentence

from fastloop.cli import doctor, doctor_rules
from fastloop.cli.doctor import environment
from fastloop.cli.doctor_files import Program


@pytest.fixture
def found_in(tmp_path):
    """found_in(source, name) returns the findings of a file."""

    def found_in(source, name="app.py"):
        path = tmp_path / name
        path.write_text(source)
        return Program(path).findings([])

    return found_in


#: A file that picks another loop, and its call.
INSTALLS = "import uvloop\nuvloop.install()\n"
CALL = "__import__('uvloop').install()"


def wrong(findings):
    return [f.what.split(": ", 1)[1] for f in findings if f.level == "wrong"]


@pytest.mark.parametrize(
    ("source", "starts"),
    [
        ("import uvloop\nuvloop.install()", "uvloop.install() picks uvloop"),
        ("from uvloop import run as go\ngo(1)", "uvloop.run() picks"),
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
        ("app.config.USE_UVLOOP = True", "USE_UVLOOP = True picks uvloop"),
        ("anyio.run(f, backend_options=dict(use_uvloop=True))", "use_uvloop"),
        (
            "import dask\n"
            "dask.config.set({'distributed.admin.event-loop': 'uvloop'})",
            '"distributed.admin.event-loop": "uvloop" makes Dask use uvloop',
        ),
    ],
)
def test_what_picks_another_loop_is_found(found_in, source, starts):
    (found,) = wrong(found_in(source))
    assert found.startswith(starts)


#: A start by uvicorn whose options are a dict.
OPTIONS = "import uvicorn\nkw = {'host': 'x'}\n#\nuvicorn.run('a:b', **kw)\n"
CONFIG = "import uvicorn\nconfig = uvicorn.Config('a:b')\n"


@pytest.mark.parametrize(
    "change",
    [
        "kw['loop'] = 'VALUE'",
        "kw.setdefault('loop', 'VALUE')",
        "kw.update(loop='VALUE')",
        "kw.update({'loop': 'VALUE'})",
        "kw |= {'loop': 'VALUE'}",
        "kw = kw | {'loop': 'VALUE'}",
        "kw = {**kw, 'loop': 'VALUE'}",
        "kw = dict(kw, loop='VALUE')",
        "def f():\n    kw['loop'] = 'VALUE'",
    ],
)
def test_what_a_program_adds_to_a_dict_counts(found_in, change, monkeypatch):
    monkeypatch.setattr(doctor_rules, "find_spec", lambda name: True)
    source = OPTIONS.replace("#", change)
    assert found_in(source.replace("VALUE", "fastloop:new_event_loop")) == []
    (found,) = found_in(source.replace("VALUE", "uvloop"))
    assert found.level == "wrong"
    assert 'uvicorn.run(loop="uvloop") picks' in found.what


@pytest.mark.parametrize(
    "change",
    [
        "kw.update(options)",
        "kw[name] = 1",
        "kw['loop'] = f()",
        "kw = {**options}",
    ],
)
def test_a_dict_that_is_not_all_known_gets_a_note(
    found_in, change, monkeypatch
):
    monkeypatch.setattr(doctor_rules, "find_spec", lambda name: True)
    (found,) = found_in(OPTIONS.replace("#", change))
    assert found.level == "note"
    assert "uvicorn.run(loop=...) is computed" in found.what


def test_a_loop_that_is_assigned_to_a_config_counts(found_in, monkeypatch):
    monkeypatch.setattr(doctor_rules, "find_spec", lambda name: True)
    (found,) = found_in(f"{CONFIG}self.loop = new()")
    assert "uvicorn.Config() takes uvloop" in found.what
    fits = "loop = 'fastloop:new_event_loop'"
    assert found_in(f"{CONFIG}config.{fits}") == []
    assert found_in(f"{CONFIG}def f(config):\n    config.{fits}") == []
    (found,) = found_in(f"{CONFIG}config.loop = 'uvloop'")
    assert 'app.py:3: uvicorn.Config(loop="uvloop") picks' in found.what


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio\nasyncio.run(main())",
        "import fastloop\nfastloop.run(main())",
        "import uvicorn\nuvicorn.run('a', loop='fastloop:new_event_loop')",
        "def install(): pass\ninstall()",
        "isinstance(a, int)",
        "worker_class = f()",
    ],
)
def test_what_is_fine_is_not_reported(found_in, source):
    assert found_in(source) == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import asyncio\nasyncio.set_event_loop_policy(p)", "3.16"),
        (
            "import uvloop as u\nisinstance(a, (int, u.Loop))",
            "isinstance(..., uvloop.Loop) is false on fastloop",
        ),
        ("import uvicorn\nuvicorn.run('a', loop=f())", "is computed when"),
        ("import gunicorn\nworker_class = f()", "is computed when"),
    ],
)
def test_what_may_matter_is_said_in_a_note(found_in, source, says):
    (found,) = found_in(source)
    policies = "3.16" in says and sys.version_info >= (3, 16)
    assert found.level == ("wrong" if policies else "note")
    assert says in found.what


@pytest.mark.parametrize(
    "use",
    [
        "self.make = uvloop.new_event_loop",
        "makers['fast'] = uvloop.new_event_loop",
        "makers = {'fast': uvloop.Loop}",
        "def f():\n    return uvloop.EventLoopPolicy",
        "class Server:\n    policy = uvloop.EventLoopPolicy",
        "serve(uvloop.new_event_loop)",
        "serve(make=uvloop.new_event_loop)",
        "make = uvloop.new_event_loop\nserve(make)",
    ],
)
def test_a_loop_that_is_passed_on_gets_a_note(found_in, use):
    (found,) = found_in(f"import uvloop\n{use}")
    assert found.level == "note"
    last = 2 + use.count("\n")
    assert f"app.py:{last}: uvloop." in found.what
    assert found.what.endswith("may make the program use uvloop")


@pytest.mark.parametrize(
    "use",
    [
        "x: uvloop.Loop = f()",
        "def f(x: uvloop.Loop) -> uvloop.Loop: ...",
        "issubclass(x, uvloop.Loop)",
        "import typing\ntyping.cast(uvloop.Loop, x)",
        "kind = type(x) is uvloop.Loop",
        "self.kind = x == uvloop.Loop",
    ],
)
def test_a_loop_that_is_a_type_is_fine(found_in, use):
    assert found_in(f"import uvloop\n{use}") == []


def test_loops_of_a_programs_tests_are_said_in_notes(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    file = tmp_path / "tests" / "test_it.py"
    file.write_text("import uvloop\nuvloop.install()")
    monkeypatch.chdir(tmp_path)
    (found,) = Program(tmp_path).findings([])
    assert found.level == "note"
    assert found.what.endswith("uvloop.install() picks uvloop, in a test")
    assert wrong(Program(file).findings([])) == [
        "uvloop.install() picks uvloop"
    ]


def test_names_that_are_bound_often_are_read(found_in):
    changes = "".join(
        f"    {a} = {a}.replace({b}, {c}) or {b}\n"
        for _ in range(20)
        for a, b, c in ("xyz", "yzx", "zxy")
    )
    source = f"import uvloop\n\ndef f(x, y, z):\n{changes}    x()\nf()\n"
    assert found_in(source) == []
    (found,) = found_in(
        source.replace("    x()", "    x = uvloop.run\n    x()")
    )
    assert found.what.endswith("uvloop.run() picks uvloop")


def test_a_file_alone_gets_names_from_the_files_beside_it(
    found_in, tmp_path, monkeypatch
):
    monkeypatch.setattr(doctor_rules, "find_spec", lambda name: True)
    (tmp_path / "settings.py").write_text("import uvloop\nLOOP = 'uvloop'\n")
    source = (
        "import uvicorn\nfrom settings import LOOP, uvloop as u\n"
        "uvicorn.run('a:b', loop=LOOP)\nu.install()\n"
    )
    assert wrong(found_in(source)) == [
        'uvicorn.run(loop="uvloop") picks another loop',
        "uvloop.install() picks uvloop",
    ]


@pytest.fixture
def imports(tmp_path):
    """imports(files) writes a program; returns what is wrong in app.py."""

    def imports(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return wrong(Program(tmp_path / "app.py").findings([]))

    return imports


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("import lib", {"lib.py": INSTALLS}),
        ("from shop.loops import f", {"shop/loops.py": INSTALLS}),
        ("import shop.web", {"shop/__init__.py": INSTALLS}),
        ("import a", {"a.py": "def f():\n    import b", "b.py": INSTALLS}),
        (
            "from shop import web",
            {
                "shop/__init__.py": "",
                "shop/web.py": "from .loops import f",
                "shop/loops.py": f"from . import web\n{INSTALLS}",
            },
        ),
    ],
)
def test_the_files_that_a_file_imports_are_read(imports, source, files):
    assert imports({"app.py": source, **files}) == [
        "uvloop.install() picks uvloop"
    ]


@pytest.mark.parametrize(
    ("source", "files"),
    [
        ("import asyncio", {"lib.py": INSTALLS}),
        ("import json", {"json.py": INSTALLS}),
        ("import lib", {"lib.py": f"if __name__ == '__main__':\n  {CALL}"}),
        (
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    import lib",
            {"lib.py": INSTALLS},
        ),
        ("import lib", {"lib.py": "x = = 3"}),
    ],
)
def test_what_a_file_does_not_import_is_not_read(imports, source, files):
    assert imports({"app.py": source, **files}) == []


def test_a_file_inside_a_package_finds_the_rest_of_it(tmp_path):
    for name in ("shop", "shop/web"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "shop" / "loops.py").write_text(INSTALLS)
    path = tmp_path / "shop" / "web" / "app.py"
    for source in ("from ..loops import f", "import shop.loops"):
        path.write_text(source)
        found = wrong(Program(path).findings([]))
        assert found == ["uvloop.install() picks uvloop"]


def test_a_file_that_cannot_be_parsed_is_wrong(fastloop_command):
    fastloop_command.write("syn.py", "import asyncio\nx = = 3\n")
    done = fastloop_command("doctor", "syn.py", status=1)
    says = "WRONG  syn.py: not read: invalid syntax (syn.py, line 2)\n"
    assert says in done.stdout
    assert "1 thing is wrong." in done.stdout
    assert "note   syn.py: not read" in fastloop_command("doctor", ".").stdout


@pytest.mark.parametrize("name", ["passwd", "notes.txt"])
def test_a_file_of_another_kind_is_refused(fastloop_command, name):
    fastloop_command.write(name, "import uvloop\n")
    assert fastloop_command.refused("doctor", name) == (
        f"{name} is neither a Python file nor a file that starts programs, "
        "such as a Procfile or a shell script"
    )


@pytest.mark.parametrize(
    ("first", "text"),
    [
        ("#!/usr/bin/env python3", INSTALLS),
        ("#!/bin/sh", "exec uvicorn app:app --loop uvloop\n"),
    ],
)
def test_a_script_without_a_suffix_is_read(fastloop_command, first, text):
    fastloop_command.write("serve", f"{first}\n{text}")
    done = fastloop_command("doctor", "serve", status=1)
    assert "WRONG  serve:" in done.stdout


def test_every_server_of_a_start_file_is_read(found_in):
    text = (
        "web: uvicorn a:b --loop uvloop\n"
        'api: sh -c "cd api && granian --loop=rloop a:b; true"\n'
        "job: HTTP=1 python -m hypercorn -k uvloop a:b\n"
        'old: GUNICORN_CMD_ARGS="-k gevent" gunicorn a:b\n'
    )
    assert [f.split(" ", 1)[0] for f in wrong(found_in(text, "Procfile"))] == [
        "uvicorn",
        "granian",
        "hypercorn",
        "gunicorn",
    ]


def test_environment_variables_that_choose_a_loop_are_found():
    found = environment({"UVICORN_LOOP": "uvloop", "SANIC_USE_UVLOOP": "0"})
    assert [f.level for f in found] == ["wrong"]
    assert "UVICORN_LOOP=fastloop:new_event_loop" in found[0].fix
    (found,) = environment({"GUNICORN_CMD_ARGS": "--worker-class gevent"})
    assert found.what.startswith("gunicorn --worker-class gevent")
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


#: As uvloop does, it defines install() at its first use and sets a policy.
FAKE = """
import asyncio

def __getattr__(name):
    if name != "install":
        raise AttributeError(name)
    def install():
        if hasattr(asyncio, "set_event_loop_policy"):
            asyncio.set_event_loop_policy(None)
    return install
"""


def test_the_import_of_a_program_is_watched(fastloop_command):
    """Where the text does not show it: the name of the call is computed."""
    pytest.importorskip("psutil", reason="psutil is not installed")
    fastloop_command.write("uvloop.py", FAKE)
    source = "import uvloop\nprint(1)\ngetattr(uvloop, 'in' + 'stall')()\n"
    fastloop_command.write("app.py", source)
    for program in ("app:app", "app.py"):
        fastloop_command("doctor", program)
        done = fastloop_command("doctor", "--import", program, status=1)
        says = "app.py:3: uvloop.install(), called by the import, picks uvloop"
        assert says in done.stdout
        assert "1 thing is wrong." in done.stdout
        assert "set_event_loop_policy" not in done.stdout
    fastloop_command.write("app.py", "import uvloop\n")
    done = fastloop_command("doctor", "--import", "app:app")
    assert "ok     importing app:app calls nothing that" in done.stdout


def test_an_import_that_fails_is_reported(fastloop_command):
    pytest.importorskip("psutil", reason="psutil is not installed")
    fastloop_command.write("app.py", "raise OSError('no such day')")
    done = fastloop_command("doctor", "--import", "app:app", status=1)
    assert (
        "the import of app:app ended with status 1: OSError: no such day"
    ) in done.stdout


def test_without_psutil_an_import_is_refused(fastloop_command):
    fastloop_command.write("app.py", "")
    fastloop_command.write(
        "hide.py",
        "import runpy, sys\n"
        "sys.modules['psutil'] = None\n"
        "sys.argv = ['doctor', 'doctor', '--import', 'app:app']\n"
        "runpy.run_module('fastloop', run_name='__main__')\n",
    )
    done = fastloop_command("run", "hide.py", status=2)
    assert one_sentence(done.stderr) == (
        "doctor --import needs psutil: pip install '.[cli]' in the checkout "
        "of fastloop"
    )


def test_an_import_needs_a_program(fastloop_command):
    fastloop_command.write("app.py", "")
    needs = "module:app or a Python file"
    refused = fastloop_command.refused
    assert refused("doctor", "--import", ".") == f"--import needs {needs}"
    assert refused("doctor", "--import").endswith(f"a program: {needs}")


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


def test_help_needs_no_core(fastloop_command):
    code = (
        "import sys; sys.modules['fastloop._core'] = None; "
        "from fastloop.cli import main; main(['info', '--help'])"
    )
    done = fastloop_command.python("-c", code)
    assert "usage: python -m fastloop info" in done.stdout


def test_info_says_if_something_replaced_the_default(fastloop_command):
    done = fastloop_command("run", "-m", "fastloop", "info")
    assert "fastloop.loop.Loop, put in the place" in done.stdout


@pytest.mark.parametrize(
    ("text", "level", "says"),
    [
        ('uvicorn a:b --loop "${LOOP:-uvloop}"', "wrong", "--loop uvloop"),
        ("uvicorn a:b --loop ${LOOP:-asyncio}", "wrong", "--loop asyncio"),
        ("LOOP=uvloop\nuvicorn a:b --loop $LOOP", "wrong", "--loop uvloop"),
        ("export L='uvloop'\nuvicorn a:b --loop ${L}", "wrong", "uvloop"),
        ("L=${L:-uvloop}\nuvicorn a:b --loop ${L}", "wrong", "uvloop"),
        ("Environment=L=uvloop\nExecStart=uvicorn a:b --loop $L", "wrong", ""),
        ('uvicorn a:b --loop "$LOOP"', "note", "--loop $LOOP is computed"),
        ("uvicorn a:b --loop ${LOOP}", "note", "--loop $LOOP is computed"),
        ('gunicorn a:b -k "$WORKER"', "note", "-k $WORKER is computed"),
        ('gunicorn a:b -k "$WORKER_CLASS"', "note", "is computed"),
    ],
)
def test_variables_in_a_command_have_their_values(found_in, text, level, says):
    (found,) = found_in(f"#!/bin/sh\n{text}\n", "start.sh")
    assert found.level == level
    assert says in found.what


FITS = "LOOP=fastloop:new_event_loop"


@pytest.mark.parametrize(
    "text",
    [
        "uvicorn a:b --loop ${LOOP:-fastloop:new_event_loop}",
        f"{FITS}\nuvicorn a:b --loop $LOOP",
        f"export UVICORN_{FITS}\nuvicorn a:b --loop $UVICORN_LOOP",
    ],
)
def test_variables_that_fit_are_fine(found_in, text):
    assert found_in(text, "start.sh") == []


FOLDED = """
command: {}
  uvicorn app:app
  --loop {}
ports: []
"""


@pytest.mark.parametrize("sign", [">", ">-"])
def test_text_that_yaml_folds_is_one_command(found_in, sign):
    fits = FOLDED.format(sign, "fastloop:new_event_loop")
    assert wrong(found_in(fits, "compose.yml")) == []
    (found,) = wrong(found_in(FOLDED.format(sign, "uvloop"), "compose.yml"))
    assert "--loop uvloop" in found


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (["uvicorn"], ["app:app", "--loop", "uvloop"]),
        (["python", "-m", "gunicorn"], ["-k", "gevent", "app:app"]),
    ],
)
@pytest.mark.parametrize("start", ["  ", "- "])
def test_a_command_and_its_arguments_in_yaml_are_one(
    found_in, command, arguments, start
):
    """Each of the two may be a block or stand in brackets."""

    def forms(words):
        return f" {words}", "".join(f"\n    - {word}" for word in words)

    for first in forms(command):
        for second in forms(arguments):
            text = f"{start}command:{first}\n  args:{second}\n  env: []\n"
            (found,) = wrong(found_in(text, "pod.yaml"))
            assert found.startswith(command[-1])


def test_a_folder_is_read_but_for_its_pipes(tmp_path):
    os.mkfifo(tmp_path / "Procfile")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "app.py").write_text("")
    (tmp_path / "tool").write_text(f"#!/usr/bin/env python3\n{INSTALLS}")
    (tmp_path / "LICENSE").write_text(INSTALLS)
    assert wrong(Program(tmp_path).findings([])) == [
        "uvloop.install() picks uvloop"
    ]


def test_a_file_that_the_parser_has_no_memory_for_is_a_note(tmp_path):
    (tmp_path / "deep.py").write_text(f"print({'-' * 100_000}1)")
    (tmp_path / "app.py").write_text("")
    (found,) = Program(tmp_path).findings([])
    assert found.level == "note"
    assert re.search("deep.py: not read: .+", found.what)


@pytest.mark.parametrize("end", ["import sys; sys.exit()", "os._exit(0)"])
def test_an_import_that_ends_the_process_is_reported(fastloop_command, end):
    """With status 0, as by an unguarded call of main()."""
    pytest.importorskip("psutil", reason="psutil is not installed")
    fastloop_command.write("app.py", f"import os\n{end}")
    done = fastloop_command("doctor", "--import", "app.py", status=None)
    assert "Traceback" not in done.stderr
    if "_exit" in end:
        assert "the import of app.py ended the process" in done.stdout


def test_a_bracket_without_its_pair_hides_no_other_line(found_in):
    text = "v=$(grep '^\\[' setup.cfg)\nexec uvicorn app:app --loop uvloop\n"
    (found,) = wrong(found_in(text, "start.sh"))
    assert found.startswith("uvicorn --loop uvloop")
    text = 'logformat = "[%(t)s"\nworker_class = "uvloop"\n'
    assert wrong(found_in(text, "hypercorn.toml"))


def test_text_that_the_output_cannot_encode_is_escaped(fastloop_command):
    fastloop_command.write("caf\xe9.py", "")
    done = fastloop_command.python(
        *("-m", "fastloop", "doctor", "caf\xe9.py"),
        PYTHONIOENCODING="ascii:strict",
        PYTHONUTF8="1",
    )
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9.py" in done.stdout


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (codecs.BOM_UTF8, b""),
        (b"# coding: latin-1\ncaf\xe9 = 1\n", b""),
        (b"", b"'\\d'\n"),  # a warning of the compiler
    ],
)
def test_a_file_is_read_as_python_reads_it(tmp_path, start, end):
    path = tmp_path / "app.py"
    path.write_bytes(start + INSTALLS.encode() + end)
    assert wrong(Program(path).findings([])) == [
        "uvloop.install() picks uvloop"
    ]


def test_an_archive_is_refused(fastloop_command):
    with zipfile.ZipFile(fastloop_command.folder / "app.pyz", "w") as archive:
        archive.writestr("__main__.py", INSTALLS)
    assert fastloop_command.refused("doctor", "app.pyz") == (
        "app.pyz is an archive: name the folder that it was made from"
    )


def test_a_file_that_is_missing_is_no_package(fastloop_command):
    sentence = fastloop_command.refused("doctor", "pytest.py")
    assert sentence == "there is no file pytest.py"


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {
                "/proc/self/cgroup": "0::/app.slice/web.service",
                "/sys/fs/cgroup/app.slice/web.service/cpu.max": "max 100000",
                "/sys/fs/cgroup/app.slice/cpu.max": "150000 100000",
                "/sys/fs/cgroup/cpu.max": "400000 100000",
            },
            "this process may use 1.5 CPUs",
        ),
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/docker/web",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            "this process may use 0.5 of a CPU: ",
        ),
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            "no quota",
        ),
    ],
    ids=["a parent", "version 1", "none"],
)
def test_the_least_quota_of_the_control_groups_counts(
    monkeypatch, files, says
):
    monkeypatch.setattr(doctor, "text_of", lambda path: files.get(path, ""))
    assert any(says in found.what for found in doctor.machine(runs=True))


def test_a_loop_that_does_not_run_is_not_to_be_installed(monkeypatch, capsys):
    def tls_engine():
        raise OSError(1, "Operation not permitted")

    files = {"/proc/self/status": "Seccomp:\t2"}
    monkeypatch.setattr(doctor, "text_of", lambda path: files.get(path, ""))
    monkeypatch.setattr(doctor.info, "tls_engine", tls_engine)
    assert doctor.main([]) == 1
    shown = capsys.readouterr().out
    assert "WRONG  fastloop's loop does not run here: [Errno 1]" in shown
    assert "active and may be why fastloop's loop does not run" in shown
    assert "pip install" not in shown
