"""The race has a case for everything that it promises to measure."""

import subprocess
import sys

import pytest

from .conftest import TOP

BENCHMARKS = TOP / "benchmarks"

#: What is promised, and the keys of the rows that keep the promise.
PROMISED = {
    "TLS echo, Protocol": "echo_tls_64x1k echo_tls_64x16k",
    "TLS echo, BufferedProtocol": (
        "echo_tls_buffered_64x1k echo_tls_buffered_64x16k"
    ),
    "TLS echo, streams": "echo_tls_streams_64x1k echo_tls_streams_64x16k",
    "TLS bulk receive": "tls_bulk",
    "TLS full handshake and close": "tls_handshake",
    "an idle TLS connection": "idle_tls",
    "streams": (
        "echo_streams_64x64b echo_streams_64x1k echo_streams_64x16k "
        "echo_streams_8x100k"
    ),
    "readline, readexactly": "readline readexactly",
    "one way": "streams_receive protocol_receive protocol_send",
    "sock_*": "sock_64x64b sock_64x1k sock_64x16k sock_8x100k",
    "connect, one echo, close": "connect",
    "an idle connection": "idle_protocol idle_streams",
    "HTTP servers": "aiohttp aiohttp_cpu uvicorn uvicorn_cpu",
    "executor": "executor executor_10 executor_64",
    "callbacks in one turn": "turn_10k turn_1m",
    "timers due at once": "due_300k timers_due_zero timers_due_heap",
    "gather": "gather_new gather_200k gather_1000",
    "timers pending": "pending_1m",
    "UDP, Unix, pipe, spawn, sendfile": "udp unix pipe spawn sendfile",
    "applications": (
        "websockets aiohttp_json fastapi redis_1 redis_32 asyncpg_1 "
        "asyncpg_32 proxy aiofiles to_thread"
    ),
    "two threads": (
        "two_threads two_threads_echo two_threads_tls two_threads_streams"
    ),
    "start": "import memory",
    "tail": "tail_p50 tail_p99 tail_p999",
    "behind a call_soon chain": "tail_chain_p99",
    "beside a bulky connection": "tail_bulky_p99 tail_bulky_alone_p99",
    "beside a handshake storm": "tail_storm_p99 tail_storm_alone_p99",
}
LIST_ROWS = """
import sys
sys.path.insert(0, sys.argv[1])
from harness import build, case, daemons
for one in case.all_cases().values():
    assert one.group in case.GROUPS, one.name
    assert set(one.programs) <= set(build.PROGRAMS), one.name
    assert set(one.daemons) <= set(daemons.DAEMONS), one.name
    print(*(row.key for row in one.rows))
"""


@pytest.fixture(scope="module")
def rows():
    """Return the keys of all rows; asked in an interpreter of its own, for
    the names of the benchmarks' packages are common ones."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_ROWS, str(BENCHMARKS)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("promise", PROMISED)
def test_every_row_is_a_case(rows, promise):
    assert set(PROMISED[promise].split()) <= set(rows)


def test_no_key_is_used_twice(rows):
    assert len(rows) == len(set(rows))


def test_race_installs_what_its_cases_need():
    text = (TOP / "pyproject.toml").read_text(encoding="utf-8")
    for package in ("zuvloop", "rloop", "rsloop", "aiofastnet"):
        assert f'"{package}"' in text


WRITE_README = """
import json
import sys
sys.path.insert(0, sys.argv[1])
from harness import chart, readme
def row(key, own, group="core"):
    figures = {"asyncio": 0.5, "uvloop": 1.0, "rloop": 1.25, "fastloop": own}
    return {
        "row": key, "case": key, "title": key, "group": group, "unit": "1/s",
        "better": "more", "aside": False, "reach": "",
        "loops": {
            loop: {"figure": figure, "repetitions": [], "error": None}
            for loop, figure in figures.items()
        },
    }
data = {
    "rows": [row(key, 1.5) for key in chart.ROWS],
    "machine": {"python": "3.14.8 (main)", "cpus": [0, 1]},
    "settings": {"repeat": 5},
    "cut": "time was up",
}
data["rows"][0] = row(data["rows"][0]["row"], 1.1)
data["rows"][1] = row(data["rows"][1]["row"], 1.24)
also = {"rows": [row("two_threads", 0.9)]}
readme.write(sys.argv[2], data, also)
"""


def write_readme(path):
    return subprocess.run(
        [sys.executable, "-c", WRITE_README, str(BENCHMARKS), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_race_writes_the_readme(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- race: begin -->\nold\n<!-- race: end -->\nafter\n"
    )
    done = write_readme(readme)
    assert done.returncode == 0, done.stderr
    lines = readme.read_text().splitlines()
    assert lines[:2] == ["before", "<!-- race: begin -->"]
    assert lines[-2:] == ["<!-- race: end -->", "after"]
    assert "old" not in lines
    assert "| TCP echo, Protocol | 0.50 | 1.25 (rloop) | 1.10 |" in lines
    assert "| TCP echo, streams | 0.50 | 1.25 (rloop) | **1.24** |" in lines
    text = " ".join(lines)
    assert (
        "Of all 9 rows fastloop is first in 6, even with the best in 1 and"
        in text
    )
    assert "and behind in 2." in text
    assert "medians of up to 5 alternating runs." in text


def test_a_readme_without_its_section_is_left_as_it_is(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing\n")
    done = write_readme(readme)
    assert done.returncode == 1
    assert "has no section for the race" in done.stderr
    assert readme.read_text() == "nothing\n"


def test_the_readme_has_a_section_for_the_race():
    text = (TOP / "README.md").read_text()
    assert text.count("<!-- race: begin -->\n") == 1
    assert text.count("<!-- race: end -->\n") == 1
