"""What OpenTelemetry gets of a loop: its providers are a process's own."""

import pytest
from builds import HAS_GIL

BEFORE = """
import logging
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter
)

exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
meters, tracers = MeterProvider([reader]), TracerProvider()
has_watchdog = getattr(sys, "_is_gil_enabled", lambda: True)()

def provide(on_end=SimpleSpanProcessor(exporter).on_end):
    processor = SpanProcessor()
    processor.on_end = on_end
    tracers.add_span_processor(processor)
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(meters)

def call(*providers):
    from fastloop.contrib import opentelemetry
    for each in providers or (None, meters):
        opentelemetry.instrument(meter_provider=each)

def spans(kind):
    return [
        span for span in exporter.get_finished_spans()
        if span.name == f"fastloop.{kind}_callback"
        and span.attributes["fastloop.callback"] == "block"
    ]

def measured():
    data = reader.get_metrics_data()
    return {
        (metric.name.rpartition(".")[2], *point.attributes.values()): point
        for resource in (data.resource_metrics if data else ())
        for metric in resource.scope_metrics[0].metrics
        for point in metric.data.data_points
    }

def fail():
    raise KeyError

async def block(kind):
    time.sleep(0.03)
    while has_watchdog and kind and not spans(kind):
        time.sleep(0.001)
    await asyncio.sleep(0)

async def act(then, kind=""):
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 0.02
    loop.set_exception_handler(lambda loop, context: None)
    then()
    await asyncio.create_task(block(kind))
    loop.call_soon(fail)
    await asyncio.sleep(0)
    if kind:
        assert ("utilization", "main") in measured()
"""

CHECK = """
error = "unhandled_exceptions", "main", "KeyError"
assert spans("slow")
assert measured()[error].value == 1
lines = open(__file__).read().splitlines()
for span in spans("slow") + spans("blocked"):
    found = span.attributes
    line = lines[found["code.line.number"] - 1].strip()
    assert line.startswith("time.sleep(" if has_watchdog else "await ")
    assert line in found["code.stacktrace"]
    assert found["code.file.path"] == __file__
    assert found["code.function.name"] == "block"
    assert found["fastloop.eventloop.name"] == "main"
    assert span.end_time - span.start_time >= 20_000_000
"""


@pytest.mark.parametrize(
    ("first", "then", "on"),
    [
        ("provide()", "int", "1"),
        ("", "lambda: [provide(), call()]", "1"),
        ("provide()", "call", "no"),
        ("", "lambda: [call(meters), provide(), call()]", ""),
    ],
)
def test_reports_of_a_loop_are_spans_and_a_count(fast_script, first, then, on):
    fast_script(
        f"{first}\nfastloop.run(act({then}, 'blocked'))\n{CHECK}",
        quiet=False,
        FASTLOOP_OTEL=on,
        FASTLOOP_WATCHDOG="0.02",
    )


def test_a_forked_child_sends_its_own_reports(fast_script):
    fast_script(
        """
provide()
fastloop.run(act(int))
pid = os.fork()
if not pid:
    exporter.clear()
    assert ("utilization", "main") not in measured()  # the parent's
    fastloop.run(act(int))
assert spans("slow")
if pid:
    assert os.waitpid(pid, 0)[1] == 0
""",
        quiet=False,  # CPython warns of forks beside threads
        FASTLOOP_OTEL="1",
    )


def test_what_the_program_has_is_called_too(fast_script):
    """A handler of its own, and a callable that is no ordinary object."""
    done = fast_script(
        """
class Proxy:
    def __getattr__(self, name):
        raise RuntimeError("out of context")
    def __call__(self):
        time.sleep(0.03)

async def main():
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 0.02
    loop.call_exception_handler = lambda found: print([found["exception"]])
    call()
    loop.call_soon(Proxy())
    loop.call_soon(fail)
    await asyncio.sleep(0)

provide()
fastloop.run(main())
"""
    )
    assert done.stdout == "[KeyError()]\n"


def test_a_span_processor_that_fails_is_an_exception_of_the_loop(fast_script):
    fast_script(
        """
provide(lambda span: int("why"))
fastloop.run(act(int))
assert measured()["unhandled_exceptions", "main", "ValueError"].value == 1
""",
        FASTLOOP_OTEL="1",
    )


NEEDS = "fastloop.contrib.opentelemetry needs opentelemetry-api: "


@pytest.mark.parametrize(
    ("first", "says"),
    [
        ("sys.modules['opentelemetry'] = None", f"FASTLOOP_OTEL: {NEEDS}"),
        ("trace.get_tracer = lambda *args: 1 / 0", "FASTLOOP_OTEL: divis"),
    ],
)
def test_what_cannot_be_instrumented_is_a_sentence(fast_script, first, says):
    fast_script(
        f"""
said = []
logging.captureWarnings(True)
logging.root.addHandler(logging.Handler())
logging.root.handlers[0].emit = lambda record: said.append(record.getMessage())
{first}
fastloop.run(act(int))
assert len(said) == 1 and {says!r} in said[0], said
""",
        FASTLOOP_OTEL="1",
    )


@pytest.mark.parametrize("on", ["", "0", "No"])
def test_nothing_is_imported_when_off(fast_script, on):
    code = "new_loop().close(); assert 'fastloop.contrib' not in sys.modules"
    fast_script(code, FASTLOOP_OTEL=on)


@pytest.mark.skipif(not HAS_GIL, reason="there is no watchdog without a GIL")
@pytest.mark.parametrize(("text", "limit"), [("", 0.5), ("0", None)])
def test_the_watchdog_runs_unless_refused(fast_script, text, limit):
    code = """
loop = new_loop()
print(loop._fastloop_watchdog and loop._fastloop_watchdog._limit_s)
loop.close()
"""
    done = fast_script(code, FASTLOOP_OTEL="1", FASTLOOP_WATCHDOG=text)
    assert done.stdout == f"{limit}\n"
