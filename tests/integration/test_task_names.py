"""A task whose code only workers can import: planned in the admin, sent by a beat, run by a worker."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from django_tasks import control, doctor, states, task_names
from django_tasks.models import PeriodicTask, Task, TaskNames, TaskResult, Worker
from django_tasks.registry import tasks
from tests.integration.beats import BUSY, start_beat
from tests.integration.site import SHORT_LEASE, Site
from tests.integration.test_unknown_names import NAME, NEWER

ADD = "/admin/django_tasks/periodictask/add/"
FORM = {
    "name": "Forecast", "task": NAME, "enabled": "on", "args": "[]", "kwargs": "{}", "kind": "interval", "every": "1",
    "period": "seconds", "minute": "*", "hour": "*", "day_of_month": "*", "month_of_year": "*", "day_of_week": "*",
    "zone": "UTC", "missed": "once", "missed_limit": "10", "overlap": "skip", "jitter": "0", "headers": "{}",
    "_save": "Save",
}  # fmt: skip


def plan(**fields: Any) -> PeriodicTask:
    """Fill in the page of a new periodic task, as a person does whose web server cannot import the task."""
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    response = client.post(ADD, {**FORM, **fields})
    assert response.status_code == 302, response.context["adminform"].form.errors
    row: PeriodicTask = PeriodicTask.objects.get()
    return row


@pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")
def test_a_beat_sends_what_only_a_worker_knows(site: Site) -> None:
    assert NAME not in tasks
    site.start("-n", "light@t", "-Q", "default", **SHORT_LEASE)
    site.start("-n", "heavy@t", "-Q", "forecasts", **SHORT_LEASE, IMPORTS=NEWER)
    site.wait_for(lambda: task_names.of_workers().workers.get(NAME) == ("heavy@t",), message="it does not tell")
    plan()
    beat = start_beat(site, *BUSY, TASK_ROUTES={NAME: "forecasts"})
    site.wait_for(lambda: TaskResult.objects.filter(name=NAME).count() >= 2, message="nothing runs")
    assert beat.stop() == 0
    assert set(TaskResult.objects.values_list("state", "queue")) == {(states.SUCCESS, "forecasts")}
    assert "unknown" not in site.workers[0].said(), "the other worker never met it"
    known = control.inspect(["heavy@t"], timeout=10).registered()
    assert known is not None
    assert NAME in known["heavy@t"]


@pytest.mark.databases("sqlite", "redis")
def test_what_nobody_knows_is_kept_if_somebody_says_so_and_waits_for_who_does(site: Site) -> None:
    site.start("-n", "light@t", **SHORT_LEASE)
    plan(task="", other_task=NAME, keep_unknown=NAME, queue="default", priority="7", overlap="allow")
    [problem] = [one for one in doctor.examine() if NAME in one.problem]
    assert (problem.check, problem.level, problem.about) == ("beats", "warning", "Forecast")
    beat = start_beat(site, *BUSY)
    site.wait_for(lambda: Task.objects.unroutable().filter(name=NAME).exists(), message="nothing is set aside")
    site.start("-n", "heavy@t", **SHORT_LEASE, IMPORTS=NEWER)
    site.wait_for(lambda: NAME in task_names.of_workers().workers)
    assert not [one for one in doctor.examine() if "Forecast" in one.problem]
    assert beat.stop() == 0
    site.wait_for(lambda: not Task.objects.exists(), message="what was set aside does not run")
    sent = PeriodicTask.objects.get().total_run_count
    assert set(TaskResult.objects.values_list("state", "priority")) == {(states.SUCCESS, 7)}
    assert TaskResult.objects.count() == sent, "one is lost"


@pytest.mark.databases("sqlite")
def test_a_worker_that_begins_anew_says_again_what_it_knows(site: Site) -> None:
    """Its row was of somebody who is lost; and what it had said may be gone by then."""
    worker = site.start("-n", "w@t", **SHORT_LEASE, IMPORTS=NEWER)
    worker.freeze()
    Worker.objects.update(lost_at=Worker.objects.get().beat_at)
    TaskNames.objects.all().delete()
    worker.thaw()
    site.wait_for(lambda: task_names.of_workers().workers.get(NAME) == ("w@t",), message="it does not tell")
    assert Worker.objects.count() == 2
