"""Two workers of gunicorn, scraped by Prometheus."""

from __future__ import annotations

import http.client
import re

import pytest
from interop_process import PATIENCE, child_env
from test_more_than_one_process import until

pytest.importorskip("gunicorn", reason="gunicorn is not installed")
pytest.importorskip("uvicorn_worker", reason="uvicorn-worker is not installed")
pytest.importorskip("prometheus_client", reason="it is not installed")

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

    until(both)
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
    until(lambda: total(served, accepted) >= before + REQUESTS)
    until(lambda: total(served, calls) >= REQUESTS)
    assert total(served, "fastloop_connections_lost_total") == 0
