"""What is called before and after a task, in which order and with what."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import transaction

from django_tasks import AsyncResult, Task, send_task, shared_task, signals
from django_tasks.exceptions import Ignore, Reject, Retry
from django_tasks.listeners import ExceptionInfo
from tests.api.conftest import Runner
from tests.api.recorder import Recorded, names, recording
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "redis")


@shared_task(bind=True, base=Recorded, max_retries=1)
def work(self: Recorded, /, do: str = "", **kwargs: Any) -> Any:
    self.log.append(("body",))
    if do == "fail":
        raise ValueError("no")
    if do == "retry":
        self.retry(exc=ValueError("no"), countdown=0)
    if do == "ignore":
        raise Ignore("never mind")
    if do == "reject":
        raise Reject("not mine")
    return 5


@contextmanager
def hearing(signal: signals.Signal, **connection: Any) -> Iterator[list[dict[str, Any]]]:
    """Give the list of what the signal tells meanwhile."""
    heard: list[dict[str, Any]] = []

    def hear(signal: Any, **told: Any) -> None:
        heard.append(told)

    signal.connect(hear, **connection)
    try:
        yield heard
    finally:
        signal.disconnect(hear, **connection)


SENT = ["before_task_publish", "after_task_publish"]
ORDER = {
    "": ["task_prerun", "before_start", "body", "on_success", "task_success", "after_return", "task_postrun"],
    "fail": ["task_prerun", "before_start", "body", "on_failure", "task_failure", "after_return", "task_postrun"],
    "ignore": ["task_prerun", "before_start", "body", "task_postrun"],
    "reject": [
        *("task_prerun", "before_start", "body", "task_rejected", "on_failure", "task_failure"),
        *("after_return", "task_postrun"),
    ],
    "retry": [
        *("task_prerun", "before_start", "body", "on_retry", "task_retry", "task_postrun"),
        *("task_prerun", "before_start", "body", "on_failure", "task_failure", "after_return", "task_postrun"),
    ],
}


@pytest.mark.parametrize("do", ORDER, ids=lambda do: do or "succeed")
def test_handlers_and_signals_come_in_celery_s_order(do: str, run: Runner) -> None:
    with recording() as log:
        run(work, do)
    assert [name for name in names(log) if name != "task_received"] == SENT + ORDER[do]
    assert names(log).count("task_received") == (0 if run.is_eager else names(log).count("task_prerun"))


def test_handlers_get_what_celery_s_get(run: Runner) -> None:
    with recording() as log:
        run.apply(work, ("",), {"x": 1})
        run.apply(work, ("fail",))
        run.apply(work, ("retry",))
    error = ("ValueError", "no")
    told = [entry for entry in log if entry[0].startswith(("on_", "after_return", "before_start"))]
    assert told == [
        ("before_start", [""], {"x": 1}),
        ("on_success", 5, [""], {"x": 1}),
        ("after_return", "SUCCESS", 5, [""], {"x": 1}, False),
        ("before_start", ["fail"], {}),
        ("on_failure", error, ["fail"], {}, error),
        ("after_return", "FAILURE", error, ["fail"], {}, True),
        ("before_start", ["retry"], {}),
        ("on_retry", error, ["retry"], {}, True),
        ("before_start", ["retry"], {}),
        ("on_failure", error, ["retry"], {}, error),
        ("after_return", "FAILURE", error, ["retry"], {}, True),
    ]


def test_signals_tell_what_celery_s_tell(run: Runner) -> None:
    with recording() as log:
        run(work)
        run(work, "fail")
        run(work, "retry")
        run(work, "ignore")
    error = ("ValueError", "no")
    ends = [entry for entry in log if entry[0] in ("task_success", "task_failure", "task_retry", "task_postrun")]
    assert ends == [
        ("task_success", work.name, {"result": 5}),
        ("task_postrun", work.name, {"retval": 5, "state": "SUCCESS"}),
        ("task_failure", work.name, {"exception": error}),
        ("task_postrun", work.name, {"retval": error, "state": "FAILURE"}),
        ("task_retry", work.name, {"reason": ("Retry", "Retry in 0s: ValueError('no')")}),
        ("task_postrun", work.name, {"retval": ("Retry", "Retry in 0s: ValueError('no')"), "state": "RETRY"}),
        ("task_failure", work.name, {"exception": error}),
        ("task_postrun", work.name, {"retval": error, "state": "FAILURE"}),
        ("task_postrun", work.name, {"retval": ("Ignore", "never mind"), "state": "IGNORED"}),
    ]


def test_handlers_and_signals_run_under_the_request_once_the_outcome_is_stored(run: Runner) -> None:
    run.configure(TASK_STORE_EAGER_RESULT=True)
    seen: list[Any] = []

    class Watching(Task[..., Any]):
        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            other = AsyncResult[Any](task_id)
            seen.append((self.request.id == task_id, other.state, other.result))

    @shared_task(base=Watching)
    def watched() -> int:
        return 7

    run(watched)
    with hearing(signals.task_postrun, sender=watched) as heard:
        result = run(watched)
    assert seen == [(True, "SUCCESS", 7)] * 2
    assert [told["task_id"] for told in heard] == [result.id]


def test_a_failure_tells_its_traceback(run: Runner) -> None:
    with hearing(signals.task_failure) as heard:
        result = run(work, "fail")
    [told] = heard
    assert told["task_id"] == result.id
    assert (told["args"], told["kwargs"]) == (["fail"], {})
    assert isinstance(told["einfo"], ExceptionInfo)
    assert str(told["einfo"]) == told["einfo"].traceback == result.traceback
    assert told["einfo"].type is ValueError
    assert told["traceback"] is not None


def test_a_success_tells_how_long_it_took(run: Runner) -> None:
    with hearing(signals.task_success, sender=work) as heard:
        run(work)
    assert 0 <= heard[0]["runtime"] < 60


def test_a_retry_tells_its_request_and_reason(run: Runner) -> None:
    with hearing(signals.task_retry) as heard:
        result = run(work, "retry")
    [told] = heard
    assert (told["request"].id, told["request"].retries) == (result.id, 0)
    assert isinstance(told["reason"], Retry)
    assert str(told["reason"].exc) == "no"


def test_what_before_start_raises_fails_the_task(run: Runner) -> None:
    class Guarded(Task[..., Any]):
        def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
            raise PermissionError(f"not for {args[0]}")

    @shared_task(base=Guarded)
    def guarded(x: str) -> None:
        raise AssertionError("it ran")

    result = run(guarded, "you")
    assert (result.state, str(result.result)) == ("FAILURE", "not for you")


def test_handlers_may_be_given_as_options(run: Runner) -> None:
    told: list[Any] = []

    def tell(self: Any, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        told.append((self.name, str(exc)))

    @shared_task(on_failure=tell)
    def failing() -> None:
        raise ValueError("no")

    run(failing)
    assert told == [(failing.name, "no")]


def test_a_handler_or_receiver_that_raises_is_logged_and_harms_nothing(
    run: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Task[..., Any]):
        def on_success(self, *args: Any, **kwargs: Any) -> None:
            raise ZeroDivisionError("in the handler")

    @shared_task(base=Broken)
    def fine() -> int:
        return 5

    def receive(**kwargs: Any) -> None:
        raise ZeroDivisionError("in the receiver")

    for signal in (signals.before_task_publish, signals.task_prerun, signals.task_success, signals.task_postrun):
        signal.connect(receive)
    with caplog.at_level(logging.ERROR), recording() as log:
        result = run(fine)
    for signal in (signals.before_task_publish, signals.task_prerun, signals.task_success, signals.task_postrun):
        signal.disconnect(receive)
    assert (result.state, result.get()) == ("SUCCESS", 5)
    assert names(log)[-2:] == ["task_success", "task_postrun"]
    errors = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert errors.count("in the handler") == 1
    assert errors.count("in the receiver") == 4


def test_a_receiver_of_one_task_hears_of_no_other(run: Runner) -> None:
    @shared_task
    def other() -> None: ...

    with hearing(signals.task_prerun, sender=work) as heard:
        run(other)
        run(work)
    assert [told["task"] for told in heard] == [work]


# Sending -------------------------------------------------------------------------------------------------------------


def test_before_a_task_is_sent_its_message_is_told_and_headers_may_be_added(run: Runner) -> None:
    @shared_task(bind=True)
    def tell(self: Task[..., Any], x: int) -> Any:
        return [self.request.headers, self.request.properties, self.request.get("trace")]

    def add_trace(headers: dict[str, Any], properties: dict[str, Any], **kwargs: Any) -> None:
        headers["trace"] = f"for {headers['id']}"
        headers["retries"] = 99  # not ours to change
        properties["app_id"] = "shop"

    with hearing(signals.before_task_publish, sender=tell.name) as heard:
        signals.before_task_publish.connect(add_trace)
        result = run.apply(tell, (1,), headers={"tenant": "acme"}, queue="mail", shadow="a name")
        signals.before_task_publish.disconnect(add_trace)
    trace = f"for {result.id}"
    assert result.get() == [{"tenant": "acme", "trace": trace}, {"app_id": "shop"}, trace]
    assert result.retries == 0
    [told] = heard
    assert told["sender"] == tell.name
    assert told["body"][:2] == ((1,), {})
    assert (told["exchange"], told["routing_key"]) == ("", "mail")
    assert told["properties"]["correlation_id"] == result.id
    assert told["retry_policy"]["max_retries"] == 3
    expected = {
        "id": result.id,
        "task": tell.name,
        "lang": "py",
        "shadow": "a name",
        "root_id": result.id,
        "tenant": "acme",
    }
    assert expected.items() <= told["headers"].items()
    assert (told["headers"]["argsrepr"], told["headers"]["kwargsrepr"]) == ("(1,)", "{}")


def test_after_it_was_sent_the_same_is_told(run: Runner) -> None:
    with hearing(signals.after_task_publish) as heard:
        result = run.apply(work, (), {"x": 2}, countdown=5, expires=50, headers={"tenant": "acme"})
        run.finish()
        many = work.enqueue_many([(), ("",)])
    assert [told["headers"]["id"] for told in heard] == [result.id, *many]
    assert [told["body"][:2] for told in heard] == [((), {"x": 2}), ((), {}), (("",), {})]
    assert heard[0]["headers"]["tenant"] == "acme"
    assert heard[0]["headers"]["eta"] < heard[0]["headers"]["expires"]


def test_what_is_not_stored_again_is_not_told_again(worker: Worker) -> None:
    with hearing(signals.after_task_publish) as heard:
        for _ in range(2):
            work.apply_async(task_id="once")
    assert len(heard) == 1


# Revoked -------------------------------------------------------------------------------------------------------------


def test_an_expired_task_is_told_as_revoked(run: Runner) -> None:
    with hearing(signals.task_revoked, sender=work) as heard:
        result = run.apply(work, expires=-1)
    [told] = heard
    assert (told["request"].id, told["expired"], told["terminated"], told["signum"]) == (result.id, True, False, None)


def test_a_revoked_task_is_told_when_that_is_certain(worker: Worker) -> None:
    with hearing(signals.task_revoked, sender=work) as heard:
        result = work.delay("x")
        with transaction.atomic():
            result.revoke()
            transaction.set_rollback(True)
        assert heard == []
        with transaction.atomic():
            result.revoke()
            assert heard == []
        result.revoke()  # once more: it is over already
        worker.drain()
    [told] = heard
    assert (told["request"].id, told["request"].task, told["request"].args) == (result.id, work.name, ["x"])
    assert (told["expired"], told["terminated"]) == (False, False)


def test_an_unknown_task_is_told(worker: Worker) -> None:
    with hearing(signals.task_unknown) as heard:
        result = send_task("elsewhere.work")
        worker.drain()
    assert [(told["name"], told["id"]) for told in heard] == [("elsewhere.work", result.id)]


def test_receivers_are_connected_by_a_decorator(run: Runner) -> None:
    heard: list[str] = []

    @signals.task_success.connect
    def bare(sender: Any, result: Any, **kwargs: Any) -> None:
        heard.append(f"bare {result}")

    @signals.task_success.connect(sender=work)
    def of_one(sender: Any, **kwargs: Any) -> None:
        heard.append(f"of {sender.name}")

    run(work)
    assert heard == ["bare 5", f"of {work.name}"]
    signals.task_success.disconnect(bare)
    signals.task_success.disconnect(of_one, sender=work)
