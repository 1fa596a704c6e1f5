"""Eager mode against reality (P27): the same calls, run here and by a worker, must come to the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import override_settings

from django_tasks import AsyncResult, EagerResult, models, shared_task
from django_tasks.exceptions import Ignore, Reject
from tests.api.recorder import Entry, Recorded, recording
from tests.databases import TestDatabase
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite")


class Odd(Exception):
    """An error of our own."""


@shared_task(bind=True, base=Recorded, max_retries=2, default_retry_delay=1)
def by_hand(self: Recorded, /, until: int, **retry: Any) -> Any:
    self.log.append(("request", _request(self)))
    if self.request.retries < until:
        raise self.retry(exc=Odd(f"attempt {self.request.retries}"), **retry)
    return {"when": date(2026, 1, 2), "price": Decimal("1.10"), "tuple": (1, 2)}


@shared_task(
    bind=True,
    base=Recorded,
    autoretry_for=(Odd,),
    dont_autoretry_for=(KeyError,),
    retry_backoff=True,
    retry_jitter=False,
)
def by_itself(self: Recorded, error: str, times: int) -> int:
    self.log.append(("request", _request(self)))
    if self.request.retries < times:
        raise {"odd": Odd, "key": KeyError, "value": ValueError}[error](error, self.request.retries)
    return self.request.retries


@shared_task(bind=True, base=Recorded)
def end(self: Recorded, how: str) -> Any:
    self.log.append(("request", _request(self)))
    info = self.request.delivery_info or {}
    if how == "requeue" and not info["redelivered"]:
        raise Reject("later", requeue=True)
    if how == "throw":
        self.retry(throw=False, max_retries=1) if self.request.retries == 0 else None
    if how == "progress":
        self.update_state(state="PROGRESS", meta={"done": 1})
    if how == "tell":
        self.update_state(state="FAILURE", meta=Odd("told"))
        raise Ignore
    ends: dict[str, Any] = {"reject": Reject("no"), "error": Odd("no", {"deep": [1]}), "exit": SystemExit(1)}
    if how in ends:
        raise ends[how]
    return {"unstorable": object(), "ignored": "nobody wants it", "none": None}.get(how, how)


@shared_task(base=Recorded, typing=False)
def strict(x: int) -> int:
    return x


@shared_task(base=Recorded, queue="declared", priority=5, ignore_result=True)
def declared() -> str:
    return "nothing"


@shared_task(base=Recorded, bind=True, atomic=True)
def all_or_nothing(self: Recorded, fails: bool) -> int:
    Group.objects.create(name=f"group {self.request.retries}")
    if fails:
        self.retry(exc=Odd("no"), countdown=0, max_retries=1)
    return Group.objects.count()


@shared_task(base=Recorded)
async def asynchronous(x: int) -> int:
    if x < 0:
        raise Odd("negative")
    return x


SCENARIOS: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "success": (by_hand, (0,), None, {}),
    "retry, then success": (by_hand, (2,), None, {}),
    "retry, then failure": (by_hand, (9,), None, {}),
    "retry with a limit of its own": (by_hand, (9,), {"max_retries": 1}, {}),
    "retry with other arguments": (by_hand, (1,), {"kwargs": {"until": 1}}, {}),
    "retry in another queue": (by_hand, (1,), {"queue": "slow", "priority": -3, "headers": {"a": 1}}, {}),
    "retry with a bad option": (by_hand, (1,), {"countdown": "soon"}, {}),
    "automatic retry, then success": (by_itself, ("odd", 2), None, {}),
    "automatic retry, then failure": (by_itself, ("odd", 9), None, {}),
    "no automatic retry": (by_itself, ("key", 1), None, {}),
    "another error": (by_itself, ("value", 1), None, {}),
    "failure": (end, ("error",), None, {}),
    "exit": (end, ("exit",), None, {}),
    "a result that cannot be stored": (end, ("unstorable",), None, {}),
    "None": (end, ("none",), None, {}),
    "reject": (end, ("reject",), None, {}),
    "reject and requeue": (end, ("requeue",), None, {}),
    "retry without throwing": (end, ("throw",), None, {}),
    "progress": (end, ("progress",), None, {}),
    "a told end": (end, ("tell",), None, {}),
    "arguments that do not fit": (strict, (1, 2), None, {}),
    "many options": (
        end,
        ("x",),
        {},
        {
            "queue": "mail", "priority": 9, "headers": {"tenant": "acme", "at": datetime(2026, 1, 1, tzinfo=UTC)},
            "shadow": "a name", "argsrepr": "(…)", "task_id": "my-own", "app_id": "shop", "countdown": 1,
            "serializer": "msgpack", "compression": "gzip", "expires": 3600,
        },
    ),
    "expired": (end, ("x",), None, {"expires": -1}),
    "expired at a moment": (end, ("x",), None, {"expires": datetime(2000, 1, 1, tzinfo=UTC)}),
    "declared options": (declared, (), None, {"ignore_result": False}),
    "atomic success": (all_or_nothing, (False,), None, {}),
    "atomic failure": (all_or_nothing, (True,), None, {}),
    "asynchronous": (asynchronous, (3,), None, {}),
    "asynchronous failure": (asynchronous, (-3,), None, {}),
}  # fmt: skip


@dataclass
class Told:
    """All that can be learnt of a call once it is over."""

    state: str
    value: Any
    get: Any
    traceback_ends: str | None
    details: tuple[Any, ...]
    questions: tuple[bool, ...]
    groups: int
    log: list[Entry] = field(default_factory=list)


def _request(task: Recorded) -> dict[str, Any]:
    request = task.request
    names = ("task", "args", "kwargs", "retries", "attempt", "called_directly", "headers", "properties", "shadow")
    more = ("argsrepr", "ignore_result", "delivery_info", "parent_id", "timelimit")
    same = request.id == request.root_id == request.correlation_id
    dates = (request.eta is not None, request.expires is not None)
    return {**{name: request.get(name) for name in (*names, *more)}, "same": same, "dates": dates}


def call(run: Callable[..., AsyncResult[Any]], scenario: str) -> Told:
    task, args, kwargs, options = SCENARIOS[scenario]
    Group.objects.all().delete()
    with recording() as log:
        result = run(task, args, kwargs, **options)
    try:
        got = result.get(timeout=30)
    except BaseException as error:
        got = _error(error)
    value = result.result
    return Told(
        result.state,
        _error(value) if isinstance(value, BaseException) else value,
        got,
        (result.traceback or "").rstrip().rpartition("\n")[2] or None,
        (
            result.name,
            result.args,
            result.kwargs,
            result.retries,
            result.queue,
            options.get("task_id", result.id) == result.id,
        ),
        (result.ready(), result.successful(), result.failed(), result.exists(), result.date_done is not None),
        Group.objects.count(),
        [entry for entry in log if entry[0] != "task_received"],  # of a worker, and of nobody else
    )


def _error(error: BaseException) -> Any:
    text = str(error).partition(" at 0x")[0]
    return type(error).__name__, text, [repr(one).partition(" at 0x")[0] for one in error.args]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_eager_mode_comes_to_the_same_as_a_worker(
    scenario: str, database: TestDatabase, configure: Callable[..., None]
) -> None:
    """P27: state, value, error, arguments, request, handlers and signals are the same in both modes."""
    configure(ACCEPT_CONTENT=["json", "msgpack"], WORKER_CONCURRENCY=1)
    worker = Worker()

    def by_a_worker(task: Any, args: Any, kwargs: Any, **options: Any) -> AsyncResult[Any]:
        result: AsyncResult[Any] = task.apply_async(args, kwargs, **options)
        worker.drain()
        return result

    def eagerly(task: Any, args: Any, kwargs: Any, **options: Any) -> AsyncResult[Any]:
        result: AsyncResult[Any] = task.apply_async(args, kwargs, **options)
        assert isinstance(result, EagerResult)
        return result

    real = call(by_a_worker, scenario)
    configure(ACCEPT_CONTENT=["json", "msgpack"], TASK_ALWAYS_EAGER=True)
    assert call(eagerly, scenario) == real


# What only eager mode has --------------------------------------------------------------------------------------------


@pytest.fixture
def eager(configure: Callable[..., None]) -> Callable[..., None]:
    configure(TASK_ALWAYS_EAGER=True)
    return configure


def test_it_needs_no_database_at_all() -> None:
    # pytest-django refuses every query here: this test takes no database.
    with override_settings(DJANGO_TASKS={"TASK_ALWAYS_EAGER": True}):
        assert by_hand.delay(2).get()["when"] == date(2026, 1, 2)
        assert by_itself.delay("odd", 9).state == "FAILURE"
        assert end.apply(("error",)).failed()


def test_errors_are_raised_if_the_setting_or_the_call_says_so(eager: Callable[..., None]) -> None:
    assert end.delay("error").state == "FAILURE"
    with pytest.raises(Odd):
        end.apply(("error",), throw=True)
    eager(TASK_EAGER_PROPAGATES=True)
    with pytest.raises(Odd):
        end.delay("error")
    assert end.apply(("error",), throw=False).state == "FAILURE"
    assert by_hand.delay(2).state == "SUCCESS"  # a retry is no error


def test_results_are_stored_if_the_setting_or_the_task_says_so(eager: Callable[..., None]) -> None:
    @shared_task(store_eager_result=True)
    def kept() -> int:
        return 1

    @shared_task(store_eager_result=False)
    def never() -> int:
        return 2

    results = [kept.delay(), never.delay(), end.delay("x")]
    assert [AsyncResult[Any](result.id).exists() for result in results] == [True, False, False]
    eager(TASK_STORE_EAGER_RESULT=True)
    by_hand_result = by_hand.apply_async((1,), task_id="my-own", queue="mail")
    stored = AsyncResult[Any]("my-own")
    assert (stored.state, stored.result, stored.retries) == ("SUCCESS", by_hand_result.result, 1)
    assert (stored.name, stored.args, stored.queue) == (by_hand.name, [1], "mail")
    failed = AsyncResult[Any](end.delay("error").id)
    assert (failed.state, type(failed.result)) == ("FAILURE", Odd)
    assert [one["attempt"] for one in models.TaskResult.objects.get(custom_id="my-own").attempts] == [1]
    assert not AsyncResult[Any](never.delay().id).exists()
    assert not AsyncResult[Any](end.apply_async(("x",), ignore_result=True).id).exists()
    by_hand_result.forget()
    assert not AsyncResult[Any]("my-own").exists()


def test_arguments_and_results_travel_as_they_would_for_real(eager: Callable[..., None]) -> None:
    given: list[Any] = []

    @shared_task
    def mutate(data: dict[str, Any]) -> dict[str, Any]:
        given.append(data)
        data["more"] = (1,)
        return data

    mine = {"pair": (1, 2)}
    assert mutate.delay(mine).get() == {"pair": [1, 2], "more": [1]}
    assert mine == {"pair": (1, 2)}
    assert given[0] == {"pair": [1, 2], "more": (1,)}


def test_an_eager_result_reads_like_another(eager: Callable[..., None]) -> None:
    result = end.delay("x")
    assert isinstance(result, EagerResult)
    assert (result.ready(), result.successful(), result.exists(), result.ignored) == (True, True, True, False)
    assert result.get(timeout=5, interval=1, propagate=True) == result.wait() == "x"
    assert (result.supports_native_join, str(result.worker).partition("@")[0]) == (False, "eager")
    made = EagerResult[int]("id", 5, "SUCCESS")
    assert (made.get(), made.name, made.args) == (5, None, None)


def test_an_eager_result_can_be_revoked_afterwards_as_in_celery(eager: Callable[..., None]) -> None:
    result = end.delay("x")
    result.revoke()
    assert (result.state, type(result.result).__name__, result.traceback) == ("REVOKED", "TaskRevokedError", None)
    with pytest.raises(Exception, match="revoked"):
        result.get()


def test_a_task_sent_by_an_eager_task_is_eager_too(eager: Callable[..., None]) -> None:
    @shared_task(bind=True)
    def outer(self: Any) -> list[Any]:
        inner = end.delay("x")
        return [inner.state, self.request.id, self.request.is_eager]

    result = outer.delay()
    assert result.get() == ["SUCCESS", result.id, True]


def test_what_was_sent_for_real_stays_real(database: TestDatabase, configure: Callable[..., None]) -> None:
    real = end.delay("x")
    configure(TASK_ALWAYS_EAGER=True)
    assert type(end.AsyncResult(real.id)) is AsyncResult
    assert real.state == "PENDING"
