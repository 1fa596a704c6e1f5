"""``delay``, ``apply_async`` and every option of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import transaction
from django.test import TestCase, override_settings
from django.utils import timezone

from django_tasks import AsyncResult, EagerResult, Task, models, send_task, shared_task
from django_tasks.exceptions import (
    EncodeError,
    NotRegistered,
    OperationalError,
    PayloadTooLarge,
    TaskError,
    WouldBlockForever,
)
from tests.api.conftest import Runner
from tests.databases import TestDatabase
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "redis")


@shared_task
def add(x: int, y: int = 0, *, scale: int = 1) -> int:
    return (x + y) * scale


@shared_task(typing=False)
def untyped(x: int) -> int:
    return x


@shared_task(bind=True)
def tell(self: Task[..., Any], *names: str) -> dict[str, Any]:
    return {name: self.request.get(name) for name in names}


AN_ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


def the_row() -> models.Task:
    return models.Task.objects.get()


# Arguments -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "value"),
    [((1, 2), None, 3), ([1, 2], {}, 3), (None, {"x": 1, "y": 2, "scale": 2}, 6), ((1,), {"scale": 3}, 3)],
)
def test_arguments_go_by_position_and_by_name(args: Any, kwargs: Any, value: int, run: Runner) -> None:
    assert run.apply(add, args, kwargs).get() == value


def test_delay_takes_arguments_as_the_function_does(run: Runner) -> None:
    assert run(add, 1, y=2, scale=3).get() == 9


def test_a_call_of_the_task_runs_the_function_here() -> None:
    assert add(1, 2, scale=3) == 9


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, "missing a required argument: 'x'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"x": 2}, "multiple values for argument 'x'"),
        ((1,), {"z": 2}, "unexpected keyword argument 'z'"),
        ("12", {}, "args of tests.api.test_calling.add must be a list or tuple, not str"),
        ({1, 2}, {}, "must be a list or tuple, not set"),
        ((1,), [("y", 2)], "kwargs of tests.api.test_calling.add must be a dict, not list"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_when_the_task_is_called(
    args: Any, kwargs: Any, message: str, run: Runner
) -> None:
    with pytest.raises(TypeError, match=message):
        add.apply_async(args, kwargs)
    with pytest.raises(TypeError, match=message):
        add.apply(args, kwargs)
    assert not models.Task.objects.exists()


def test_without_typing_they_are_found_out_when_it_runs(run: Runner) -> None:
    result = run.apply(untyped, (1, 2))
    assert result.state == "FAILURE"
    assert isinstance(result.result, TypeError)


def test_a_list_of_values_from_a_queryset_travels_and_models_do_not(run: Runner) -> None:
    for name in ("ann", "bob"):
        User.objects.create(username=name)
    ids = User.objects.order_by("pk").values_list("pk", flat=True)

    @shared_task
    def count(ids: list[int]) -> int:
        return len(ids)

    assert run(count, list(ids)).get() == run(count, ids).get() == 2
    with pytest.raises(EncodeError, match="send ids"):
        count.delay(User.objects.all())  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match="User"):
        count.delay([User.objects.first()])  # type: ignore[list-item]


def test_arguments_beyond_the_limit_are_refused_before_anything_is_stored(run: Runner) -> None:
    """R24: the payload limit is enforced when the task is called."""
    run.configure(PAYLOAD_LIMIT=2048)

    @shared_task
    def size(text: str) -> int:
        return len(text)

    assert run(size, "x" * 1900).get() == 1900
    with pytest.raises(PayloadTooLarge, match=r"PAYLOAD_LIMIT'\] allows 2,048"):
        size.delay("x" * 2048)
    assert not models.Task.objects.exists()


# When ----------------------------------------------------------------------------------------------------------------


def test_a_countdown_is_seconds_from_now(worker: Worker) -> None:
    add.apply_async((1, 2), countdown=3600)
    assert worker.claim() is None
    due = (the_row().due_at - timezone.now()).total_seconds()
    assert 3500 < due <= 3600
    worker.hurry()
    assert worker.claim() is not None


@pytest.mark.parametrize("countdown", [0, 0.0, -5])
def test_a_countdown_that_has_passed_is_now(countdown: float, worker: Worker) -> None:
    add.apply_async((1, 2), countdown=countdown)
    assert worker.claim() is not None


@pytest.mark.parametrize(
    "eta",
    [
        datetime(2100, 1, 1, 12, tzinfo=UTC),
        datetime(2100, 1, 1, 13, tzinfo=ZoneInfo("Europe/Berlin")),
        "2100-01-01T12:00:00+00:00",
    ],
    ids=str,
)
def test_an_eta_is_a_moment_in_any_zone(eta: Any, worker: Worker) -> None:
    result = add.apply_async((1, 2), eta=eta)
    assert the_row().due_at == datetime(2100, 1, 1, 12, tzinfo=UTC)
    assert worker.claim() is None
    worker.drain()
    assert result.get() == 3


@override_settings(TIME_ZONE="Europe/Berlin")
def test_a_naive_eta_is_in_the_current_zone(worker: Worker) -> None:
    with timezone.override("Asia/Tokyo"):
        add.apply_async((1, 2), eta=datetime(2100, 1, 1, 9))
    assert the_row().due_at == datetime(2100, 1, 1, 0, tzinfo=UTC)


def test_eager_runs_do_not_wait(database: TestDatabase) -> None:
    assert add.apply((1, 2), countdown=3600).get() == 3
    assert add.apply((1, 2), eta=datetime(2100, 1, 1, tzinfo=UTC)).get() == 3


@pytest.mark.parametrize(
    "expires",
    [-1, 0, 0.0, timedelta(seconds=-1), datetime(2000, 1, 1, tzinfo=UTC), datetime(2000, 1, 1), "2000-01-01T00:00:00"],
    ids=str,
)
def test_what_has_expired_is_not_run_but_revoked(expires: Any, run: Runner) -> None:
    """R11: a task never runs after it has expired."""
    result = run.apply(add, (1, 2), expires=expires)
    assert (result.state, result.successful(), result.failed()) == ("REVOKED", False, False)
    assert (type(result.result).__name__, str(result.result)) == ("TaskRevokedError", "expired")


@pytest.mark.parametrize("expires", [3600, timedelta(hours=1), datetime(2100, 1, 1, tzinfo=UTC)], ids=str)
def test_what_has_not_expired_is_run(expires: Any, run: Runner) -> None:
    """R11: a task is never dropped before it has expired."""
    assert run.apply(add, (1, 2), expires=expires).get() == 3


def test_the_call_says_more_than_the_declaration(run: Runner) -> None:
    @shared_task(expires=-1, queue="slow", priority=3, ignore_result=True)
    def late() -> str:
        return "done"

    assert run(late).state in ("REVOKED", "PENDING")
    result = run.apply(late, expires=60, queue="quick", priority=-3, ignore_result=False)
    assert (result.get(), result.queue) == ("done", "quick")


# Where ---------------------------------------------------------------------------------------------------------------


def test_queue_and_priority_say_where_it_waits(worker: Worker) -> None:
    cases: list[tuple[dict[str, Any], str, int]] = [
        ({}, "default", 0),
        ({"queue": "mail"}, "mail", 0),
        ({"routing_key": "mail"}, "mail", 0),
        ({"exchange": "mail"}, "mail", 0),
        ({"queue": "mail", "routing_key": "other"}, "mail", 0),
        ({"priority": 9}, "default", 9),
        ({"priority": -100}, "default", -100),
    ]
    for options, queue, priority in cases:
        result = add.apply_async((1, 2), **options)
        row = models.Task.objects.get(pk=result.id)
        assert (row.queue, row.priority) == (queue, priority)


def test_a_route_says_more_than_the_task_and_less_than_the_call(configure: Callable[..., None]) -> None:
    configure(TASK_ROUTES={"tests.api.*": {"queue": "routed", "priority": 5}})

    @shared_task(queue="declared", priority=1)
    def somewhere() -> None: ...

    routed = AsyncResult[None](somewhere.delay().id)
    assert (routed.queue, models.Task.objects.get(pk=routed.id).priority) == ("routed", 5)
    called = somewhere.apply_async(queue="called")
    assert (called.queue, models.Task.objects.get(pk=called.id).priority) == ("called", 5)


def test_a_task_sent_by_a_task_has_its_priority_if_the_setting_says_so(run: Runner) -> None:
    run.configure(TASK_INHERIT_PARENT_PRIORITY=True)

    @shared_task(bind=True)
    def child(self: Task[..., Any]) -> Any:
        return self.request.delivery_info["priority"] if self.request.delivery_info else None

    sent: list[AsyncResult[Any]] = []

    @shared_task
    def parent() -> None:
        sent.append(child.delay())

    run.apply(parent, priority=8)
    assert sent[0].get() == 8


# Which ---------------------------------------------------------------------------------------------------------------


@pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")
@pytest.mark.parametrize("task_id", ["order-17", "Ünïcode 🎈", "x" * 255, AN_ID, AN_ID.upper(), UUID(AN_ID)], ids=str)
def test_the_caller_may_choose_the_id(task_id: Any, run: Runner) -> None:
    result = run.apply(add, (1, 2), task_id=task_id)
    assert result.id == str(task_id)
    assert result.get() == 3
    assert run.is_eager or AsyncResult[int](str(task_id)).get() == 3
    assert run.apply(tell, ("id", "root_id"), task_id=f"{AN_ID}x").get()["id"].endswith("x")


def test_sending_one_id_twice_runs_it_once(worker: Worker) -> None:
    """An id chosen by the caller is a key, whether the first call waits or is done."""
    first = add.apply_async((1, 2), task_id="once")
    assert add.apply_async((3, 4), task_id="once") == first
    assert worker.drain() == 1
    again = add.apply_async((5, 6), task_id="once")
    assert worker.drain() == 0
    assert again.get() == 3


def test_the_root_and_the_parent_are_known(run: Runner) -> None:
    sent: list[AsyncResult[Any]] = []

    @shared_task
    def parent() -> None:
        sent.append(tell.delay("root_id", "parent_id"))

    @shared_task
    def root() -> None:
        sent.append(parent.delay())

    top = run.apply(root, task_id="the-root")
    middle, leaf = (sent[0], sent[1]) if not run.is_eager else (sent[1], sent[0])
    assert top.id == "the-root"
    assert leaf.get() == {"root_id": "the-root", "parent_id": middle.id}
    assert run(tell, "root_id", "parent_id", "id").get()["parent_id"] is None
    given = run.apply(tell, ("root_id", "parent_id"), root_id="r", parent_id="p").get()
    assert given == {"root_id": "r", "parent_id": "p"}


# What else travels ---------------------------------------------------------------------------------------------------


def test_headers_and_unknown_options_reach_the_task(run: Runner) -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    result = run.apply(
        tell,
        ("headers", "properties", "tenant", "reply_to"),
        headers={"tenant": "acme", "when": when},
        app_id="shop",
        reply_to="somewhere",
    )
    assert result.get() == {
        "headers": {"tenant": "acme", "when": when},
        "properties": {"app_id": "shop", "reply_to": "somewhere"},
        "tenant": "acme",  # a header can be read like a field, as in Celery
        "reply_to": "somewhere",
    }


def test_shadow_argsrepr_and_kwargsrepr_are_for_people(run: Runner) -> None:
    result = run.apply(
        tell, ("shadow", "argsrepr", "kwargsrepr"), shadow="report for Ann", argsrepr="(…)", kwargsrepr="{…}"
    )
    assert result.get() == {"shadow": "report for Ann", "argsrepr": "(…)", "kwargsrepr": "{…}"}
    assert result.args == ["shadow", "argsrepr", "kwargsrepr"]


def test_a_task_may_name_each_call_by_shadow_name(run: Runner) -> None:
    class Named(Task[..., Any]):
        def shadow_name(self, args: Any, kwargs: Any, options: Any) -> str:
            return f"greeting of {args[0]} in {options.get('queue')}"

    @shared_task(base=Named, bind=True)
    def greet(self: Task[..., Any], name: str) -> str | None:
        return self.request.shadow

    assert run.apply(greet, ("Ann",), queue="quick").get() == "greeting of Ann in quick"
    assert run.apply(greet, ("Ann",), shadow="my own").get() == "my own"
    results = greet.enqueue_many([("Bob",), ("Cleo",)])
    run.finish()
    assert [result.get() for result in results] == ["greeting of Bob in None", "greeting of Cleo in None"]


def test_options_of_amqp_that_mean_nothing_here_are_accepted(run: Runner) -> None:
    result = run.apply(
        add, (1, 2), producer=object(), connection=None, add_to_parent=False, delivery_mode=2, mandatory=True
    )
    assert result.get() == 3


def test_retry_and_its_policy_are_about_sending(run: Runner) -> None:
    policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1}
    assert run.apply(add, (1, 2), retry=True, retry_policy=policy).get() == 3
    assert run.apply(add, (1, 2), retry=False).get() == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"countdown": 5, "eta": datetime(2100, 1, 1)}, ValueError, "either countdown .* or eta"),
        ({"countdown": "soon"}, TypeError, "countdown must be seconds as a number, not 'soon'"),
        ({"countdown": True}, TypeError, "countdown must be seconds as a number, not True"),
        ({"countdown": float("nan")}, TypeError, "countdown must be seconds as a number, not nan"),
        ({"countdown": 4e9}, ValueError, "countdown=4000000000.0 lies more than 95 years away"),
        ({"eta": 5}, TypeError, "eta must be a datetime, not 5"),
        ({"eta": datetime(9999, 12, 31)}, ValueError, "allowed are moments up to the year 9000"),
        ({"expires": "9999-12-31T00:00"}, ValueError, "allowed are moments up to the year 9000"),
        ({"eta": "tomorrow"}, ValueError, "eta must be a datetime or its ISO 8601 text, not 'tomorrow'"),
        ({"expires": "tomorrow"}, ValueError, "expires must be a datetime or its ISO 8601 text"),
        ({"expires": [5]}, TypeError, "expires must be seconds"),
        ({"queue": "no spaces"}, ValueError, "queue is 'no spaces'; allowed"),
        ({"queue": 5}, TypeError, "queue is 5; allowed"),
        ({"priority": 101}, ValueError, "priority is 101; allowed"),
        ({"priority": 1.5}, TypeError, "priority is 1.5; allowed"),
        ({"task_id": ""}, ValueError, "task_id must be a string of 1 to 255 characters"),
        ({"task_id": 17}, ValueError, "task_id must be a string of 1 to 255 characters, not 17"),
        ({"task_id": "x" * 256}, ValueError, "task_id must be a string of 1 to 255 characters"),
        ({"headers": [1]}, TypeError, r"headers must be a dict, not \[1\]"),
        ({"headers": {"x": 1j}}, EncodeError, "complex"),
        ({"app_id": 1j}, EncodeError, "complex"),
        ({"shadow": 5}, TypeError, "shadow must be a text, not 5"),
        ({"argsrepr": 5}, TypeError, "argsrepr must be a text, not 5"),
        ({"ignore_result": "no"}, TypeError, "ignore_result must be True or False, not 'no'"),
        ({"retry": 3}, TypeError, "retry must be True or False, not 3"),
        ({"retry_policy": {"max_tries": 3}}, ValueError, "retry policy has no key 'max_tries'"),
        ({"retry_policy": {"interval_step": "x"}}, TypeError, "retry policy's interval_step is 'x'"),
        ({"serializer": "nope"}, EncodeError, "nope"),
        ({"serializer": 5}, EncodeError, "No serializer '5'"),
        ({"compression": "nope"}, EncodeError, "nope"),
        ({"compression": 5}, EncodeError, "No compression '5'"),
        # Misspelt, or of a feature that is not here.
        ({"count_down": 5}, TypeError, "no option 'count_down'; did you mean 'countdown'"),
        ({"task_ids": "x"}, TypeError, "did you mean 'task_id'"),
        ({"link": [1j]}, TypeError, r"link of .* must be a signature, as task.s\(\) returns it"),
        ({"link_error": 1j}, TypeError, "link_error of .* must be a signature"),
        ({"time_limit": -1}, ValueError, "time_limit is -1; allowed: None .no limit. or a number of seconds above 0"),
        ({"soft_time_limit": "1m"}, TypeError, "soft_time_limit is '1m'; allowed"),
        ({"soft_time_limit": 6, "time_limit": 5}, ValueError, "soft_time_limit is 6; allowed: at most time_limit"),
    ],
    ids=str,
)
def test_a_bad_option_is_an_error_where_the_task_is_called(
    options: dict[str, Any], error: type[Exception], message: str, run: Runner
) -> None:
    with pytest.raises(error, match=message):
        add.apply_async((1, 2), **options)
    with pytest.raises(error, match=message):
        add.apply((1, 2), **options)
    assert not models.Task.objects.exists()


@pytest.mark.parametrize("option", ["link", "link_error", "time_limit", "soft_time_limit"])
def test_an_option_of_a_feature_that_is_not_here_may_be_empty(option: str, run: Runner) -> None:
    assert run.apply(add, (1, 2), **{option: None}).get() == 3


# By name -------------------------------------------------------------------------------------------------------------


def test_a_task_may_be_sent_by_name_with_its_declared_options(run: Runner) -> None:
    result = send_task(tell.name, ["id"], queue="mail")
    run.finish()
    assert (result.get(), result.queue) == ({"id": result.id}, "mail")

    @shared_task(queue="declared")
    def declared() -> None: ...

    assert send_task(declared.name).name == declared.name
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        send_task(add.name)


def test_a_task_that_is_known_elsewhere_may_be_sent_by_name(worker: Worker) -> None:
    """R16: a name that this process does not know is no error; the task waits for a worker that knows it."""
    result = send_task("elsewhere.tasks.work", [1], {"y": 2}, countdown=0)
    assert (result.name, result.args, result.kwargs, result.state) == ("elsewhere.tasks.work", [1], {"y": 2}, "PENDING")
    worker.drain()
    assert (result.state, the_row().state) == ("PENDING", "UNROUTABLE")


def test_a_task_that_is_not_known_cannot_be_run_eagerly(configure: Callable[..., None]) -> None:
    configure(TASK_ALWAYS_EAGER=True)
    with pytest.raises(NotRegistered, match="TASK_ALWAYS_EAGER cannot run it"):
        send_task("elsewhere.tasks.work")


@pytest.mark.parametrize("name", ["", "x" * 256, 5])
def test_a_name_is_a_text(name: Any, database: TestDatabase) -> None:
    with pytest.raises(ValueError, match="A task's name is a string of 1 to 255 characters"):
        send_task(name)


def test_send_task_checks_the_shape_of_arguments_and_the_options(database: TestDatabase) -> None:
    with pytest.raises(TypeError, match="args of elsewhere must be a list or tuple, not str"):
        send_task("elsewhere", "ab")
    with pytest.raises(TypeError, match="did you mean 'countdown'"):
        send_task("elsewhere", count_down=5)


# Many at once --------------------------------------------------------------------------------------------------------


def test_many_calls_are_sent_at_once_and_results_come_in_order(run: Runner) -> None:
    calls: list[Any] = [(1, 2), [3], {"x": 5, "y": 6}, ((7,), {"scale": 2})]
    results = add.enqueue_many(iter(calls), queue="bulk")
    run.finish()
    assert [result.get() for result in results] == [3, 3, 11, 14]
    assert {result.queue for result in results} == {"bulk"}


@pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")
def test_many_calls_need_few_statements(
    database: TestDatabase, django_assert_max_num_queries: Callable[..., Any]
) -> None:
    with django_assert_max_num_queries(10):
        results = add.enqueue_many((number,) for number in range(2500))
    assert models.Task.objects.count() == len({result.id for result in results}) == 2500


def test_of_many_calls_all_are_sent_or_none(run: Runner) -> None:
    ran: list[int] = []

    @shared_task
    def note(x: int) -> None:
        ran.append(x)

    for bad, error in [((1, 2, 3), TypeError), (({1},), EncodeError), ("ab", TypeError)]:
        with pytest.raises(error):
            note.enqueue_many([(1,), bad])
    with pytest.raises(TypeError, match="the option 'task_id' names one call"):
        note.enqueue_many([(1,)], task_id="x")
    with pytest.raises(TypeError, match="did you mean 'countdown'"):
        note.enqueue_many([(1,)], count_down=5)
    run.finish()
    assert not models.Task.objects.exists()
    assert ran == []
    assert note.enqueue_many([]) == []


# Transactions --------------------------------------------------------------------------------------------------------


@pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")
def test_a_call_joins_the_transaction_of_its_caller(worker: Worker) -> None:
    """R21: a rollback leaves no task, a commit leaves it."""
    with transaction.atomic():
        lost = add.delay(1, 2)
        add.enqueue_many([(1,), (2,)])
        assert lost.exists()
        transaction.set_rollback(True)
    assert not lost.exists()
    assert worker.drain() == 0
    with transaction.atomic():
        kept = add.delay(1, 2)
        with transaction.atomic():
            add.delay(3, 4)
            transaction.set_rollback(True)
    assert worker.drain() == 1
    assert kept.get() == 3


def test_on_commit_is_what_a_call_does_anyway_and_has_a_handle(worker: Worker) -> None:
    with transaction.atomic():
        result = add.delay_on_commit(1, 2)
        assert result.exists()
    other = add.apply_async_on_commit((1,), {"y": 1}, queue="mail")
    worker.drain()
    assert (result.get(), other.get(), other.queue) == (3, 2, "mail")


def test_on_commit_runs_an_eager_task_after_the_commit(configure: Callable[..., None]) -> None:
    configure(TASK_ALWAYS_EAGER=True)
    told: list[Any] = []
    with transaction.atomic():
        result = add.delay_on_commit(1, 2)
        result.then(lambda done: told.append(done.result))
        assert (result.state, result.ready(), told) == ("PENDING", False, [])
        with pytest.raises(TaskError, match="runs when the transaction that is open here commits"):
            result.get()
        with pytest.raises(TypeError):
            add.delay_on_commit()  # type: ignore[call-arg]
    assert (result.state, result.get(), told) == ("SUCCESS", 3, [3])
    assert add.delay_on_commit(3, 4).get() == 7


class TestInDjangosTestCase(TestCase):
    """Tests of Django's run in a transaction that never commits, on a database that nobody else sees."""

    def test_get_is_refused_at_once(self) -> None:
        result = add.delay(1, 2)
        assert (result.state, result.exists()) == ("PENDING", True)
        with pytest.raises(WouldBlockForever):
            result.get()

    def test_eager_tasks_run_at_once_or_with_the_captured_callbacks(self) -> None:
        with self.settings(DJANGO_TASKS={"TASK_ALWAYS_EAGER": True}):
            assert add.delay(1, 2).get() == 3
            with self.captureOnCommitCallbacks(execute=True):
                result = add.delay_on_commit(1, 2)
                assert not result.ready()
        assert result.get() == 3


