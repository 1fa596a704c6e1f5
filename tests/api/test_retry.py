"""``self.retry()`` and ``autoretry_for``: what is tried again, when, how often, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_tasks import Task, models, shared_task
from django_tasks.exceptions import MaxRetriesExceededError, Retry
from tests.api.conftest import Runner
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "redis")


class Flaky(Exception):
    """Something that may go better next time."""


class Hopeless(Flaky):
    """Something that may not."""


@shared_task(bind=True, max_retries=2)
def shaky(self: Task[..., Any], /, fails: int, **options: Any) -> str:
    """Fail so many times, then say in which attempt it went well."""
    if self.request.retries < fails:
        try:
            raise Flaky(f"attempt {self.request.retries}")
        except Flaky as error:
            raise self.retry(exc=error, **options) from error
    return f"after {self.request.retries}"


# How often -----------------------------------------------------------------------------------------------------------


def test_a_retry_runs_again_under_the_same_id(run: Runner) -> None:
    result = run(shaky, 2)
    assert (result.get(), result.state, result.retries) == ("after 2", "SUCCESS", 2)


def test_past_the_limit_the_exception_itself_is_the_failure(run: Runner) -> None:
    result = run(shaky, 9)
    assert (result.state, result.retries) == ("FAILURE", 2)
    assert (type(result.result), str(result.result)) == (Flaky, "attempt 2")
    assert result.traceback is not None
    assert 'raise Flaky(f"attempt' in result.traceback
    with pytest.raises(Flaky, match="attempt 2"):
        result.get()


def test_past_the_limit_without_an_exception_it_says_so(run: Runner) -> None:
    @shared_task(bind=True, max_retries=1)
    def again(self: Task[..., Any], x: int) -> None:
        self.retry(args=(x + 1,), countdown=0)

    result = run(again, 1)
    error = result.result
    assert isinstance(error, again.MaxRetriesExceededError)
    assert isinstance(error, MaxRetriesExceededError)
    assert str(error) == f"Can't retry {again.name}[{result.id}] args:[3] kwargs:{{}}" or "args:(3,)" in str(error)


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_retry_may_set_its_own_limit(limit: int, run: Runner) -> None:
    result = run(shaky, 99, max_retries=limit)
    assert (result.state, result.retries) == ("FAILURE", limit)


def test_max_retries_of_none_is_for_ever(run: Runner) -> None:
    @shared_task(bind=True, max_retries=None)
    def stubborn(self: Task[..., Any]) -> int:
        if self.request.retries < 12:
            self.retry(countdown=0)
        return self.request.retries

    assert run(stubborn).get() == 12


def test_a_task_may_decide_by_category(run: Runner) -> None:
    """Transient errors are tried again, permanent ones fail at once, unknown ones are tried a few times."""

    @shared_task(bind=True, max_retries=5)
    def sort_out(self: Task[..., Any], kind: str) -> str:
        try:
            raise {"transient": Flaky, "permanent": Hopeless, "unknown": RuntimeError}[kind](kind)
        except Hopeless:
            raise
        except Flaky as error:
            if self.request.retries == 4:
                return "well"
            raise self.retry(exc=error, countdown=2**self.request.retries) from error
        except RuntimeError as error:
            raise self.retry(exc=error, max_retries=1, countdown=0) from error

    assert (run(sort_out, "transient").get(), run(sort_out, "transient").retries) == ("well", 4)
    for kind, error, retries in [("permanent", Hopeless, 0), ("unknown", RuntimeError, 1)]:
        result = run(sort_out, kind)
        assert (type(result.result), result.retries) == (error, retries)
        assert f"raise {{" in (result.traceback or "")  # noqa: F541 - a brace


# When ----------------------------------------------------------------------------------------------------------------


def seconds_to_go() -> float:
    due: datetime = models.Task.objects.get().due_at
    return (due - timezone.now()).total_seconds()


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({}, 180),
        ({"countdown": 60}, 60),
        ({"countdown": 0}, 0),
        ({"countdown": -5}, 0),
        ({"countdown": 0.5}, 0.5),
        ({"eta": timedelta(hours=2)}, 7200),
        ({"eta": datetime(2000, 1, 1, tzinfo=UTC)}, 0),
    ],
    ids=str,
)
def test_the_next_attempt_waits_as_long_as_it_was_told(options: Any, seconds: float, worker: Worker) -> None:
    if isinstance(options.get("eta"), timedelta):
        options = {"eta": timezone.now() + options["eta"]}

    @shared_task(bind=True)
    def later(self: Task[..., Any]) -> None:
        raise self.retry(**options)

    result = later.delay()
    worker.step()
    assert result.state == "RETRY"
    if seconds:
        assert seconds - 60 < seconds_to_go() <= seconds + 60
        assert worker.step() is None or seconds < 1
    else:
        assert seconds_to_go() <= 0 or options.get("eta")
        assert worker.step() is not None


def test_while_it_waits_it_tells_why(worker: Worker) -> None:
    result = shaky.delay(2)
    worker.step()
    assert (result.state, result.ready(), result.retries) == ("RETRY", False, 1)
    assert (type(result.result), str(result.result)) == (Flaky, "attempt 0")
    assert "Flaky: attempt 0" in (result.traceback or "")
    worker.drain()
    assert [(one["outcome"], one["attempt"]) for one in models.TaskResult.objects.get().attempts] == [
        ("RETRY", 1),
        ("RETRY", 2),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"countdown": "soon"}, "countdown must be seconds as a number, not 'soon'"),
        ({"eta": 5}, "eta must be a datetime, not 5"),
        ({"countdown": 1, "eta": datetime(2100, 1, 1)}, "either countdown"),
        ({"max_retries": -1}, "max_retries is -1; allowed"),
        ({"exc": "text"}, "takes an exception, not 'text'"),
        ({"queue": "no spaces"}, "queue is 'no spaces'; allowed"),
        ({"priority": 1000}, "priority is 1000; allowed"),
        ({"headers": 5}, "headers must be a dict, not 5"),
        ({"task_id": "new"}, "has no option 'task_id'; it takes"),
        ({"count_down": 1}, "has no option 'count_down'; it takes"),
        ({"args": (1, 2, 3)}, "too many positional arguments"),
    ],
    ids=str,
)
def test_a_bad_option_of_a_retry_fails_the_task_and_says_which(options: Any, message: str, run: Runner) -> None:
    @shared_task(bind=True)
    def wrong(self: Task[..., Any], x: int = 0) -> None:
        raise self.retry(**options)

    result = run(wrong)
    assert result.state == "FAILURE"
    with pytest.raises((TypeError, ValueError), match=message):
        result.get()


# With what -----------------------------------------------------------------------------------------------------------


@shared_task(bind=True)
def echo(self: Task[..., Any], a: int, b: int = 0, *rest: int, c: int = 0, retry: dict[str, Any] | None = None) -> Any:
    if self.request.retries == 0 and retry:
        self.retry(countdown=0, **retry)
    return [a, b, list(rest), c]


@pytest.mark.parametrize(
    ("args", "kwargs", "change", "value"),
    [
        ((1, 2), {"c": 3}, {}, [1, 2, [], 3]),
        ((1, 2), {}, {"args": (7,)}, [7, 0, [], 0]),
        ((1, 2), {"c": 3}, {"args": (7,)}, [7, 0, [], 3]),
        ((1, 2), {}, {"kwargs": {"c": 9}}, [1, 2, [], 9]),
        ((1, 2), {}, {"args": (7, 8), "kwargs": {"c": 9}}, [7, 8, [], 9]),
        # The same parameter by position, then by name, and the other way round.
        ((1, 2), {}, {"kwargs": {"b": 9}}, [1, 9, [], 0]),
        ((1,), {"b": 2}, {"args": (7, 8)}, [7, 8, [], 0]),
        ((1, 2, 3, 4), {}, {"kwargs": {"a": 9}}, [9, 2, [3, 4], 0]),
    ],
)
def test_a_retry_may_change_the_arguments(args: Any, kwargs: Any, change: Any, value: Any, run: Runner) -> None:
    # That the retry shall not come a second time is told by its number, not by an argument.
    result = run.apply(echo, args, {**kwargs, "retry": change or {"queue": "default"}})
    assert result.get() == value
    assert result.retries == 1


def test_a_retry_keeps_all_else_and_may_move_it(run: Runner) -> None:
    seen: list[Any] = []

    @shared_task(bind=True)
    def move(self: Task[..., Any], x: int) -> str:
        info = self.request.delivery_info
        assert info is not None
        request = self.request
        seen.append([request.headers, request.shadow, request.properties, request.root_id])
        seen[-1] += info["queue"], info["priority"]
        if self.request.retries == 0:
            self.retry(countdown=0)
        if self.request.retries == 1:
            self.retry(countdown=0, queue="slow", priority=-5, headers={"try": 3}, shadow="third")
        return "done"

    result = run.apply(
        move, (1,), queue="quick", priority=5, headers={"tenant": "acme"}, shadow="first", app_id="shop", task_id="mine"
    )
    assert seen == [
        [{"tenant": "acme"}, "first", {"app_id": "shop"}, "mine", "quick", 5],
        [{"tenant": "acme"}, "first", {"app_id": "shop"}, "mine", "quick", 5],
        [{"tenant": "acme", "try": 3}, "third", {"app_id": "shop"}, "mine", "slow", -5],
    ]
    assert (result.get(), result.queue, result.args) == ("done", "slow", [1])


def test_whether_the_result_is_wanted_survives_a_retry(worker: Worker) -> None:
    assert shaky.apply_async((1,), ignore_result=True).get() is None
    worker.drain()
    assert not models.TaskResult.objects.exists()


def test_the_format_of_the_arguments_survives_a_retry_and_may_be_changed(run: Runner) -> None:
    run.configure(ACCEPT_CONTENT=["json", "msgpack"])
    call: dict[str, Any] = {"retry": {"args": (2,)}}
    result = run.apply(echo, (1,), call, serializer="msgpack", compression="zlib")
    assert (result.get(), result.args) == ([2, 0, [], 0], [2])
    result = run.apply(echo, (1,), {"retry": {"serializer": "msgpack", "compression": "gzip"}})
    assert (result.get(), result.args) == ([1, 0, [], 0], [1])


# In other ways -------------------------------------------------------------------------------------------------------


def test_nothing_after_a_retry_is_run(run: Runner) -> None:
    after: list[int] = []

    @shared_task(bind=True)
    def stop(self: Task[..., Any]) -> None:
        if self.request.retries == 0:
            self.retry(countdown=0)
            after.append(1)

    assert run(stop).get() is None
    assert after == []


def test_with_throw_false_the_body_goes_on_and_the_retry_stands(run: Runner) -> None:
    after: list[int] = []

    @shared_task(bind=True)
    def go_on(self: Task[..., Any]) -> str:
        if self.request.retries == 0:
            retry = self.retry(countdown=3, throw=False)
            assert (retry.when, retry.humanize(), str(retry)) == (3, "in 3s", "Retry in 3s")
            after.append(1)
            return "not this"
        return "this"

    result = run(go_on)
    assert (result.get(), after) == ("this", [1])


def test_a_retry_may_be_raised_by_hand(run: Runner) -> None:
    @shared_task(bind=True)
    def by_hand(self: Task[..., Any]) -> int:
        if self.request.retries < 2:
            raise Retry(when=1)
        return self.request.retries

    assert run(by_hand).get() == 2


def test_called_as_a_function_a_retry_raises_what_went_wrong() -> None:
    with pytest.raises(Flaky, match="attempt 0"):
        shaky(1)
    with pytest.raises(Retry, match="Task can be retried"):
        echo(1, retry={"queue": "x"})


def test_a_test_may_push_the_request_of_a_later_attempt() -> None:
    shaky.push_request(called_directly=False, retries=1, args=[9], kwargs={})
    try:
        with pytest.raises(Retry) as caught:
            shaky.retry(countdown=5, kwargs={"countdown": 1}, headers={"a": 1}, serializer="json")
        assert caught.value.when == 5
        with pytest.raises(MaxRetriesExceededError):
            shaky.retry(max_retries=1)
    finally:
        shaky.pop_request()


def test_eager_mode_can_start_at_a_later_attempt(worker: Worker) -> None:
    assert shaky.apply((2,), retries=2).get() == "after 2"
    with pytest.raises(Flaky):
        shaky.apply((3,), retries=2, throw=True)
    with pytest.raises(ValueError, match="retries is -1; allowed"):
        shaky.apply((3,), retries=-1)


# By itself -----------------------------------------------------------------------------------------------------------


def test_the_listed_exceptions_are_retried_by_themselves(run: Runner) -> None:
    @shared_task(bind=True, autoretry_for=(Flaky,), dont_autoretry_for=(Hopeless,), retry_backoff=True)
    def auto(self: Task[..., Any], error: str = "") -> int:
        if self.request.retries < 2 or error:
            raise {"": Flaky, "hopeless": Hopeless, "other": KeyError, "for ever": Flaky}[error]("no")
        return self.request.retries

    assert run(auto).get() == 2
    for error, cls, retries in [("hopeless", Hopeless, 0), ("other", KeyError, 0), ("for ever", Flaky, 3)]:
        result = run(auto, error)
        assert (type(result.result), result.retries) == (cls, retries)
        with pytest.raises(cls):
            result.get()


def test_retry_kwargs_are_the_arguments_of_that_retry(run: Runner) -> None:
    @shared_task(autoretry_for=(Flaky,), retry_kwargs={"max_retries": 1, "countdown": 0, "queue": "slow"})
    def auto() -> None:
        raise Flaky("no")

    result = run(auto)
    assert (result.retries, result.queue, str(result.result)) == (1, "slow", "no")


def test_the_limit_of_a_retry_by_hand_counts_for_the_automatic_one_after_it(run: Runner) -> None:
    @shared_task(bind=True, autoretry_for=(Flaky,), max_retries=5, default_retry_delay=0)
    def both(self: Task[..., Any]) -> None:
        self.retry(exc=Flaky("no"), max_retries=1)

    result = run(both)
    assert (type(result.result), result.retries) == (Flaky, 1)


@pytest.mark.parametrize(
    ("options", "delays"),
    [
        ({"retry_backoff": True}, [1, 2, 4, 8]),
        ({"retry_backoff": 5}, [5, 10, 20, 40]),
        ({"retry_backoff": 0.5}, [0.5, 1, 2, 4]),
        ({"retry_backoff": True, "retry_backoff_max": 3}, [1, 2, 3, 3]),
        ({"retry_backoff": True, "retry_kwargs": {"countdown": 9}}, [1, 2, 4, 8]),
        ({}, [180, 180, 180, 180]),
        ({"default_retry_delay": 7}, [7, 7, 7, 7]),
        ({"retry_kwargs": {"countdown": 9}}, [9, 9, 9, 9]),
    ],
    ids=str,
)
@pytest.mark.parametrize("jitter", [False, True])
def test_delays_grow_as_documented(
    options: dict[str, Any], delays: list[float], jitter: bool, run: Runner, heard_retries: list[Retry]
) -> None:
    def body() -> None:
        raise Flaky("no")

    run(shared_task(autoretry_for=(Flaky,), max_retries=4, retry_jitter=jitter, **options)(body))
    told = [retry.when for retry in heard_retries]
    if jitter and "retry_backoff" in options:
        assert all(isinstance(one, int | float) and 0 <= one <= most for one, most in zip(told, delays, strict=True))
    else:
        assert told == delays


@pytest.fixture
def heard_retries() -> Any:
    from django_tasks.signals import task_retry

    heard: list[Any] = []

    def hear(reason: Retry, **kwargs: Any) -> None:
        heard.append(reason)

    task_retry.connect(hear)
    yield heard
    task_retry.disconnect(hear)


def test_a_retry_counts_over_workers(configure: Callable[..., None]) -> None:
    """R27: the count survives a change of the worker."""
    result = shaky.delay(9)
    for number in range(3):
        one = Worker(name=f"worker{number}@test")
        one.hurry()
        one.step()
    assert (result.state, result.retries, result.worker) == ("FAILURE", 2, "worker2@test")
