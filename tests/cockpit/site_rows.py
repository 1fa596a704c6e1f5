"""A site that has been at work for an hour, as workers would have written it down."""

from __future__ import annotations

import math
import random
import time
from datetime import timedelta
from typing import Any

from django.utils import timezone

from django_tasks.metrics.histogram import bucket
from django_tasks.metrics.rows import DAY, EVER, HOUR, MINUTE, RUNS, WAITS
from django_tasks.models import (
    Beat,
    CrontabSchedule,
    Limit,
    PeriodicTask,
    QueueSample,
    Rollup,
    Task,
    Worker,
)
from tests.rows import ago, failure, finished, saved, waiting

#: Queue and task, and how many run in a minute.
KINDS = (("default", "shop.tasks.pulse", 40), ("mail", "shop.tasks.send_mail", 22), ("images", "shop.tasks.shrink", 9))
#: Where tasks of it fail: file, function and line.
MAIL, PICTURES = ("shop/mail.py", "send", 31), ("shop/pictures.py", "shrink", 88)


def a_worker(name: str, *, seen: float = 1.0, **fields: Any) -> Worker:
    """Return a stored worker that was seen so many seconds ago."""
    return Worker.objects.create(
        **{
            "name": name, "hostname": "web1", "pid": 4711, "pool": "prefork", "concurrency": 4, "queues": "*",
            "version": "1.0", "lease": 20.0, "started_at": ago(3600), "beat_at": ago(seen), "processed": 12345,
            **fields,
        }
    )  # fmt: skip


def rollup(queue: str, name: str, *, moment: int, length: int = MINUTE, **numbers: Any) -> Rollup:
    """Return an unsaved rollup."""
    return Rollup(queue=queue, name=name, moment=moment // (length or 1) * length, length=length, **numbers)


def durations(runs: int, *, wait: float, run: float) -> dict[str, Any]:
    """Return the numbers of so many runs that waited and ran for so long each."""
    return {
        WAITS[bucket(wait)]: runs, RUNS[bucket(run)]: runs, "wait_seconds": wait * runs, "run_seconds": run * runs,
    }  # fmt: skip


def fill(minutes: int = 60) -> None:
    """Write down what a busy site did in the last minutes."""
    dice = random.Random(7)
    now = int(time.time())
    rows = []
    samples = []
    for minute in range(minutes):
        moment = now // 60 * 60 - 60 * minute
        for queue, name, pace in KINDS:
            done = max(0, int(pace * (1 + 0.4 * math.sin(minute / 9)) + dice.randint(-4, 4)))
            failed = dice.randint(0, done // 8)
            numbers = durations(done, wait=0.004 * dice.uniform(0.5, 30), run=0.05 * dice.uniform(0.5, 8))
            rows.append(
                rollup(
                    queue, name, moment=moment, succeeded=done - failed, failed=failed, retried=failed // 2, **numbers
                )
            )
            samples.append((moment, queue, dice.randint(0, 30) if queue != "mail" else 300 - 4 * minute))
        total = sum(waiting for at, _queue, waiting in samples if at == moment)
        samples.append((moment, "", total))
    for queue, name, _pace in KINDS:
        for length in (HOUR, DAY, EVER):
            numbers = durations(1000, wait=0.01, run=0.2)
            rows.append(rollup(queue, name, moment=now, length=length, succeeded=990, failed=10, **numbers))
    Rollup.objects.bulk_create(rows)
    QueueSample.objects.bulk_create(
        QueueSample(moment=at, queue=queue, waiting=max(0, count), scheduled=5, running=2, oldest=count / 10)
        for at, queue, count in samples
    )
    online = a_worker("w1@web1", queues="default,images")
    a_worker("w2@web1", queues="default", draining=True)
    a_worker("w3@db1", seen=400.0)
    saved(
        [waiting(queue="mail", name="shop.tasks.send_mail", due_at=ago(840 - index)) for index in range(31)]
        + [waiting(queue="default", due_at=ago(-3600 * (index + 1))) for index in range(4)]
        + [waiting(queue="default", name="gone.tasks.report", state="UNROUTABLE") for _ in range(2)]
    )
    Task.objects.bulk_create(
        waiting(queue="images", name="shop.tasks.shrink", state="STARTED", worker_id=online.pk, slot=index, attempt=1,
                started_at=ago(12 + index)) for index in range(3)
    )  # fmt: skip
    saved(
        [
            failure("Connection unexpectedly closed", name="shop.tasks.send_mail", place=MAIL, seconds_ago=40 * n)
            for n in range(14)
        ]
        + [failure("duplicate key", name="shop.tasks.shrink", place=PICTURES, seconds_ago=90 * n) for n in range(6)]
        + [finished(seconds_ago=10 * n) for n in range(50)]
    )
    Limit.objects.create(
        kind="queue", name="images", paused_at=ago(600), paused_by="anna", pause_reason="The disk is full"
    )
    Beat.objects.create(name="beat@web1", hostname="web1", pid=1, version="1.0", started_at=ago(99), seen_at=ago(2))
    for number in range(3):
        PeriodicTask.objects.create(
            name=f"Nightly report {number}", task="shop.tasks.pulse", crontab=_crontab(),
            next_run_at=timezone.now() + timedelta(minutes=5 + number),
        )  # fmt: skip


def _crontab() -> CrontabSchedule:
    schedule: CrontabSchedule = CrontabSchedule.objects.get_or_create(minute="30", hour="2")[0]
    return schedule
