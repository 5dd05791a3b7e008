"""The metrics of a loop as Prometheus and OpenTelemetry get them.

Each adapter is read by its library's own reader, and the dashboard is compared
with what the library says.
"""

import asyncio
import json
import math
import os
import re
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
from builds import HAS_GIL
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from patience import PATIENCE
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

import fastloop
from fastloop.contrib import opentelemetry, prometheus

pytestmark = pytest.mark.parametrize("loop_kind", ["fastloop"], indirect=True)

DASHBOARD = Path(fastloop.__file__).parent / "contrib" / "grafana.json"


def scrape(registry):
    """The samples of a registry, by name and labels."""
    found = {}
    for line in generate_latest(registry).decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


# -- prometheus ---------------------------------------------------------------


async def test_a_registry_tells_of_the_running_loop(loop):
    registry = CollectorRegistry()
    prometheus.register(registry=registry)
    await asyncio.sleep(0.05)
    found = scrape(registry)
    now = loop.metrics()
    assert (
        0 < found['fastloop_iterations_total{loop="main"}'] <= now.iterations
    )
    slept = found['fastloop_time_seconds_total{loop="main",state="sleep"}']
    assert 0.008 < slept <= now.sleep_time_ns / 1e9
    count = found['fastloop_lag_seconds_count{loop="main"}']
    assert count == found['fastloop_lag_seconds_bucket{le="+Inf",loop="main"}']
    assert 0 < count <= now.lag.count
    buckets = [v for k, v in found.items() if "lag_seconds_bucket" in k]
    assert buckets == sorted(buckets)


def test_a_collector_that_was_unregistered_is_registered_again(loop):
    """As suites do between their tests, with all that a registry has."""
    registry = CollectorRegistry(auto_describe=True)
    for _ in range(2):
        prometheus.register(loop, registry=registry)
        assert 'fastloop_iterations_total{loop="main"}' in scrape(registry)
        registry.unregister(*registry._collector_to_names)
        assert not scrape(registry)


def test_a_metric_of_the_programs_with_such_a_name_is_refused(loop):
    registry = CollectorRegistry(auto_describe=True)
    Gauge("fastloop_ready", "The program's own.", registry=registry)
    for _ in range(2):
        with pytest.raises(ValueError, match="Duplicated"):
            prometheus.register(loop, registry=registry)


@pytest.mark.parametrize("wrong", [None, "1", math.nan, 0])
def test_an_interval_that_is_no_time_is_refused(loop, wrong):
    with pytest.raises((TypeError, ValueError), match="above 0, not|'>'"):
        prometheus.register(loop, interval_s=wrong)


WORKER = """
import asyncio, os, sys, fastloop
from fastloop.contrib import prometheus

async def main():
    prometheus.register(interval_s=0.01)
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 0.01
    for _ in range(3):
        await asyncio.sleep(0.02)
    found = loop.metrics()
    sys.stdout.write(f"{found.iterations} {found.sleep_time_ns}\\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.readline)

fastloop.run(main())
"""


def test_two_workers_are_one_to_a_scrape(loop_kind, tmp_path):
    """The multiprocess mode: any process reads what all have written."""
    folder = str(tmp_path)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    own = [map(int, worker.stdout.readline().split()) for worker in workers]
    iterations, slept_ns = map(sum, zip(*own, strict=True))

    def read():
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)
        return scrape(registry)

    deadline = time.monotonic() + PATIENCE
    name = 'fastloop_iterations_total{loop="main"}'
    found = read()
    # Each writes what it did up to a moment ago.
    while found[name] < iterations and time.monotonic() < deadline:
        found = read()
    for worker in workers:
        worker.communicate("\n", timeout=PATIENCE)
        assert worker.returncode == 0
    assert found[name] >= iterations
    assert found['fastloop_timers{loop="main"}'] >= 2
    assert found['fastloop_timers_high_water{loop="main"}'] < 4
    slept = found['fastloop_time_seconds_total{loop="main",state="sleep"}']
    assert slept > 0.99 * slept_ns / 1e9 > 0
    assert (
        found['fastloop_lag_seconds_count{loop="main"}']
        == found['fastloop_lag_seconds_bucket{le="+Inf",loop="main"}']
        > 0
    )


