"""`info`: versions, limits, the default loop."""

import json

import pytest

from fastloop.cli import info


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
    ("files", "quota"),
    [
        (
            {
                "/proc/self/cgroup": "0::/app.slice/web.service",
                "/sys/fs/cgroup/app.slice/web.service/cpu.max": "max 100000",
                "/sys/fs/cgroup/app.slice/cpu.max": "150000 100000",
                "/sys/fs/cgroup/cpu.max": "400000 100000",
            },
            ", a quota of 1.5",
        ),
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/docker/web",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            ", a quota of 0.5",
        ),
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            "",
        ),
    ],
    ids=["a parent", "version 1", "none"],
)
def test_the_least_quota_of_the_control_groups_counts(
    monkeypatch, files, quota
):
    monkeypatch.setattr(info, "text_of", lambda path: files.get(path, ""))
    assert info.limits()["CPUs"].lstrip("0123456789") == quota


def test_a_limit_is_shown_where_there_is_one(monkeypatch):
    files = {
        "/proc/self/status": "Seccomp:\t2",
        "/proc/sys/net/core/somaxconn": "4096",
    }
    monkeypatch.setattr(info, "text_of", lambda path: files.get(path, ""))
    monkeypatch.setenv("PYTHONDEVMODE", "1")
    found = info.limits()
    assert found["backlog"] == "4,096 connections at most"
    assert found["seccomp"] == "a filter is active"
    assert found["debug mode"].startswith("on, by PYTHONDEVMODE")
