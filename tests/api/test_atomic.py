"""``atomic=True``: the body, what it sends and its result commit together, or nothing does."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import IntegrityError, connections, transaction

from django_tasks import AsyncResult, Task, models, shared_task
from django_tasks.backends import get_broker
from django_tasks.exceptions import Ignore
from tests.api.conftest import Runner
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")


@shared_task
def note(name: str) -> None:
    Group.objects.create(name=name)


@shared_task(atomic=True, bind=True, max_retries=1)
def effect(self: Task[..., Any], how: str = "") -> str:
    attempt = f"attempt {self.request.retries}"
    Group.objects.create(name=attempt)
    note.delay(f"sent by {attempt}")
    if how == "fail":
        raise ValueError("no")
    if how == "retry once" and self.request.retries == 0:
        self.retry(countdown=0)
    if how == "go on" and self.request.retries == 0:
        self.retry(countdown=0, throw=False)
    if how == "ignore":
        raise Ignore
    if how == "unstorable":
        return object()  # type: ignore[return-value]
    if how == "break":
        Group.objects.create(name=attempt)
    return attempt


def the_groups() -> list[str]:
    return sorted(Group.objects.values_list("name", flat=True))


@pytest.mark.parametrize(
    ("how", "state", "groups"),
    [
        ("", "SUCCESS", ["attempt 0", "sent by attempt 0"]),
        ("fail", "FAILURE", []),
        ("retry once", "SUCCESS", ["attempt 1", "sent by attempt 1"]),
        ("go on", "SUCCESS", ["attempt 1", "sent by attempt 1"]),
        ("unstorable", "FAILURE", []),
        ("break", "FAILURE", []),
    ],
)
def test_what_it_writes_and_sends_is_there_if_it_succeeds_and_else_not(
    how: str, state: str, groups: list[str], run: Runner
) -> None:
    """R3: effect, result and what was sent are one commit."""
    result = run(effect, how)
    assert (result.state, the_groups()) == (state, groups)
    if how == "break":
        assert isinstance(result.result, IntegrityError)
    assert models.Task.objects.count() == 0


def test_ignoring_takes_the_effect_back(run: Runner) -> None:
    run(effect, "ignore")
    assert the_groups() == []


def test_while_it_runs_others_see_nothing_of_it(worker: Worker) -> None:
    seen: list[Any] = []

    @shared_task(atomic=True, bind=True)
    def look(self: Task[..., Any]) -> None:
        Group.objects.create(name="x")
        seen.append(transaction.get_connection().in_atomic_block)

    result = look.delay()
    worker.drain()
    assert (seen, result.state) == ([True], "SUCCESS")


def test_an_attempt_that_lost_its_lease_leaves_nothing(worker: Worker) -> None:
    """R5: nothing of an attempt that is not the owner any more is committed."""

    result = effect.delay()
    lost = worker.claim()
    assert lost is not None
    get_broker().give_back(worker.holder, [lost.id])
    other = Worker(name="other@test")
    owned = other.claim()
    assert owned is not None
    worker.run(lost)
    assert (the_groups(), result.state) == ([], "STARTED")
    other.run(owned)
    assert (result.state, result.worker) == ("SUCCESS", "other@test")
    assert Group.objects.filter(name="attempt 0").count() == 1


def test_the_result_is_there_for_whoever_waits(worker: Worker) -> None:
    result = effect.delay()
    worker.step()
    assert result.get() == "attempt 0"
    row = models.TaskResult.objects.get(pk=result.id)
    assert (row.state, row.worker) == ("SUCCESS", "here@test")


def test_callbacks_on_commit_run_once_the_result_is_stored(worker: Worker) -> None:
    told: list[str] = []

    @shared_task(atomic=True, bind=True)
    def tell(self: Task[..., Any]) -> None:
        task_id = str(self.request.id)
        transaction.on_commit(lambda: told.append(AsyncResult[Any](task_id).state))

    tell.delay()
    worker.drain()
    assert told == ["SUCCESS"]


@pytest.mark.databases("sqlite", alias="tasks")
def test_it_is_the_database_of_the_tasks_that_it_is_atomic_in(run: Runner) -> None:
    @shared_task(atomic=True)
    def look() -> list[bool]:
        return [connections[alias].in_atomic_block for alias in ("default", "tasks")]

    assert run(look).get() == [False, True]