MULTIPROCESS = """
import asyncio, os, sys, fastloop
from fastloop.contrib import prometheus
from prometheus_client import CollectorRegistry, multiprocess

def shown():
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return registry.get_sample_value(
        "fastloop_iterations_total", {"loop": "main"}
    )

async def spin():
    for _ in range(100):
        await asyncio.sleep(0)
"""


@pytest.fixture
def multiprocess(python, tmp_path):
    """Return a function that runs a program in multiprocess mode."""

    def run(code):
        done = python(
            # prometheus_client closes no file of its own.
            *("-W", "ignore::ResourceWarning", "-c", MULTIPROCESS + code),
            PROMETHEUS_MULTIPROC_DIR=str(tmp_path),
        )
        assert (done.returncode, done.stderr) == (0, "")

    return run


def test_a_second_call_or_a_forked_child_counts_nothing_twice(
    loop_kind, multiprocess
):
    multiprocess("""
loop = fastloop.new_event_loop()
for _ in range(2):
    prometheus.register(loop, interval_s=1e-9)
loop.run_until_complete(spin())
assert 90 < shown() <= loop.metrics().iterations
pid = os.fork()
if not pid:
    prometheus.register(loop, interval_s=1e-9)
    before = shown()
    loop.run_until_complete(spin())
    assert before + 90 < shown() <= loop.metrics().iterations
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
loop.close()
""")


def test_a_write_that_fails_is_not_the_last(loop_kind, multiprocess):
    multiprocess("""
class Loop(fastloop.Loop):
    fails = True

    def metrics(self):
        if self.fails:
            raise OSError("a full disk")
        return super().metrics()

async def main():
    loop = asyncio.get_running_loop()
    reports = []
    loop.set_exception_handler(lambda loop, found: reports.append(found))
    prometheus.register(interval_s=1e-9)
    await asyncio.sleep(0)
    loop.fails = False
    assert reports
    await spin()
    assert 90 < shown() <= loop.metrics().iterations

with asyncio.Runner(loop_factory=Loop) as runner:
    runner.run(main())
""")


# -- the dashboard ------------------------------------------------------------


async def test_the_dashboard_asks_for_what_there_is(loop):
    registry = CollectorRegistry()
    prometheus.register(registry=registry)
    names = {name.partition("{")[0] for name in scrape(registry)}
    nodes = []
    json.loads(DASHBOARD.read_text(), object_hook=nodes.append)
    queries = [node["expr"] for node in nodes if "expr" in node]
    asked = {name for q in queries for name in re.findall(r"fastloop_\w+", q)}
    assert len(queries) > 8
    assert asked <= names
    # And shows all that is counted, but for what follows from the rest.
    shown = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    left_out = {
        re.sub("_(bucket|sum|count)$", "", name) for name in names
    } - shown
    assert left_out <= {"fastloop_polls_total"}


# -- opentelemetry ------------------------------------------------------------


def collected(reader):
    """Return each loop's values, by metric and state, without prefixes."""
    found = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                prefix, dot, name = metric.name.partition(".eventloop.")
                for point in metric.data.data_points:
                    rest = dict(point.attributes)
                    of_loop = found.setdefault(
                        rest.pop(f"{prefix}{dot}name"), {}
                    )
                    state = rest.pop(f"{prefix}{dot}state", "")
                    key = f"{name} {state}".strip()
                    assert not rest and key not in of_loop
                    of_loop[key] = (point.value, metric.unit)
    return found


@pytest.fixture
def otel(request):
    """Return a reader that keeps what it is told, and its provider."""
    # Each MeterProvider of SDK 1.45.2 leaks 26 references.
    request.node.add_marker("no_refcount")
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    yield reader, provider
    provider.shutdown()


async def test_instruments_of_the_running_loop(loop, otel):
    reader, provider = otel
    opentelemetry.instrument(meter_provider=provider)
    await asyncio.sleep(0.05)  # less of it, if the machine is busy
    time.sleep(0.03)
    await asyncio.sleep(0)
    found = collected(reader)["main"]
    assert set(found) == {
        "delay.max",
        "delay.mean",
        "delay.p50",
        "delay.p90",
        "delay.p99",
        "utilization",
        "time active",
        "time idle",
        "blocked_callbacks",
    }
    assert found["delay.max"][0] >= 0.03
    assert 0 < found["utilization"][0] < 1
    assert found["time active"][0] >= 0.03
    assert found["time idle"][0] >= 0.008
    units = {unit for _, unit in found.values()}
    assert units == {"s", "1", "{callback}"}


