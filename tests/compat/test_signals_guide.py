"""What Celery's guide to signals shows, with the import changed and nothing else.

https://docs.celeryq.dev/en/stable/userguide/signals.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from django_tasks import shared_task
from django_tasks.signals import (
    after_task_publish,
    before_task_publish,
    task_failure,
    task_postrun,
    task_prerun,
    task_retry,
    task_success,
)
from tests.api.conftest import Runner

pytestmark = pytest.mark.databases("sqlite")


@shared_task
def add(x: int, y: int) -> int:
    return x + y


@shared_task(bind=True, max_retries=1)
def flaky(self: Any) -> None:
    self.retry(exc=ValueError("no"), countdown=0)


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """Connect receivers as the guide does; give what they wrote."""
    written: list[Any] = []

    @before_task_publish.connect
    def sending(headers: Any = None, body: Any = None, **kwargs: Any) -> None:
        info = headers if "task" in headers else body
        headers["user"] = "ann"
        written.append(("before", info["task"]))

    @after_task_publish.connect(sender=add.name)
    def sent(sender: Any = None, headers: Any = None, body: Any = None, **kwargs: Any) -> None:
        info = headers if "task" in headers else body
        written.append(("sent", sender, info["id"]))

    @task_prerun.connect
    def starting(sender: Any = None, task_id: Any = None, task: Any = None, args: Any = None, **kwargs: Any) -> None:
        written.append(("start", sender is task, task_id, args, task.request.get("user")))

    @task_success.connect(sender=add)
    def succeeded(sender: Any = None, result: Any = None, **kwargs: Any) -> None:
        written.append(("success", sender.name, result))

    @task_retry.connect
    def retried(sender: Any = None, request: Any = None, reason: Any = None, einfo: Any = None, **kwargs: Any) -> None:
        written.append(("retry", request.id, str(reason.exc)))

    @task_failure.connect
    def failed(sender: Any = None, task_id: Any = None, exception: Any = None, traceback: Any = None, einfo: Any = None, **kwargs: Any) -> None:  # fmt: skip # noqa: E501 - as one writes it
        written.append(("failure", task_id, repr(exception), traceback is not None, "ValueError" in str(einfo)))

    @task_postrun.connect
    def ended(sender: Any = None, task_id: Any = None, retval: Any = None, state: Any = None, **kwargs: Any) -> None:
        written.append(("end", task_id, state))

    yield written
    before_task_publish.disconnect(sending)
    after_task_publish.disconnect(sent, sender=add.name)
    task_success.disconnect(succeeded, sender=add)
    connected = (task_prerun, starting), (task_retry, retried), (task_failure, failed), (task_postrun, ended)
    for signal, receiver in connected:
        signal.disconnect(receiver)


def test_receivers_hear_of_a_success(run: Runner, log: list[Any]) -> None:
    result = run(add, 2, 2)
    assert log == [
        ("before", add.name),
        ("sent", add.name, result.id),
        ("start", True, result.id, [2, 2], "ann"),
        ("success", add.name, 4),
        ("end", result.id, "SUCCESS"),
    ]


def test_receivers_hear_of_retries_and_failures(run: Runner, log: list[Any]) -> None:
    result = run(flaky)
    assert log == [
        ("before", flaky.name),
        ("start", True, result.id, [], "ann"),
        ("retry", result.id, "no"),
        ("end", result.id, "RETRY"),
        ("start", True, result.id, [], "ann"),
        ("failure", result.id, "ValueError('no')", True, True),
        ("end", result.id, "FAILURE"),
    ]
