"""How a task ends: with a value, with an error, ignored, rejected, revoked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction

from django_tasks import AsyncResult, Task, models, shared_task
from django_tasks.backends import get_broker
from django_tasks.exceptions import (
    EncodeError,
    Ignore,
    PayloadTooLarge,
    Reject,
    TaskRevokedError,
    UnpickleableExceptionWrapper,
)
from tests.api.conftest import Runner
from tests.backends.calls import a_message, send
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "redis")


@shared_task
def give(value: Any) -> Any:
    return value


class Odd(Exception):
    """An exception with arguments of its own."""

    def __init__(self, code: int, *, hint: str = "none") -> None:
        super().__init__(code, hint)
        self.code = code


@shared_task
def fail(kind: str) -> None:
    class Local(Exception):
        pass

    raise {
        "value": ValueError("no", 5),
        "key": KeyError("missing"),
        "odd": Odd(7, hint="look"),
        "local": Local("who knows", {1, 2}),
        "exit": SystemExit(3),
        "empty": RuntimeError(),
        "args": ValueError(object()),
    }[kind]


# Values --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -1.5, "", "Ünïcode 🎈\x00", [], {}, [1, [2, {"a": None}]], {"a": {"b": [1]}}, 2**70,
        datetime(2026, 1, 2, 3, 4, 5, 6), date(2026, 1, 2), timedelta(days=1, microseconds=3), Decimal("1.10"),
        UUID(int=5), b"\x00\xff", {"__type__": "datetime", "__value__": "not one"},
    ],
    ids=repr,
)  # fmt: skip
def test_values_come_back_as_they_were(value: Any, run: Runner) -> None:
    """R4: the result told is the result produced."""
    result = run(give, value)
    assert (result.state, result.get()) == ("SUCCESS", value)
    assert type(result.get()) is type(value)


def test_tuples_and_sets_come_back_as_json_has_them(run: Runner) -> None:
    @shared_task
    def pair() -> tuple[int, tuple[int, ...]]:
        return 1, (2, 3)

    assert run(pair).get() == [1, [2, 3]]


def test_a_returned_text_that_says_failed_is_a_success(run: Runner) -> None:
    result = run(give, {"status": "failed"})
    assert (result.state, result.successful()) == ("SUCCESS", True)


def test_a_value_that_cannot_be_stored_is_a_failure(run: Runner) -> None:
    @shared_task
    def unstorable() -> object:
        return object()

    result = run(unstorable)
    assert (result.state, isinstance(result.result, EncodeError)) == ("FAILURE", True)
    run.configure(PAYLOAD_LIMIT=2048)

    @shared_task
    def too_large() -> str:
        return "x" * 5000

    result = run(too_large)
    assert isinstance(result.result, PayloadTooLarge)
    assert "The result of tests.api.test_outcomes.too_large takes 5,002 bytes" in str(result.result)


@pytest.mark.parametrize("where", ["call", "task", "setting"])
def test_an_ignored_result_is_none_at_once_and_leaves_no_trace(where: str, run: Runner) -> None:
    run.configure(TASK_IGNORE_RESULT=where == "setting")

    @shared_task(ignore_result=True if where == "task" else None)
    def work() -> int:
        return 5

    result = work.apply_async(ignore_result=True if where == "call" else None)
    assert result.get() is None  # before it has run
    run.finish()
    assert result.get() is None
    assert not models.TaskResult.objects.exists()
    assert not models.Task.objects.exists()
    wanted = run.apply(work, ignore_result=False)
    assert (wanted.get(), wanted.ignored) == (5, False)


def test_a_failure_is_kept_even_if_the_result_is_ignored(worker: Worker) -> None:
    @shared_task(ignore_result=True, store_errors_even_if_ignored=True)
    def work() -> None:
        raise ValueError("no")

    result = AsyncResult[None](work.delay().id)
    worker.drain()
    assert (result.state, str(result.result)) == ("FAILURE", "no")


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "cls", "args"),
    [
        ("value", ValueError, ("no", 5)),
        ("key", KeyError, ("missing",)),
        ("odd", Odd, (7, "look")),
        ("empty", RuntimeError, ()),
    ],
)
def test_an_error_comes_back_as_its_own_class_with_its_arguments(
    kind: str, cls: type[Exception], args: tuple[Any, ...], run: Runner
) -> None:
    result = run(fail, kind)
    error = result.result
    assert (result.state, result.failed(), type(error), error.args) == ("FAILURE", True, cls, args)
    with pytest.raises(cls) as caught:
        result.get()
    assert caught.value.args == args
    assert type(result.get(propagate=False)) is cls


def test_an_error_of_a_class_that_is_nowhere_to_be_found_tells_what_it_was(worker: Worker) -> None:
    result = fail.delay("local")
    worker.drain()
    error = result.result
    assert isinstance(error, UnpickleableExceptionWrapper)
    assert error.exc_cls_name == "fail.<locals>.Local"
    assert error.exc_args[0] == "who knows"
    assert type(error).__name__ == "Local"


def test_an_error_with_arguments_that_cannot_be_stored_keeps_their_text(run: Runner) -> None:
    result = run(fail, "args")
    assert (result.state, type(result.result)) == ("FAILURE", ValueError)
    assert "object object at" in str(result.result)


def test_a_task_that_exits_has_failed_and_takes_nobody_along(run: Runner) -> None:
    result = run(fail, "exit")
    assert (result.state, result.failed()) == ("FAILURE", True)
    assert "SystemExit: 3" in (result.traceback or "")


def test_ctrl_c_in_an_eager_task_ends_the_process_as_anywhere() -> None:
    @shared_task
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.apply()


def test_the_traceback_shows_the_task_and_nothing_of_this_package(run: Runner) -> None:
    result = run(fail, "odd")
    traceback = result.traceback or ""
    assert "test_outcomes.py" in traceback
    assert traceback.rstrip().endswith("Odd: (7, 'look')")
    assert "executor.py" not in traceback


def test_an_endless_chain_of_errors_is_told_in_bounded_length(run: Runner) -> None:
    @shared_task
    def chained() -> None:
        error: Exception | None = None
        for number in range(3000):
            try:
                raise ValueError("x" * 100) from error
            except ValueError as caught:
                error = caught
                last = number
        raise ValueError(f"last {last}") from error

    result = run(chained)
    assert len(result.traceback or "") < 70_000
    assert "characters left out" in (result.traceback or "")


@pytest.mark.parametrize("throws", [(ValueError,), ()])
def test_expected_errors_are_logged_quietly(throws: Any, run: Runner, caplog: pytest.LogCaptureFixture) -> None:
    @shared_task(throws=throws)
    def expected() -> None:
        raise ValueError("as expected")

    with caplog.at_level(logging.INFO, logger="django_tasks"):
        result = run(expected)
    assert result.state == "FAILURE"
    [record] = [record for record in caplog.records if "failed" in record.getMessage()]
    assert record.levelno == (logging.INFO if throws else logging.ERROR)
    assert (record.exc_info is None) is bool(throws)
    assert record.__dict__["task_id"] == result.id
    assert result.traceback is not None


def test_a_message_that_cannot_be_read_is_a_failure_that_people_see(worker: Worker) -> None:
    """R15: a malformed message never stops a worker."""
    bad = ['{"no": "list"}', "[[1], 2]", "[1, {}]", "not json", "[[],{},", '[[], {"1": 2}, 3]', "[" * 5000]
    sent = send(get_broker(), *(a_message(give.name, body=body) for body in [*bad, "[[1],{}]"]))
    results = [AsyncResult[Any](task_id) for task_id in sent]
    worker.drain()
    assert [result.state for result in results] == ["FAILURE"] * len(bad) + ["SUCCESS"]
    assert {type(result.result).__name__ for result in results[:-1]} == {"DecodeError"}


def test_a_format_that_is_not_accepted_is_a_failure(worker: Worker, configure: Callable[..., None]) -> None:
    result = give.apply_async((1,), serializer="msgpack")
    worker.drain()
    assert (result.state, type(result.result).__name__) == ("FAILURE", "ContentDisallowed")
    assert "ACCEPT_CONTENT allows only json" in str(result.result)


# Ignore and Reject ---------------------------------------------------------------------------------------------------


def test_ignore_leaves_no_state(run: Runner) -> None:
    @shared_task
    def ignored() -> None:
        raise Ignore

    result = run(ignored)
    # A worker deletes the row, so nobody can know afterwards: as in Celery, the state of the unknown.
    assert result.state == ("IGNORED" if run.is_eager else "PENDING")
    assert not models.Task.objects.exists()
    assert not models.TaskResult.objects.exists()
    assert result.get() is None if run.is_eager else not result.exists()


def test_reject_without_requeue_is_a_failure(run: Runner) -> None:
    @shared_task
    def rejected() -> None:
        raise Reject("not mine", requeue=False)

    result = run(rejected)
    assert (result.state, isinstance(result.result, Reject)) == ("FAILURE", True)
    assert (result.result.reason, result.result.requeue) == ("not mine", False)


def test_a_task_that_rejects_itself_for_ever_ends_in_eager_mode(database: Any) -> None:
    @shared_task
    def rejected() -> None:
        raise Reject(requeue=True)

    with pytest.raises(RuntimeError, match="rejected itself 100 times: on a worker it would never end"):
        rejected.apply()


# Revoked -------------------------------------------------------------------------------------------------------------


@pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")
@pytest.mark.parametrize("options", [{}, {"countdown": 3600}, {"task_id": "my-own"}], ids=str)
def test_what_is_revoked_before_it_starts_never_runs(options: dict[str, Any], worker: Worker) -> None:
    """R12: a revoke accepted before the start prevents the start, whoever works later."""
    ran: list[int] = []

    @shared_task
    def work() -> None:
        ran.append(1)

    result = work.apply_async(**options)
    result.revoke()
    assert (result.state, result.ready(), result.failed(), result.exists()) == ("REVOKED", True, False, True)
    for other in (worker, Worker(name="later@test")):
        other.drain()
    assert ran == []
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get()
    assert isinstance(result.get(propagate=False), TaskRevokedError)
    result.revoke()  # again: nothing to do
    assert result.state == "REVOKED"


def test_what_waits_for_its_next_attempt_can_be_revoked(worker: Worker) -> None:
    @shared_task(bind=True)
    def again(self: Task[..., Any]) -> None:
        self.retry(countdown=60)

    result = again.delay()
    worker.step()
    assert result.state == "RETRY"
    result.revoke()
    assert worker.drain() == 0
    assert (result.state, result.retries) == ("REVOKED", 1)


def test_a_revoke_can_be_rolled_back(worker: Worker) -> None:
    result = give.delay(5)
    with transaction.atomic():
        result.revoke()
        assert AsyncResult[Any](result.id).state == "REVOKED"
        transaction.set_rollback(True)
    worker.drain()
    assert AsyncResult[Any](result.id).get() == 5


def test_a_running_task_can_ask_whether_it_was_revoked_and_keeps_its_result(worker: Worker) -> None:
    seen: list[bool] = []

    @shared_task(bind=True)
    def work(self: Task[..., Any]) -> str:
        seen.append(self.is_revoked())
        AsyncResult[Any](str(self.request.id)).revoke()
        seen.append(self.is_revoked())
        return "done all the same"

    result = work.delay()
    worker.drain()
    assert (seen, result.state, result.get()) == ([False, True], "SUCCESS", "done all the same")
    result.revoke()
    assert (result.state, result.get()) == ("SUCCESS", "done all the same")
    assert work.apply().get() == "done all the same"


def test_a_running_task_that_was_revoked_is_not_retried(worker: Worker) -> None:
    @shared_task(bind=True)
    def work(self: Task[..., Any]) -> None:
        AsyncResult[Any](str(self.request.id)).revoke()
        self.retry(countdown=0)

    result = work.delay()
    worker.drain()
    assert result.state == "REVOKED"


def test_that_a_running_task_is_to_be_ended_is_written_down_for_its_worker(worker: Worker) -> None:
    """No message that could be lost: whoever runs it finds it in the row."""
    result = give.delay(1)
    delivery = worker.claim()
    assert delivery is not None
    with pytest.raises(ValueError, match="signal is 'SIGNOPE'; allowed: the name or number of a signal"):
        result.revoke(terminate=True, signal="SIGNOPE")
    assert get_broker().to_stop(worker.holder.worker) == []
    result.revoke(terminate=True, signal=9)
    assert get_broker().to_stop(worker.holder.worker) == [(delivery.id, 1, worker.holder.slot, "SIGKILL")]


# Progress ------------------------------------------------------------------------------------------------------------


@pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")
def test_progress_is_seen_at_once(worker: Worker) -> None:
    seen: list[Any] = []

    @shared_task(bind=True)
    def report(self: Task[..., Any]) -> str:
        other = AsyncResult[Any](str(self.request.id))
        seen.append((other.state, other.info))
        self.update_state(state="PROGRESS", meta={"current": 3, "total": 10, "at": date(2026, 1, 1)})
        seen.append((other.state, other.info, other.ready()))
        self.update_state(meta=[1])
        seen.append((other.state, other.info))
        self.update_state(state="UPLOADING")
        seen.append((other.state, other.info))
        self.update_state(state="WARNING", meta=ValueError("hm"))
        seen.append((other.state, other.info["exc_type"]))
        return "done"

    result = report.delay()
    worker.drain()
    assert seen == [
        ("STARTED", None),
        ("PROGRESS", {"current": 3, "total": 10, "at": date(2026, 1, 1)}, False),
        ("PROGRESS", [1]),
        ("UPLOADING", None),
        ("WARNING", "ValueError"),
    ]
    assert (result.state, result.info, result.get()) == ("SUCCESS", "done", "done")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"state": ""}, ValueError, "A state is a name of at most 64 characters, not ''"),
        ({"state": "x" * 65}, ValueError, "A state is a name of at most 64 characters"),
        ({"state": 5}, ValueError, "A state is a name of at most 64 characters, not 5"),
        ({"meta": 1j}, EncodeError, "complex"),
        ({"task_id": "another"}, ValueError, "the state of another one is not ours to set"),
    ],
    ids=str,
)
def test_what_cannot_be_told_fails_the_task_in_either_mode(
    options: dict[str, Any], error: type[Exception], message: str, run: Runner
) -> None:
    @shared_task(bind=True)
    def report(self: Task[..., Any]) -> None:
        self.update_state(**options)

    with pytest.raises(error, match=message):
        run(report).get()


@pytest.mark.parametrize(
    ("state", "meta", "shown"),
    [
        ("SUCCESS", {"rows": 3}, {"rows": 3}),
        ("FAILURE", ValueError("no", 5), ValueError("no", 5)),
        ("FAILURE", {"exc_type": "SoldOut", "exc_message": ["none", "left"], "custom": 1}, "none, left"),
        ("FAILURE", "just a text", "just a text"),
        ("REVOKED", TaskRevokedError("terminated"), TaskRevokedError("terminated")),
    ],
    ids=str,
)
def test_a_task_may_tell_its_own_end_and_raise_ignore(state: str, meta: Any, shown: Any, run: Runner) -> None:
    seen: list[Any] = []

    @shared_task(bind=True)
    def decide(self: Task[..., Any]) -> None:
        self.update_state(state=state, meta=meta)
        seen.append(run.is_eager or AsyncResult[Any](str(self.request.id)).ready())
        raise Ignore

    result = run(decide)
    assert (result.state, result.ready(), seen) == (state, True, [run.is_eager])
    if isinstance(shown, Exception):
        assert (type(result.result), result.result.args) == (type(shown), shown.args)
    else:
        assert str(result.result) == str(shown)
    if state != "SUCCESS":
        with pytest.raises(Exception, match=str(shown)[:4] if not isinstance(shown, Exception) else shown.args[0]):
            result.get()


def test_progress_in_eager_mode_and_outside_of_a_run_is_told_to_nobody() -> None:
    @shared_task(bind=True)
    def report(self: Task[..., Any]) -> str:
        self.update_state(state="PROGRESS", meta={"current": 3})
        return "done"

    assert report.apply().get() == "done"
    assert report() == "done"
