"""What workers say that they know: written once for all of a release, and read by those who cannot import it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test.utils import CaptureQueriesContext

from django_tasks import task_names
from django_tasks.backends import get_broker
from django_tasks.backends.base import Queues, WorkerInfo
from django_tasks.conf import settings
from django_tasks.models import TaskNames, Worker
from tests.databases import TestDatabase
from tests.rows import ago

MANY = [f"warehouse.forecasts.tasks.compute_number_{number:03}" for number in range(500)]


def start(name: str, *names: str, tells: bool = True, lease: float = 20.0) -> int:
    """Start the lease of a worker that knows these tasks."""
    told = task_names.declare(names) if tells else None
    return get_broker().register(WorkerInfo(name, "h", 1, "prefork", 2, Queues(), "1", lease, told))


def test_workers_of_one_release_share_what_they_say(database: TestDatabase) -> None:
    for number in range(10):
        start(f"w{number}@h", *MANY)
    start("other@h", "shop.forecast", MANY[0])
    assert TaskNames.objects.count() == 2
    known = task_names.of_workers()
    assert len(known.workers) == 501
    assert known.workers["shop.forecast"] == ("other@h",)
    assert known.workers[MANY[0]] == ("other@h", *(f"w{number}@h" for number in range(10)))
    assert known.certain


def test_no_heartbeat_and_no_list_of_workers_touches_the_names(database: TestDatabase) -> None:
    worker = start("w@h", *MANY)
    with CaptureQueriesContext(database.connection) as queries:
        list(Worker.objects.all())
    broker = get_broker()
    assert broker.renew(worker, processed=7)
    broker.restate(worker, queues=Queues(("mail",)), concurrency=4)
    assert not any("tasknames" in query["sql"] for query in queries)
    row = Worker.objects.get()
    assert len(row.task_names or "") == 32, "a heartbeat writes the row anew on SQLite and MariaDB"
    assert set(task_names.of_workers().workers) == {*MANY}


@pytest.mark.databases("sqlite")
def test_who_knows_them_is_the_same_for_all_names_of_a_release(database: TestDatabase) -> None:
    """Thousands of names, and as many lists of hundreds of workers, would be slow."""
    for number in range(10):
        start(f"w{number}@h", *MANY)
    assert len({id(nodes) for nodes in task_names.of_workers().workers.values()}) == 1


@pytest.mark.parametrize(
    ("changes", "known", "certain"),
    [
        ({}, True, True),
        ({"draining": True}, True, True),
        ({"stopped_at": ago(1)}, False, False),
        ({"lost_at": ago(1)}, False, False),
        ({"beat_at": ago(21)}, False, False),
        ({"task_names": None}, False, False),
    ],
)
@pytest.mark.databases("sqlite")
def test_only_running_workers_count(
    database: TestDatabase, changes: dict[str, Any], known: bool, certain: bool
) -> None:
    start("w@h", "shop.forecast")
    Worker.objects.update(**changes)
    found = task_names.of_workers()
    assert ("shop.forecast" in found.workers, found.certain) == (known, certain)


@pytest.mark.databases("sqlite")
def test_nothing_is_certain_beside_a_worker_of_a_release_that_does_not_tell(database: TestDatabase) -> None:
    start("new@h", "shop.forecast")
    start("old@h", tells=False)
    found = task_names.of_workers()
    assert found.workers == {"shop.forecast": ("new@h",)}
    assert not found.certain


def test_a_worker_of_an_earlier_release_writes_its_row_as_it_did(database: TestDatabase) -> None:
    """It is started again beside new ones when a release is rolled back."""
    now = get_broker().dialect.now
    with database.connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_tasks_worker (name, hostname, pid, pool, concurrency, queues, version, lease,"
            " started_at, beat_at, idle, draining, processed) VALUES"
            f" ('old@h', 'h', 1, 'prefork', 2, '*', '1', 20.0, {now}, {now}, %s, %s, 0)",
            [False, False],
        )
    start("new@h", "shop.forecast")
    assert Worker.objects.get(name="old@h").task_names is None
    assert task_names.of_workers() == ({"shop.forecast": ("new@h",)}, False)


def test_names_in_capitals_are_others(database: TestDatabase) -> None:
    start("w@h", "shop.Forecast")
    start("v@h", "shop.forecast")
    assert task_names.of_workers().workers == {"shop.Forecast": ("w@h",), "shop.forecast": ("v@h",)}


def test_what_no_worker_says_any_more_is_forgotten_after_a_day(database: TestDatabase) -> None:
    start("w@h", "shop.here")
    start("gone@h", "shop.gone")
    fresh, _ = task_names.declare(["shop.starting"]), task_names.declare(["shop.old"])
    TaskNames.objects.exclude(pk=fresh).update(told_at=ago(90_000))
    Worker.objects.filter(name="gone@h").update(stopped_at=ago(90_000))
    get_broker().prune(settings.RESULT_EXPIRES)
    assert sorted(TaskNames.objects.values_list("names", flat=True)) == ['["shop.here"]', '["shop.starting"]']


def test_a_worker_that_starts_keeps_the_names_that_were_to_be_forgotten(database: TestDatabase) -> None:
    key = task_names.declare(["shop.forecast"])
    TaskNames.objects.update(told_at=ago(90_000))
    assert task_names.declare(["shop.forecast"]) == key
    get_broker().prune({"SUCCESS": timedelta(days=1)})
    assert TaskNames.objects.filter(pk=key).exists()


def test_only_some_workers_are_told_of_by_name() -> None:
    assert task_names.shown(["a@h"]) == "a@h"
    assert task_names.shown(["a@h", "b@h", "c@h"]) == "a@h, b@h, c@h"
    assert task_names.shown(["a@h", "b@h", "c@h", "d@h", "e@h"]) == "a@h, b@h, c@h, …"