@pytest.mark.databases("sqlite", alias="tasks")
def test_on_commit_waits_for_another_database(worker: Worker) -> None:
    with transaction.atomic(using="default"):
        lost = add.delay_on_commit(1, 2)
        transaction.set_rollback(True, using="default")
    assert not lost.exists()
    with transaction.atomic(using="default"):
        kept = add.apply_async_on_commit((1, 2), queue="mail")
        assert not kept.exists()
    worker.drain()
    assert (kept.get(), kept.queue) == (3, "mail")


# Asynchronous callers ------------------------------------------------------------------------------------------------


def test_tasks_can_be_sent_and_awaited_from_asynchronous_code(run: Runner) -> None:
    async def view() -> tuple[int, AsyncResult[int], AsyncResult[int]]:
        one = await add.adelay(1, 2)
        other = await add.aapply_async((3, 4), queue="mail")
        await sync_to_async(run.finish)()
        return await one.aget(timeout=60), one, other

    value, one, other = asyncio.run(view())
    assert (value, one.get(), other.get(), other.queue) == (3, 3, 7, "mail")


def test_asynchronous_tasks_really_run(run: Runner) -> None:
    @shared_task(bind=True)
    async def sleepy(self: Task[..., Any], x: int) -> Any:
        await asyncio.sleep(0)
        return x, self.request.id

    result = run(sleepy, 2)
    assert result.get() == [2, result.id]

    @shared_task(autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0)
    async def fails() -> None:
        raise ValueError("no")

    failed = run(fails)
    assert (failed.state, str(failed.result), failed.retries) == ("FAILURE", "no", 1)


def test_a_database_that_cannot_be_reached_is_an_operational_error(database: TestDatabase) -> None:
    with database.connection.cursor() as cursor:
        cursor.execute("DROP TABLE django_tasks_task")
    with pytest.raises(OperationalError, match="could not be stored"):
        add.apply_async((1, 2), retry=False)
    policy = {"max_retries": 2, "interval_start": 0, "interval_step": 0, "interval_max": 0}
    with pytest.raises(add.OperationalError, match="could not be stored"):
        add.apply_async((1, 2), retry_policy=policy)


def test_every_handle_is_a_result(run: Runner) -> None:
    result = run(add, 1)
    assert isinstance(result, EagerResult) is run.is_eager
    assert UUID(result.id).version == 7
