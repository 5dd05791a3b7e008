"""`top` shows no more than its terminal has room for, and what matters first.

A file and its line are what a slow or blocked callback is looked up by.
"""

import json

import pytest

import fastloop
from fastloop.metrics import LoopMetrics
from fastloop.observe.metrics_socket import describe_loop
from fastloop.observe.top import _fitted, _text

TEXT = "  name  value\nshort\nthird\nlast"
PATH = f"/srv/{'a-long-folder/' * 6}app.py"


def test_a_text_is_cut_to_the_terminal():
    assert _fitted(TEXT, 8, 5) == "  name  \nshort\nthird\nlast"
    assert _fitted(TEXT, 80, 4) == "  name  value\nshort\nand 2 more lines"
    assert _fitted(TEXT, 3, 1) == "and"


@pytest.fixture
def found():
    """Return what a process with large figures and long names sends."""
    loop = fastloop.new_event_loop()
    loop.enable_metrics()
    one = json.loads(json.dumps(describe_loop(loop)))
    loop.close()
    for key, value in one["metrics"].items():
        if isinstance(value, int):
            large = 123_456_789_000 if key.endswith("_ns") else 1_234_567
            one["metrics"][key] = large + value
    one["metrics"] = LoopMetrics.from_dict(one["metrics"])
    one["blocked_in"] = [f"{PATH}:17 work"]
    slow = {"name": "Server.handle", "duration_ns": 123_456_789}
    one["slow"] = [slow | {"stack": [f"{PATH}:18 handle"]}]
    blocked = slow | {"gc_time_ns": 1_234_567}
    one["blocked"] = [blocked | {"stack": [f"{PATH}:19 handle"]}]
    about = {"pid": 1234567, "python": "3.14.0", "fastloop": "0.1.0"}
    return {"program": "serve.py", **about, "loops": [one]}


def test_the_line_of_code_stays_at_80_columns(found):
    shown = _fitted(_text(found, None, 80), 80, 100)
    for text in ("17 work", "18 handle: 123 ms, Server", "19 handle: 123 ms"):
        assert f"/app.py:{text}" in shown
    piped = _text(found, None)
    assert all(f"{PATH}:{line} " in piped for line in (17, 18, 19))


def test_figures_fit_80_columns(found):
    found["loops"][0] |= {"blocked_in": [], "slow": [], "blocked": []}
    lines = _text(found, None).split("\n")
    assert [line for line in lines if len(line) > 80] == []
