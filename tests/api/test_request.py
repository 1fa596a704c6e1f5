"""``self.request`` and ``current_task``: what a running task knows of itself."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_tasks import Task, current_task, models, shared_task
from django_tasks.backends import get_broker
from django_tasks.exceptions import Reject
from django_tasks.request import Context
from tests.api.conftest import Runner
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "redis")


@shared_task(bind=True)
def tell(self: Task[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    fields = [name for name in vars(Context) if not name.startswith("_") and not callable(getattr(Context, name))]
    return {name: getattr(self.request, name) for name in fields}


def test_a_request_tells_what_celery_s_does(run: Runner) -> None:
    result = run.apply(tell, (1,), {"x": 2}, queue="mail", priority=3)
    request = result.get()
    assert request.pop("hostname") == ("eager@" + socket.gethostname() if run.is_eager else "here@test")
    assert request.pop("is_eager") is run.is_eager
    assert request == {
        "id": result.id,
        "task": tell.name,
        "args": [1],
        "kwargs": {"x": 2},
        "retries": 0,
        "attempt": 1,
        "max_retries": None,
        "eta": None,
        "expires": None,
        "called_directly": False,
        "ignore_result": False,
        "headers": None,
        "properties": None,
        "delivery_info": {
            "exchange": "",
            "routing_key": "mail",
            "queue": "mail",
            "priority": 3,
            "redelivered": False,
        },
        "root_id": result.id,
        "parent_id": None,
        "correlation_id": result.id,
        # Of what is not here, or was AMQP's.
        **dict.fromkeys(("reply_to", "origin", "shadow", "argsrepr", "kwargsrepr", "time_limit", "soft_time_limit")),
        **dict.fromkeys(("group", "group_index", "chord", "chain", "callbacks", "errbacks", "children")),
        **dict.fromkeys(("stamps", "stamped_headers", "scheduled_for")),
        "timelimit": [None, None],
        "replaced_task_nesting": 0,
        "tags": [],
        "utc": True,
    }


def test_eta_and_expires_are_told_as_text(run: Runner) -> None:
    moment = datetime(2100, 1, 1, 12, tzinfo=UTC)
    request = run.apply(tell, expires=moment, countdown=0).get()
    assert request["expires"] == "2100-01-01T12:00:00+00:00"
    assert datetime.fromisoformat(request["eta"]) <= timezone.now() + timedelta(seconds=5)
    expires = datetime.fromisoformat(run.apply(tell, expires=3600).get()["expires"])
    assert timedelta(minutes=55) < expires - timezone.now() <= timedelta(hours=1)


def test_each_attempt_has_its_number_and_its_moment(run: Runner) -> None:
    seen: list[Any] = []

    @shared_task(bind=True)
    def twice(self: Task[..., Any]) -> None:
        seen.append((self.request.retries, self.request.attempt, self.request.id, self.request.eta is not None))
        if self.request.retries < 1:
            raise self.retry(countdown=0)

    result = run(twice)
    assert seen == [(0, 1, result.id, False), (1, 2, result.id, True)]


def test_a_redelivered_task_knows_it(run: Runner) -> None:
    seen: list[Any] = []

    @shared_task(bind=True)
    def picky(self: Task[..., Any]) -> str:
        info = self.request.delivery_info
        assert info is not None
        seen.append(info["redelivered"])
        if not info["redelivered"]:
            raise Reject("not now", requeue=True)
        return "done"

    result = run(picky)
    assert (result.get(), seen, result.retries) == ("done", [False, True], 0)


def test_a_task_that_never_began_is_not_redelivered(worker: Worker) -> None:
    """Whoever looks at it wants to know whether the body may have run before."""
    seen: list[Any] = []

    @shared_task(bind=True)
    def look(self: Task[..., Any]) -> None:
        info = self.request.delivery_info
        assert info is not None
        seen.append((self.request.attempt, info["redelivered"]))
        if len(seen) == 1:
            raise self.retry(countdown=0)

    look.delay()
    for _ in range(2):
        delivery = worker.claim()
        assert delivery is not None
        assert get_broker().give_back(worker.holder, [delivery.id]) == 1
    worker.drain()
    assert seen == [(3, False), (4, False)]


def test_a_task_that_is_rejected_for_ever_keeps_one_line_of_it(worker: Worker) -> None:
    @shared_task(bind=True)
    def never(self: Task[..., Any]) -> None:
        raise Reject("not now", requeue=True)

    never.delay()
    for _ in range(3):
        assert worker.step() is not None
    [line] = models.Task.objects.get().attempts
    assert (line["attempt"], line["outcome"]) == (1, "REQUEUED")


def test_outside_of_a_run_a_request_has_the_defaults() -> None:
    request = tell.request
    assert (request.id, request.retries, request.called_directly, request.is_eager) == (None, 0, True, False)
    assert request.get("no such field", 5) == 5
    with pytest.raises(AttributeError, match="neither a field nor a header 'nothing'"):
        request.nothing  # noqa: B018
    assert tell(1)["args"] == (1,)


def test_a_request_is_read_and_written_like_celery_s() -> None:
    request = Context({"id": "a", "retries": 2}, headers={"tenant": "acme"})
    request.update(retries=3, own="x")
    assert (request.id, request.retries, request.get("own"), request.get("tenant")) == ("a", 3, "x", "acme")
    assert "'own': 'x'" in repr(request)
    request.clear()
    assert (request.id, request.retries, request.get("own")) == (None, 0, None)


def test_a_test_may_push_a_request_by_hand() -> None:
    @shared_task(bind=True)
    def backoff(self: Task[..., Any]) -> int:
        return int(2**self.request.retries)

    backoff.push_request(retries=3, id="x")
    try:
        assert (backoff.request.id, backoff.request.retries) == ("x", 3)
        assert backoff.run() == 8
        assert backoff() == 1  # a call of its own
    finally:
        backoff.pop_request()
    assert backoff.request.id is None


def test_current_task_is_the_one_that_runs_here(run: Runner) -> None:
    assert not current_task
    assert repr(current_task) == "<no task runs here>"
    with pytest.raises(AttributeError, match="No task runs here"):
        current_task.name  # noqa: B018
    elsewhere: list[bool] = []

    @shared_task
    def where() -> list[Any]:
        other = threading.Thread(target=lambda: elsewhere.append(bool(current_task)))
        other.start()
        other.join()
        return [bool(current_task), current_task.name, current_task.request.id, helper()]

    def helper() -> str:
        return str(current_task.request.task)

    result = run(where)
    assert result.get() == [True, where.name, result.id, where.name]
    assert elsewhere == [False]
    assert not current_task


def test_a_task_that_calls_another_as_a_function_keeps_its_own_request(run: Runner) -> None:
    @shared_task(bind=True)
    def inner(self: Task[..., Any]) -> list[Any]:
        return [self.request.id, self.request.called_directly]

    @shared_task(bind=True)
    def outer(self: Task[..., Any], again: bool = True) -> list[Any]:
        return [inner(), self.request.called_directly, *([self(again=False)] if again else [])]

    assert run(outer).get() == [[None, True], False, [[None, True], True]]


def test_a_task_that_applies_another_has_its_own_request_afterwards(run: Runner) -> None:
    @shared_task(bind=True)
    def inner(self: Task[..., Any]) -> list[Any]:
        return [self.request.id, self.request.parent_id, self.request.root_id]

    @shared_task(bind=True)
    def outer(self: Task[..., Any]) -> list[Any]:
        return [inner.apply(task_id="inner").result, self.request.id]

    result = run(outer)
    assert result.get() == [["inner", result.id, result.id], result.id]
