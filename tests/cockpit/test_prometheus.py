"""``/metrics``, read as Prometheus reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from django_tasks.cockpit.prometheus import TasksCollector
from django_tasks.metrics.rows import EVER
from django_tasks.models import Beat, Limit
from tests.admin.conftest import Browser
from tests.cockpit.site_rows import a_worker, durations, rollup
from tests.databases import TestDatabase
from tests.rows import ago, saved, waiting

URL = "/admin/django_tasks/overview/metrics"
TOKEN = "a token of many letters"  # noqa: S105 - guards nothing
BEARER = {"Authorization": f"Bearer {TOKEN}"}
DASHBOARD = Path(__file__).parents[2] / "docs/how-to/grafana-dashboard.json"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped() -> Samples:
    """Return every sample by its name and labels, after a way through the format."""
    registry = CollectorRegistry()
    registry.register(TasksCollector())
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value for each in families for sample in each.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"django_tasks_{name}", frozenset(labels.items())]


def test_an_empty_site_without_workers_tells_zeros(database: TestDatabase) -> None:
    samples = scraped()
    assert value(samples, "queue_tasks", queue="default", state="waiting") == 0
    assert value(samples, "queue_oldest_seconds", queue="default") == 0
    assert value(samples, "workers", status="online") == 0
    assert value(samples, "periodic_overdue_seconds") == 0


def test_what_waits_is_told_with_no_worker_running(database: TestDatabase) -> None:
    saved([*(waiting(queue="mail", due_at=ago(90)) for _ in range(3)), waiting(queue="mail", due_at=ago(-90))])
    saved([waiting(queue="mail", state="UNROUTABLE")])
    a_worker("gone", seen=500.0)
    Limit.objects.create(kind="queue", name="mail", paused_at=ago(1))
    samples = scraped()
    states = {state: value(samples, "queue_tasks", queue="mail", state=state) for state in ("waiting", "scheduled")}
    assert states == {"waiting": 3, "scheduled": 1}
    assert value(samples, "queue_tasks", queue="mail", state="unroutable") == 1
    assert 89 < value(samples, "queue_oldest_seconds", queue="mail") < 120
    assert value(samples, "queue_workers", queue="mail") == 0
    assert (value(samples, "queue_paused", queue="mail"), value(samples, "queue_paused", queue="default")) == (1, 0)
    assert (value(samples, "workers", status="online"), value(samples, "workers", status="lost")) == (0, 1)


def test_what_was_done_is_counted_since_ever_with_its_durations(database: TestDatabase) -> None:
    saved(
        [
            rollup("q", "a", moment=0, length=EVER, succeeded=3, failed=1, **durations(4, wait=0.003, run=2)),
            rollup("p", "a", moment=0, length=EVER, succeeded=5, **durations(5, wait=0.003, run=1.5)),
            rollup("q", "a", moment=60, succeeded=1000),
        ]
    )
    samples = scraped()
    assert value(samples, "attempts_total", queue="q", task="a", outcome="succeeded") == 3
    assert value(samples, "attempts_total", queue="q", task="a", outcome="failed") == 1
    assert value(samples, "run_seconds_count", task="a") == 9
    assert value(samples, "run_seconds_sum", task="a") == 15.5
    assert value(samples, "run_seconds_bucket", task="a", le="1.024") == 0
    assert value(samples, "run_seconds_bucket", task="a", le="2.048") == 9
    assert value(samples, "wait_seconds_bucket", queue="q", le="0.004") == 4
    assert value(samples, "wait_seconds_bucket", queue="p", le="+Inf") == 5


def test_beats_tell_how_late_they_are(database: TestDatabase) -> None:
    Beat.objects.create(
        name="b", hostname="h", pid=1, version="1", started_at=ago(9), seen_at=ago(1), late=0.25, sent=1
    )
    samples = scraped()
    assert (value(samples, "beats", status="online"), value(samples, "beat_late_seconds")) == (1, 0.25)


def test_no_beat_is_no_beat_in_time(database: TestDatabase) -> None:
    Beat.objects.create(
        name="b", hostname="h", pid=1, version="1", started_at=ago(999), seen_at=ago(900), late=0.25, sent=1
    )
    samples = scraped()
    assert value(samples, "beats", status="lost") == 1
    assert "django_tasks_beat_late_seconds" not in {name for name, _labels in samples}


def test_what_waits_for_others_is_told(database: TestDatabase) -> None:
    saved([waiting(state="WAITING", queue="flow") for _ in range(5)])
    samples = scraped()
    assert value(samples, "queue_tasks", queue="flow", state="blocked") == 5
    assert value(samples, "queue_tasks", queue="default", state="blocked") == 0


def test_a_scrape_asks_a_fixed_number_of_queries(database: TestDatabase) -> None:
    with CaptureQueriesContext(connection) as queries:
        scraped()
    assert len(queries) <= 8


@pytest.mark.databases("sqlite")
def test_the_token_opens_the_metrics_and_nothing_else(database: TestDatabase) -> None:
    client = Client()
    with override_settings(DJANGO_TASKS={"METRICS_TOKEN": TOKEN}):
        answer = client.get(URL, headers=BEARER)
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert b"# TYPE django_tasks_queue_tasks gauge" in answer.content
        openmetrics = {**BEARER, "Accept": "application/openmetrics-text; version=1.0.0"}
        assert client.get(URL, headers=openmetrics).content.endswith(b"# EOF\n")
        for wrong in (
            {},
            {"Authorization": "Bearer x"},
            {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": "Bearer"},
        ):
            refused = client.get(URL, headers=wrong)
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        assert client.post(URL, headers=BEARER).status_code == 405
        assert client.get("/admin/django_tasks/overview/", headers=BEARER).status_code == 302
    assert client.get(URL, headers=BEARER).status_code == 401
    assert client.get(URL, headers={"Authorization": "Bearer "}).status_code == 401


@pytest.mark.databases("sqlite")
def test_who_sees_the_overview_sees_the_metrics(browser: Browser) -> None:
    assert browser("view_overview").get(URL).status_code == 200
    assert browser("view_worker").get(URL).status_code == 401


@pytest.mark.databases("sqlite")
def test_the_dashboard_asks_for_metrics_that_there_are(database: TestDatabase) -> None:
    a_worker("w1")
    Beat.objects.create(name="b", hostname="h", pid=1, version="1", started_at=ago(9), seen_at=ago(1))
    saved([rollup("q", "a", moment=0, length=EVER, succeeded=3, **durations(3, wait=0.003, run=2))])
    told = {name for name, _labels in scraped()}
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    names = {name for expr in asked for name in re.findall(r"django_tasks_\w+", expr)}
    assert len(asked) >= 10
    assert names <= told
