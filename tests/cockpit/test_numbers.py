"""What is read from rollups and samples, on every database."""

from __future__ import annotations

import time

from django_tasks.cockpit import numbers
from django_tasks.cockpit.numbers import SPANS, Numbers
from django_tasks.cockpit.overview import gather
from django_tasks.looks import look
from django_tasks.metrics.rows import EVER, HOUR
from django_tasks.models import QueueSample, Rollup
from tests.cockpit.site_rows import a_worker, durations, rollup
from tests.databases import TestDatabase
from tests.rows import ago, saved, waiting

NOW = 1_800_000_030
MINUTE_AGO = NOW - 60


def a_sample(moment: int, queue: str, count: int) -> QueueSample:
    return QueueSample.objects.create(
        moment=moment // 60 * 60, queue=queue, waiting=count, scheduled=0, running=0, oldest=0
    )


def test_each_bucket_has_its_own_numbers_and_empty_ones_are_there(database: TestDatabase) -> None:
    saved(
        [
            rollup("q", "a", moment=NOW, succeeded=1, **durations(1, wait=0.5, run=0.25)),
            rollup("q", "b", moment=NOW, failed=2, retried=3),
            rollup("p", "a", moment=MINUTE_AGO, succeeded=4),
            rollup("q", "a", moment=NOW - 2 * HOUR, succeeded=100),
            rollup("q", "a", moment=NOW, length=HOUR, succeeded=100),
        ]
    )
    found = list(numbers.by_bucket(SPANS["1h"], NOW).values())
    assert len(found) == 60
    last, before = found[-1], found[-2]
    assert (last.succeeded, last.failed, last.retried, last.ended, last.failure_rate) == (1, 2, 3, 3, 2 / 3)
    assert (last.wait(1), last.run(1)) == (0.512, 0.256)
    assert (before.succeeded, before.wait(0.5), before.failure_rate) == (4, None, 0)
    assert sum(each.ended for each in found) == 7
    assert sum(each.ended for each in numbers.by_bucket(SPANS["1h"], NOW, queue="p").values()) == 4
    assert sum(each.ended for each in numbers.by_bucket(SPANS["1h"], NOW, name="b").values()) == 2


def test_every_span_reads_what_is_kept_as_long(database: TestDatabase) -> None:
    saved([rollup("q", "a", moment=NOW, succeeded=1), rollup("q", "a", moment=NOW, length=HOUR, succeeded=1)])
    for span in SPANS.values():
        found = numbers.by_bucket(span, NOW)
        assert sum(each.ended for each in found.values()) == 1, span
        assert len(found) == span.seconds // span.step <= 120


def test_numbers_by_task_add_up_by_queue_and_by_name(database: TestDatabase) -> None:
    rows = [("q", "a", 1), ("q", "b", 2), ("p", "a", 4)]
    saved([rollup(queue, name, moment=NOW, succeeded=count) for queue, name, count in rows])
    found = numbers.by_task(SPANS["1h"], NOW)
    assert {name: each.ended for name, each in numbers.grouped(found, 0).items()} == {"q": 3, "p": 4}
    assert {name: each.ended for name, each in numbers.grouped(found, 1).items()} == {"a": 5, "b": 2}


def test_all_time_is_apart_from_its_parts(database: TestDatabase) -> None:
    saved([rollup("q", "a", moment=NOW, succeeded=1), rollup("q", "a", moment=0, length=EVER, succeeded=50)])
    assert {key: each.succeeded for key, each in numbers.ever().items()} == {("q", "a"): 50}


def test_what_came_in_is_what_went_out_and_what_was_added(database: TestDatabase) -> None:
    a_sample(MINUTE_AGO, "q", 10)
    a_sample(NOW, "q", 25)
    span = SPANS["1h"]
    depth = numbers.depths(span, NOW)["q"]
    assert [each.waiting for each in depth.values()] == [10, 25]
    assert numbers.arrivals([Numbers(succeeded=5)], depth, span.buckets(NOW)) == 20
    assert numbers.arrivals([Numbers(succeeded=5)], {}, span.buckets(NOW)) is None


def test_a_look_counts_by_queue_and_finds_the_oldest_of_all_priorities(database: TestDatabase) -> None:
    a_worker("w1", queues="q")
    worker = a_worker("w2", seen=100.0)
    saved(
        [
            waiting(queue="q", due_at=ago(5), priority=9),
            waiting(queue="q", due_at=ago(60)),
            waiting(queue="q", due_at=ago(-60)),
            waiting(queue="q", state="UNROUTABLE"),
            waiting(queue="p", state="LIMITED", limit_key=""),
            waiting(queue="p", state="WAITING"),
            waiting(queue="p", state="STARTED", worker_id=worker.pk),
        ]
    )
    from django_tasks.dashboard import current_workers

    seen = look(current_workers())
    q, p = {queue.name: queue for queue in seen.queues}["q"], {queue.name: queue for queue in seen.queues}["p"]
    assert (q.waiting, q.scheduled, q.unroutable, q.workers) == (2, 1, 1, 1)
    assert q.oldest_wait is not None
    assert 55 < q.oldest_wait < 70
    assert (p.limited, p.running, p.workers, p.oldest_wait) == (1, 1, 0, None)
    assert abs(seen.now.timestamp() - time.time()) < 5
    assert (seen.waiting, seen.scheduled, seen.running, seen.unroutable) == (2, 1, 1, 1)


def test_an_empty_site_can_be_looked_at(database: TestDatabase) -> None:
    found = gather(SPANS["1h"])
    assert found.look.queues == [] == list(found.workers)
    assert [problem.problem for problem in found.problems] == ["No worker is online: nothing runs."]
    assert found.slowest() == found.busiest() == []


def test_a_queue_that_shrinks_is_empty_in_time_and_one_that_grows_is_not(database: TestDatabase) -> None:
    now = int(time.time())
    saved([waiting(queue="down", due_at=ago(1)) for _ in range(6)] + [waiting(queue="up", due_at=ago(1))])
    for queue, before, after in (("down", 66, 6), ("up", 1, 61)):
        a_sample(now - 60, queue, before)
        a_sample(now, queue, after)
    rows = {row.now.name: row for row in gather(SPANS["1h"]).queues}
    assert (rows["down"].growth, rows["down"].empty_in) == (-1.0, 6.0)
    assert (rows["up"].growth, rows["up"].empty_in) == (1.0, None)


def test_rollups_that_the_future_wrote_do_no_harm(database: TestDatabase) -> None:
    Rollup.objects.create(length=60, moment=NOW + 7200, queue="q", name="a", succeeded=1)
    assert sum(each.ended for each in numbers.by_bucket(SPANS["1h"], NOW).values()) == 0
