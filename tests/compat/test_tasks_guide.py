"""What Celery's guides show about tasks and calls, with the import changed and nothing else.

https://docs.celeryq.dev/en/stable/userguide/tasks.html, …/calling.html and …/getting-started/
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

import pytest

from django_tasks import AsyncResult, Task, current_task, shared_task, states
from django_tasks.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry, TaskRevokedError
from django_tasks.utils.log import get_task_logger
from tests.api.conftest import Runner
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite")

logger = get_task_logger(__name__)


class Unavailable(Exception):
    """The other side does not answer."""


class Mailbox:
    """The other side: fails so many times, then takes what is sent."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.sent: list[str] = []

    def send(self, text: str) -> str:
        if self.failures:
            self.failures -= 1
            raise Unavailable("try later")
        self.sent.append(text)
        return text


mailbox = Mailbox()


@shared_task
def add(x: int, y: int) -> int:
    return x + y


# First steps ---------------------------------------------------------------------------------------------------------


def test_a_first_task(run: Runner) -> None:
    result = run(add, 4, 4)
    assert result.ready()
    assert result.get(timeout=1) == 8
    assert (result.state, result.failed(), result.successful()) == ("SUCCESS", False, True)

    @shared_task
    def divide(x: int, y: int) -> float:
        return x / y

    failed = run(divide, 1, 0)
    with pytest.raises(ZeroDivisionError):
        failed.get()
    assert isinstance(failed.get(propagate=False), ZeroDivisionError)
    assert "ZeroDivisionError" in (failed.traceback or "")


# Names and arguments -------------------------------------------------------------------------------------------------


def test_names_are_given_or_made(run: Runner) -> None:
    @shared_task(name="sum-of-two-numbers")
    def sum_of(x: int, y: int) -> int:
        return x + y

    assert (sum_of.name, add.name) == ("sum-of-two-numbers", "tests.compat.test_tasks_guide.add")


def test_a_bad_call_is_found_out_by_the_caller_unless_told_otherwise(run: Runner) -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'y'"):
        add.delay(8)  # type: ignore[call-arg]

    @shared_task(typing=False)
    def loose(x: int, y: int) -> int:
        return x + y

    assert isinstance(run(loose, 8).result, TypeError)


def test_secrets_can_be_hidden_from_people(worker: Worker) -> None:
    """J2: what is logged and shown is argsrepr, what the task gets is the real thing."""
    seen: list[Any] = []

    @shared_task
    def charge(account: str, card: str) -> None:
        seen.append(card)

    result = charge.apply_async(("1234", "4111"), argsrepr="(1234, <card>)", kwargsrepr="{}")
    worker.drain()
    assert (seen, result.args) == (["4111"], ["1234", "4111"])


# The request ---------------------------------------------------------------------------------------------------------


def test_a_bound_task_can_look_at_its_context(run: Runner) -> None:
    @shared_task(bind=True)
    def dump_context(self: Task[..., Any], /, x: int, y: int, **kwargs: Any) -> str:
        return f"Executing task id {self.request.id}, args: {self.request.args!r} kwargs: {self.request.kwargs!r}"

    result = run(dump_context, 1, 2, z=3)
    assert result.get() == f"Executing task id {result.id}, args: [1, 2] kwargs: {{'z': 3}}"


def test_a_helper_can_find_the_current_task(run: Runner) -> None:
    def who() -> str:
        return f"{current_task.name}[{current_task.request.id}]"

    @shared_task
    def ask() -> str:
        return who()

    result = run(ask)
    assert result.get() == f"{ask.name}[{result.id}]"


def test_logging_names_the_task(run: Runner, caplog: pytest.LogCaptureFixture) -> None:
    @shared_task
    def log_something() -> None:
        logger.info("Adding %s + %s", 1, 2)

    with caplog.at_level(logging.INFO):
        run(log_something)
    assert "Adding 1 + 2" in caplog.messages