@pytest.mark.skipif(not HAS_GIL, reason="there is no watchdog without a GIL")
async def test_both_count_what_the_watchdog_reports(loop, otel):
    loop.enable_metrics(watchdog_s=0.02)
    registry, (reader, provider) = CollectorRegistry(), otel
    prometheus.register(registry=registry)
    opentelemetry.instrument(meter_provider=provider)
    await asyncio.sleep(0)
    deadline = time.monotonic() + PATIENCE
    while not loop.metrics().blocked_callbacks and time.monotonic() < deadline:
        time.sleep(0.001)
    await asyncio.sleep(0)
    count = loop.metrics().blocked_callbacks
    assert count >= 1
    name = 'fastloop_blocked_callbacks_total{loop="main"}'
    observed = collected(reader)["main"]["blocked_callbacks"]
    assert observed[0] >= count
    assert scrape(registry)[name] >= count


def test_counters_go_on_with_the_next_loop_of_a_name(loop_kind, otel):
    """A program may call run() again and again."""
    reader, provider = otel
    active = []

    async def main(busy_s):
        opentelemetry.instrument(meter_provider=provider)
        await asyncio.sleep(0)
        time.sleep(busy_s)
        await asyncio.sleep(0)
        active.append(collected(reader)["main"]["time active"][0])

    for busy_s in (0.05, 0.01, 0.01):
        fastloop.run(main(busy_s))
    assert active[0] >= 0.05
    assert active[1] >= active[0] + 0.01
    assert active[2] >= active[1] + 0.01


def test_loops_without_a_name_are_numbered(loop_factory, otel):
    reader, provider = otel
    for _ in range(2):
        loops = loop_factory(), loop_factory()
        for loop in loops * 2:
            opentelemetry.instrument(loop, meter_provider=provider)
        assert set(collected(reader)) == {"main", "main-2"}
        loops[0].close()
        opentelemetry.instrument(loops[1], meter_provider=provider)
        assert set(collected(reader)) == {"main-2"}
        loops[1].close()
        assert not collected(reader)


# -- both ---------------------------------------------------------------------


@pytest.fixture(params=[prometheus, opentelemetry])
def adapter(request, otel):
    """Return what tells an adapter of a loop, and the names it shows."""
    registry, (reader, provider) = CollectorRegistry(True), otel
    if request.param is opentelemetry:
        tell = partial(opentelemetry.instrument, meter_provider=provider)
        return tell, lambda: set(collected(reader))
    row = re.compile(r'fastloop_iterations_total{loop="(.*)"}').fullmatch
    tell = partial(prometheus.register, registry=registry)
    return tell, lambda: {m[1] for m in map(row, scrape(registry)) if m}


def test_two_loops_have_two_names(loop, loop_factory, adapter):
    tell, names = adapter
    tell(loop, name="main")
    other = loop_factory()
    with pytest.raises(ValueError, match="another loop has the name"):
        tell(other, name="main")
    with pytest.raises(TypeError, match="name of a loop is a str, not 3"):
        tell(other, name=3)
    for _ in range(2):
        tell(other, name="other")
    assert names() == {"main", "other"}
    other.close()
    assert names() == {"main"}
    third = loop_factory()
    tell(third, name="other")
    assert names() == {"main", "other"}
    third.close()


def test_a_forked_child_may_use_its_parents_names(loop, adapter):
    """For one loop of its own; and for the parent's, if it uses that."""
    tell = partial(adapter[0], name="main")

    def check(first):
        tell(first)
        tell(first)
        try:
            tell(fastloop.new_event_loop())
        except ValueError:
            return 0
        return 2

    tell(loop)
    for is_own in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some threads of the SDK run
            pid = os.fork()
        if not pid:
            code = 1
            try:
                code = check(fastloop.new_event_loop() if is_own else loop)
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0


def test_another_loop_is_refused(loop_kind):
    async def main():
        for adapt in (prometheus.register, opentelemetry.instrument):
            with pytest.raises(TypeError, match=r"a fastloop\.Loop"):
                adapt()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(main())
