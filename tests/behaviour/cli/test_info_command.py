"""`info`: versions, limits, the default loop."""

import json

import pytest
from cli_helpers import one_sentence

from fastloop.cli import info


def test_info_names_versions_and_the_default_loop(fastloop_command):
    import fastloop

    found = json.loads(fastloop_command("info", "--json").stdout)
    assert found["fastloop"] == fastloop.__version__
    assert found["libuv"] == fastloop.libuv_version()
    assert found["default loop"].startswith("asyncio.")
    assert "asyncio" in found["loops"]
    switched_off = fastloop_command("info", "--json", FASTLOOP_DISABLE="loop")
    assert json.loads(switched_off.stdout)["tls engine"] == found["tls engine"]


@pytest.mark.parametrize(
    ("path", "engine"),
    [("libssl", "sslobject,"), ("native_tls", "asyncio's,")],
)
def test_info_names_the_tls_engine_of_a_switch(fastloop_command, path, engine):
    done = fastloop_command("info", "--json", FASTLOOP_DISABLE=path)
    assert json.loads(done.stdout)["tls engine"].startswith(engine)


def test_where_no_loop_can_be_made_is_a_refusal(fastloop_command):
    done = fastloop_command("info", FASTLOOP_POLLER="epoll", status=2)
    assert one_sentence(done.stderr).startswith("fastloop cannot be used: ")


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


def test_debug_mode_is_named(monkeypatch):
    monkeypatch.setenv("PYTHONDEVMODE", "1")
    assert info.limits()["debug mode"].startswith("on, by PYTHONDEVMODE")