# Retrying ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failures", [0, 2, 3, 4])
def test_retrying_with_exponential_backoff_by_hand(failures: int, run: Runner) -> None:
    mailbox.failures = failures

    @shared_task(bind=True, max_retries=3)
    def send(self: Task[..., Any], text: str) -> str:
        try:
            return mailbox.send(text)
        except Unavailable as exc:
            raise self.retry(exc=exc, countdown=2**self.request.retries)  # noqa: B904 - as the guide has it

    result = run(send, "hello")
    assert result.state == ("SUCCESS" if failures < 4 else "FAILURE")
    assert result.retries == min(failures, 3)
    if failures == 4:
        with pytest.raises(Unavailable):
            result.get()


def test_retrying_by_itself(run: Runner) -> None:
    mailbox.failures = 3

    @shared_task(autoretry_for=(Unavailable,), retry_backoff=True, retry_kwargs={"max_retries": 5})
    def send(text: str) -> str:
        return mailbox.send(text)

    result = run(send, "hello")
    assert (result.get(), result.retries) == ("hello", 3)


def test_autoretry_on_a_class(run: Runner) -> None:
    class Retrying(Task[..., Any]):
        autoretry_for = (Unavailable,)
        max_retries = 5
        retry_backoff = True
        retry_backoff_max = 700
        retry_jitter = False

    mailbox.failures = 5

    @shared_task(base=Retrying)
    def send(text: str) -> str:
        return mailbox.send(text)

    assert run(send, "hello").retries == 5


def test_giving_up_without_an_exception(run: Runner) -> None:
    @shared_task(bind=True, default_retry_delay=30, max_retries=1)
    def never(self: Task[..., Any]) -> None:
        self.retry()

    assert isinstance(run(never).result, MaxRetriesExceededError)


# Ways to end ---------------------------------------------------------------------------------------------------------


def test_own_states_while_a_task_runs(worker: Worker) -> None:
    seen: list[Any] = []

    @shared_task(bind=True)
    def upload_files(self: Task[..., Any], filenames: list[str]) -> None:
        for i, _file in enumerate(filenames):
            self.update_state(state="PROGRESS", meta={"current": i, "total": len(filenames)})
            result = AsyncResult[Any](str(self.request.id))
            seen.append((result.state, result.info))

    upload_files.delay(["a", "b"])
    worker.drain()
    assert seen == [("PROGRESS", {"current": 0, "total": 2}), ("PROGRESS", {"current": 1, "total": 2})]


def test_a_failure_of_ones_own_making(run: Runner) -> None:
    @shared_task(bind=True)
    def process(self: Task[..., Any]) -> None:
        self.update_state(state=states.FAILURE, meta={"exc_type": "OutOfStock", "exc_message": ["no tea left"]})
        raise Ignore()

    result = run(process)
    assert (result.state, type(result.result).__name__, str(result.result)) == ("FAILURE", "OutOfStock", "no tea left")


def test_requeue_once_and_give_up_the_second_time(run: Runner) -> None:
    seen: list[Any] = []

    @shared_task(bind=True, acks_late=True)
    def render(self: Task[..., Any]) -> None:
        info = self.request.delivery_info
        assert info is not None
        seen.append(info["redelivered"])
        raise Reject("out of memory", requeue=not info["redelivered"])

    result = run(render)
    assert (seen, result.state) == ([False, True], "FAILURE")


def test_expected_exceptions_are_no_alarm(run: Runner, caplog: pytest.LogCaptureFixture) -> None:
    @shared_task(throws=(KeyError,))
    def get_one(name: str) -> None:
        raise KeyError(name)

    with caplog.at_level(logging.INFO):
        result = run(get_one, "x")
    assert result.failed()
    assert all(record.levelno < logging.ERROR for record in caplog.records)


def test_an_exception_with_arguments_of_its_own_comes_back(run: Runner) -> None:
    result = run(get_page)
    assert isinstance(result.result, HttpError)
    assert (result.result.status_code, result.result.args) == (404, (404, {"a": "b"}))


class HttpError(Exception):
    """All arguments are passed on, so that it can be made again."""

    def __init__(self, status_code: int, headers: dict[str, str] | None = None, body: str | None = None) -> None:
        self.status_code = status_code
        super().__init__(status_code, headers)


