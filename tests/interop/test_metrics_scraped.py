"""Two workers of gunicorn, scraped by Prometheus; the dashboard's queries."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest
from interop_process import PATIENCE, Process, child_env, free_port

import fastloop

pytest.importorskip("gunicorn", reason="gunicorn is not installed")
pytest.importorskip("uvicorn_worker", reason="uvicorn-worker is not installed")
pytest.importorskip("prometheus_client", reason="it is not installed")

DASHBOARD = Path(fastloop.__file__).parent / "contrib" / "grafana.json"
REQUESTS = 40


def get(port: int, path: str) -> bytes:
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        conn.request("GET", path)
        response = conn.getresponse()
        body = response.read()
        assert response.status == 200, body
        return body
    finally:
        conn.close()


def until(found, what: str):
    """Return the first answer of found() that is true."""
    end = time.monotonic() + PATIENCE
    while not (answer := found()):
        assert time.monotonic() < end, what
        time.sleep(0.05)
    return answer


@pytest.fixture
def served(start, tmp_path):
    """The port of two workers, each of which has answered."""
    child = start(
        *("-m", "gunicorn", "metrics_app:app", "--workers", "2"),
        *("--bind", "127.0.0.1:0", "--graceful-timeout", "5"),
        *("-k", "gunicorn_fastloop.FastloopWorker"),
        env=child_env(PROMETHEUS_MULTIPROC_DIR=str(tmp_path)),
    )
    port = int(child.wait_for(r"Listening at: http://[\d.]+:(\d+)")[1])
    child.wait_for("lifespan begins", times=2)
    workers = set()

    def both():
        workers.add(get(port, "/"))
        return len(workers) == 2

    until(both, "one worker alone answers")
    return port


def total(port: int, name: str) -> float:
    """The sum of a metric's samples over both workers."""
    text = get(port, "/metrics/").decode()
    found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    return sum(map(float, found))


def test_a_scrape_counts_both_workers(served):
    accepted = "fastloop_connections_accepted_total"
    calls = "fastloop_executor_calls_total"
    before = total(served, accepted)
    for _ in range(REQUESTS):
        get(served, "/")
    # A worker exports now and then, and the scrapes are connections, too.
    until(lambda: total(served, accepted) >= before + REQUESTS, accepted)
    until(lambda: total(served, calls) >= REQUESTS, calls)
    assert total(served, "fastloop_connections_lost_total") == 0


def queries() -> list[str]:
    """Each query of the dashboard, as Grafana asks it of one job."""
    text = DASHBOARD.read_text()
    found = re.findall(r'"expr": ("(?:[^"\\]|\\.)*")', text)
    values = {"$__rate_interval": "10s", "$job": ".+", "$loop": ".+"}
    asked = []
    for each in found:
        query = json.loads(each).replace("$instance", ".+")
        for name, value in values.items():
            query = query.replace(name, value)
        assert "$" not in query
        asked.append(query)
    return asked


@pytest.fixture
def prometheus(served, tmp_path):
    """The port of a Prometheus that scrapes the workers each second."""
    if not (program := shutil.which("prometheus")):
        pytest.skip("Prometheus is not installed")
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "scrape_configs:\n"
        "- job_name: app\n"
        "  scrape_interval: 1s\n"
        "  metrics_path: /metrics/\n"
        f"  static_configs: [{{targets: ['127.0.0.1:{served}']}}]\n"
    )
    port = free_port()
    child = Process(
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    child.wait_for("Server is ready to receive web requests")
    yield port
    child.kill()


def test_prometheus_answers_each_query_of_the_dashboard(prometheus, served):
    def answer(query):
        path = "/api/v1/query?" + urlencode({"query": query})
        return json.loads(get(prometheus, path))["data"]["result"]

    asked = queries()
    assert len(asked) > 20
    for query in asked:
        get(served, "/")  # so that what is divided by is not 0
        until(lambda q=query: answer(q), query)
