"""What there is to see on each page, and the addresses of the pages."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User

from django_tasks import chain, failures, group, states
from django_tasks.models import BulkOperation, CrontabSchedule, Limit, PeriodicTask, Task, TaskResult, Worker
from tests.app.tasks import add, echo
from tests.cockpit.site_rows import MAIL, fill
from tests.rows import ago, failure, finished, saved, waiting

#: A name as long as they may be, and a queue.
LONG_NAME = "warehouse.integrations.suppliers.tasks." + "synchronise_everything_" * 8
LONG_QUEUE = "imports-of-the-catalogues-of-all-suppliers-by-night-and-by-day"


def furnish(*, oddities: bool = True) -> dict[str, str]:
    """Fill a site that has been at work for an hour, with names as long as they may be if ``oddities`` are wanted;
    return its pages by name, below ``admin/django_tasks/``."""
    User.objects.create_superuser("root", password="root")  # noqa: S106 - guards nothing
    fill()
    failed = _failed("the mail server said: " + ("x" * 200 if oddities else "450 mailbox busy, try again later"))
    _muted()
    running, retrying = _unfinished()
    operation = BulkOperation.objects.create(
        action="retry", user_id="1", user_name="root", created_at=ago(5), started_at=ago(4), total=2000, changed=1200,
        left=30, reasons='{"queued": 30}', state="running", filters='{"state": "FAILURE"}', search="since:2h",
    )  # fmt: skip
    periodic = PeriodicTask.objects.order_by("pk")[0]
    limit = Limit.objects.create(kind="task", name="shop.tasks.send_mail", rate="1500/m", concurrency=2000)
    worker = Worker.objects.order_by("pk")[0]
    pages = {
        "overview": "overview/",
        "overview of a week": "overview/?span=7d",
        "tasks": "task/",
        "tasks that run": "task/?state=STARTED",
        "tasks searched": "task/?q=queue:mail+since:2h",
        "running task": f"task/{running.pk}/change/",
        "task that retries": f"task/{retrying.pk}/change/",
        "results": "taskresult/?state=FAILURE",
        "failed task": f"taskresult/{failed.pk}/change/",
        "edited arguments": f"taskresult/{failed.pk}/edit/",
        "history of a task": f"taskresult/{failed.pk}/history/",
        "failures": "taskresult/failures/",
        "failures that are aside": "taskresult/failures/?aside=1",
        "periodic tasks": "periodictask/",
        "periodic task": f"periodictask/{periodic.pk}/change/",
        "new periodic task": "periodictask/add/",
        "workflows": "workflow/",
        "workflow": f"workflow/{_workflow()}/change/",
        "task types": "tasktype/",
        "task type": "tasktype/shop.tasks.shrink/change/",
        "queues": "queue/",
        "queue": "queue/mail/change/",
        "workers": "worker/",
        "worker": f"worker/{worker.pk}/change/",
        "limits": "limit/",
        "limit": f"limit/{limit.pk}/change/",
        "new limit": "limit/add/",
        "bulk operations": "bulkoperation/",
        "bulk operation": f"bulkoperation/{operation.pk}/change/",
        "health": "health/",
    }
    return {**pages, **_oddities()} if oddities else pages


def _oddities() -> dict[str, str]:
    revoked, _failed, _waiting = (
        *saved([finished(states.REVOKED, name=LONG_NAME, queue=LONG_QUEUE, body=_large_body())]),
        *saved([failure("العميل غير موجود", name=LONG_NAME, queue=LONG_QUEUE, worker="w" * 60)]),
        *saved([waiting(name=LONG_NAME, queue=LONG_QUEUE, body=_large_body())]),
    )
    PeriodicTask.objects.create(
        name="A report of everything that was sold, returned or lost, for each of the branches, in all currencies",
        task=LONG_NAME, crontab=CrontabSchedule.objects.create(minute="*/7", hour="8-18"), enabled=False,
    )  # fmt: skip
    Limit.objects.create(kind="queue", name=LONG_QUEUE, concurrency=12_000)
    return {"revoked task": f"taskresult/{revoked.pk}/change/", "long queue": f"queue/{LONG_QUEUE}/change/"}


def _failed(text: str) -> TaskResult:
    attempts = [
        {"attempt": n, "outcome": "RETRY", "worker": "w1@web", "at": ago(90 - 30 * n).timestamp(), "runtime": 5.0,
         "error": {"exc_type": "TimeoutError", "text": "no answer"}, "traceback": "Traceback …"}
        for n in (1, 2)
    ]  # fmt: skip
    [failed] = saved(
        [
            failure(
                text, name="shop.tasks.send_mail", queue="mail", place=MAIL,
                created_at=ago(120), due_at=ago(120), started_at=ago(20), finished_at=ago(10), attempt=3, retries=2,
                history=json.dumps(attempts), body='[[1543], {"template": "welcome", "urgent": true}]', runtime=10.0,
                worker="w1@web1",
            )
        ]
    )  # fmt: skip
    return failed  # type: ignore[no-any-return]


def _muted() -> None:
    name, place = "shop.tasks.count_the_till", ("shop/tills.py", "count", 41)
    text = "LookupError: no such till"
    saved([failure(name=name, exception=text, place=place, seconds_ago=at) for at in (9, 99)])
    kind = failures.Kind(name, "LookupError", "shop/tills.py in count")
    failures.mute(kind, "root")
    failures.acknowledge(kind, "root")


def _unfinished() -> list[Task]:
    return saved(
        [
            waiting(
                name="shop.tasks.shrink", queue="images", state=states.STARTED, custom_state="PROGRESS", attempt=1,
                meta=json.dumps({"current": 6200, "total": 10000, "text": "shrinking picture 6200 of 10000"}),
                worker_id=Worker.objects.order_by("pk")[0].pk, slot=3, created_at=ago(3700), due_at=ago(3700),
                started_at=ago(3600), body='[["summer.jpg"], {}]',
            ),
            waiting(
                name="shop.tasks.send_mail", queue="mail", state=states.RETRY, attempt=2, retries=1, due_at=ago(-60),
                body='[[1544], {}]',
            ),
        ]
    )  # fmt: skip


def _workflow() -> UUID:
    last = chain(add.s(1, 1), group(add.s(number) for number in range(14)), echo.s(), add.s(1)).apply_async()
    root = Task.objects.get(pk=last.id).root_id
    assert root is not None
    return root


def _large_body() -> str:
    arguments: dict[str, Any] = {"order": {"lines": [{"article": f"{n:06}", "amount": n} for n in range(40)]}}
    return json.dumps([["x" * 500], {**arguments, "password": "hidden"}])
