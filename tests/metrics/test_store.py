"""Rollups and samples as they are stored, on every database."""

from __future__ import annotations

import threading
import time

import pytest

from django_tasks.backends import get_broker
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.database.metrics import Metrics
from django_tasks.metrics.rows import DAY, EVER, HOUR, KEPT, MINUTE, NUMBERS, SAMPLES_KEPT, QueueSample, Rollup
from django_tasks.models import TaskResult
from tests.databases import TestDatabase
from tests.rows import ago, failure, saved, waiting


def numbers(**given: float) -> list[float]:
    return [given.get(name, 0) for name in NUMBERS]


@pytest.fixture
def metrics(database: TestDatabase) -> Metrics:
    return get_broker().metrics


def test_numbers_are_added_to_every_length(metrics: Metrics) -> None:
    metrics.add({("mail", "send"): numbers(succeeded=2, wait_03=2, run_seconds=0.5)})
    metrics.add({("mail", "send"): numbers(succeeded=1, failed=1, run_seconds=0.25), ("", ""): numbers(other=1)})
    for length in (HOUR, DAY, EVER):
        row = Rollup.objects.get(length=length, name="send")
        assert (row.queue, row.succeeded, row.failed, row.run_seconds) == ("mail", 3, 1, 0.75)
        assert row.wait_03 == 2  # type: ignore[attr-defined]
        assert row.moment % (length or 1) == 0
        assert (row.moment > 0) == (length > 0)
    minutes = Rollup.objects.filter(length=MINUTE, name="send")
    assert sum(row.succeeded for row in minutes) == 3  # the clock may have struck between the two
    assert {row.moment % MINUTE for row in minutes} == {0}


def test_adding_tells_by_how_much_the_clocks_differ(metrics: Metrics) -> None:
    assert abs(metrics.add({})) < 5
    assert not Rollup.objects.exists()


def test_many_keys_are_added_whole(metrics: Metrics) -> None:
    metrics.add({("q", f"task{index:03}"): numbers(succeeded=index) for index in range(150)})
    assert {row.name: row.succeeded for row in Rollup.objects.filter(length=EVER)} == {
        f"task{index:03}": index for index in range(150)
    }


def test_workers_that_write_at_the_same_time_lose_nothing(database: TestDatabase) -> None:
    errors: list[BaseException] = []

    def write(turn: int) -> None:
        broker = DatabaseBroker()
        try:
            for _ in range(10):
                names = ["a", "b", "c"] if turn % 2 else ["c", "b", "a"]
                broker.metrics.add({("q", name): numbers(succeeded=1) for name in names})
        except BaseException as error:
            errors.append(error)
        finally:
            broker.close()

    threads = [threading.Thread(target=write, args=(turn,)) for turn in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [row.succeeded for row in Rollup.objects.filter(length=EVER)] == [30, 30, 30]


def test_a_sample_says_what_each_queue_holds_once_a_minute(metrics: Metrics) -> None:
    saved(
        [
            waiting(queue="mail", due_at=ago(100)),
            waiting(queue="mail", due_at=ago(5)),
            waiting(queue="mail", due_at=ago(-500)),
            waiting(queue="slow", state="STARTED", worker_id=1),
            waiting(queue="held", state="LIMITED", limit_key=""),
        ]
    )
    assert metrics.sample()
    rows = {row.queue: row for row in QueueSample.objects.order_by("-moment")}
    mail, slow, held, whole = (rows[name] for name in ("mail", "slow", "held", ""))
    assert (mail.waiting, mail.scheduled, mail.running) == (2, 1, 0)
    assert 99 < mail.oldest < 160
    assert (slow.waiting, slow.running, slow.oldest) == (0, 1, 0)
    assert (held.waiting, held.scheduled, held.running) == (0, 0, 0)
    assert (whole.waiting, whole.scheduled, whole.running, whole.oldest) == (2, 1, 1, mail.oldest)
    if time.time() % 60 < 55:  # else the clock may strike now
        assert not metrics.sample()


def test_an_empty_site_is_sampled_too(metrics: Metrics) -> None:
    assert metrics.sample()
    assert list(QueueSample.objects.values_list("queue", "waiting")) == [("", 0)]


def test_what_is_old_is_deleted_and_the_rest_stays(metrics: Metrics) -> None:
    now = int(time.time())
    for length, kept in KEPT.items():
        for age in (0, (kept or 10**9) + 2 * DAY):
            Rollup.objects.create(length=length, moment=now - age, queue="q", name="n")
    for age in (0, SAMPLES_KEPT + DAY):
        QueueSample.objects.create(moment=now - age, queue="", waiting=0, scheduled=0, running=0, oldest=0)
    assert metrics.prune() == 4
    assert Rollup.objects.filter(moment__gte=now - 60).count() == len(KEPT)
    assert QueueSample.objects.get().moment == now


def test_what_was_ended_from_outside_is_found_in_the_ledger(metrics: Metrics) -> None:
    row: TaskResult = saved([failure(queue="mail")])[0]
    [task] = saved([waiting()])
    assert metrics.ended([str(row.pk), str(task.pk)]) == [("mail", row.name, "FAILURE")]
    assert metrics.ended([]) == []