@shared_task
def get_page() -> None:
    raise HttpError(404, {"a": "b"})


def test_waiting_for_a_subtask_is_refused(run: Runner) -> None:
    @shared_task
    def update_page() -> Any:
        return add.delay(1, 2).get()

    assert isinstance(run(update_page).result, RuntimeError)


# Classes -------------------------------------------------------------------------------------------------------------


def test_a_connection_kept_by_the_task_s_class(run: Runner) -> None:
    opened: list[int] = []

    class DatabaseTask(Task[..., Any]):
        _db: Any = None

        @property
        def db(self) -> list[str]:
            if self._db is None:
                opened.append(1)
                self._db = ["row"]
            return self._db  # type: ignore[no-any-return]

    @shared_task(base=DatabaseTask, bind=True)
    def process_rows(self: DatabaseTask) -> int:
        return len(self.db)

    assert [run(process_rows).get() for _ in range(3)] == [1, 1, 1]
    assert opened == [1]


def test_handlers_on_a_class(run: Runner) -> None:
    told: list[str] = []

    class Alerting(Task[..., Any]):
        def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(f"{task_id} failed: {exc!r}")

        def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
            told.append(f"{status} {retval!r}")

    @shared_task(base=Alerting)
    def fail() -> None:
        raise KeyError()

    result = run(fail)
    assert told == [f"{result.id} failed: KeyError()", "FAILURE KeyError()"]


def test_wrapping_every_run(run: Runner) -> None:
    entered: list[str] = []

    class ContextTask(Task[..., Any]):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            entered.append(str(self.request.id))
            return super().__call__(*args, **kwargs)

    @shared_task(base=ContextTask, bind=True)
    def inner(self: Task[..., Any], x: int) -> Any:
        return [self.request.id, x]

    result = run(inner, 1)
    assert result.get() == [result.id, 1]
    assert entered == [result.id]


# Calling -------------------------------------------------------------------------------------------------------------


def test_the_ways_of_calling(run: Runner) -> None:
    tomorrow = datetime.now(tz=UTC) + timedelta(days=1)
    calls: list[dict[str, Any]] = [
        {"countdown": 10},
        {"eta": tomorrow},
        {"countdown": 60, "expires": 120},
        {"expires": tomorrow},
        {
            "retry": True,
            "retry_policy": {"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2},
        },
        {"serializer": "json", "compression": "zlib"},
        {"queue": "priority.high"},
        {"priority": 9},
        {"task_id": "my-own-id"},
    ]
    assert [run.apply(add, (2, 2), **options).get() for options in calls] == [4] * len(calls)
    assert run.apply(add, args=[2], kwargs={"y": 2}).get() == 4
    assert run.apply(add, (2, 2), ignore_result=True).get() is None


def test_what_cannot_be_sent_is_an_operational_error(run: Runner) -> None:
    assert issubclass(add.OperationalError, Exception)
    with pytest.raises(add.OperationalError):
        raise add.OperationalError("the broker is away")


def test_revoking_by_result(worker: Worker) -> None:
    result = add.apply_async((2, 2), countdown=60)
    result.revoke()
    worker.drain()
    with pytest.raises(TaskRevokedError):
        result.get(timeout=1)


# Testing -------------------------------------------------------------------------------------------------------------


@shared_task(bind=True)
def send_order(self: Task[..., Any], text: str) -> None:
    try:
        mailbox.send(text)
    except Unavailable as exc:
        raise self.retry(exc=exc)  # noqa: B904 - as the guide has it


def test_tasks_are_tested_as_functions_with_parts_replaced() -> None:
    with patch.object(mailbox, "send") as sending:
        send_order("tea")
        sending.assert_called_with("tea")
    with patch.object(mailbox, "send", side_effect=Unavailable()), patch.object(send_order, "retry") as retrying:
        retrying.side_effect = Retry()
        with pytest.raises(Retry):
            send_order("tea")


def test_callers_are_tested_with_the_task_replaced() -> None:
    with patch.object(add, "delay") as delaying:
        add.delay(1, 2)
        delaying.assert_called_once_with(1, 2)
