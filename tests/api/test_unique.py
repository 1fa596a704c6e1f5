"""Unique tasks as they are declared and called."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from django_tasks import operations, shared_task, signals, states
from django_tasks.exceptions import AlreadyEnqueued, ImproperlyConfigured
from django_tasks.models import Task, TaskResult, UniquePeriod
from django_tasks.registry import tasks
from tests.api.conftest import Runner
from tests.databases import TestDatabase
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unique": 5}, "unique is 5; allowed: the name of an argument, several of them, or a function"),
        ({"unique": "nobody"}, r"unique names 'nobody'; the task takes \(account"),
        ({"on_conflict": "skip"}, "on_conflict says how a task is unique: give unique, too"),
        ({"unique": False, "unique_for": 5}, "unique_for says how a task is unique"),
        ({"unique": True, "on_conflict": "ignore"}, "on_conflict is 'ignore'; allowed: 'skip', 'replace', 'raise'"),
        ({"unique": True, "unique_until": "done"}, "unique_until is 'done'; allowed: 'end', 'start'"),
        ({"unique": True, "unique_for": 0}, "unique_for is 0; allowed: more than 0 seconds"),
        ({"unique": True, "unique_for": "1h"}, "unique_for is '1h'; allowed: seconds as a number, or a timedelta"),
        ({"unique": True, "unique_for": 5, "unique_until": "end"}, "two ways to say for how long: give one"),
        ({"unique": True, "unique_for": 5, "on_conflict": "replace"}, "'replace' does not go with unique_for"),
        ({"unique": True, "unique_until": "start", "on_conflict": "again"}, "'again' does not go with"),
        ({"debounce": -1}, "debounce is -1; allowed"),
        ({"debounce": 5, "unique_for": 5}, "unique_for does not go with debounce"),
        ({"debounce": 5, "debounce_max": 4}, "debounce_max is 4; allowed: at least debounce"),
        ({"unique": True, "debounce_max": 4}, "give debounce, too"),
    ],
)
def test_a_declaration_that_cannot_be_kept_is_refused(options: dict[str, Any], message: str) -> None:
    def refused(account: int, x: int = 1) -> None: ...

    with pytest.raises(ImproperlyConfigured, match=message):
        shared_task(name="tests.refused", **options)(refused)
    assert "tests.refused" not in tasks


def test_the_second_of_two_gets_the_result_of_the_first(worker: Worker) -> None:
    @shared_task(unique=True)
    def mail(user_id: int) -> int:
        return user_id

    first, second, other = mail.delay(7), mail.delay(7), mail.delay(8)
    assert (first.conflict, second.conflict, other.conflict) == (False, True, False)
    assert second == first != other
    worker.drain()
    assert (second.get(), other.get()) == (7, 8)
    assert not mail.delay(7).conflict


@pytest.mark.parametrize(
    ("unique", "alike", "different"),
    [
        (True, [((1,), {}), ((), {"a": 1}), ((1, 2), {}), ((1,), {"b": 2})], [((2,), {}), ((1,), {"c": 0})]),
        ("a", [((1,), {}), ((), {"a": 1, "b": 9})], [((2,), {})]),
        (("a", "c"), [((1,), {"c": 5}), ((1, 9), {"c": 5})], [((1,), {}), ((1,), {"c": 6})]),
        ((), [((1,), {}), ((2,), {"c": 1})], []),
        (lambda a, **_: a % 10, [((1,), {}), ((11,), {"c": 1})], [((2,), {})]),
    ],
    ids=["all arguments", "one", "some", "none", "a function"],
)
def test_what_is_alike_is_said_by_arguments_however_they_are_written(
    database: TestDatabase, unique: Any, alike: Any, different: Any
) -> None:
    @shared_task(unique=unique)
    def task(a: int, b: int = 2, **more: Any) -> None: ...

    first = task.apply_async(*alike[0])
    assert [task.apply_async(*call).id for call in alike] == [first.id] * len(alike)
    assert not any(task.apply_async(*call).conflict for call in different)


def test_two_tasks_with_equal_arguments_are_not_alike(database: TestDatabase) -> None:
    @shared_task(unique=True)
    def one(a: int) -> None: ...

    @shared_task(unique=True)
    def other(a: int) -> None: ...

    assert not one.delay(1).conflict
    assert not other.delay(1).conflict


def test_a_call_may_be_sent_in_any_case(database: TestDatabase) -> None:
    @shared_task(unique=True)
    def mail(user_id: int) -> None: ...

    @shared_task
    def plain() -> None: ...

    results = [mail.delay(1), mail.apply_async((1,), unique=False), mail.apply_async((1,), unique=None)]
    assert [result.conflict for result in results] == [False, False, True]
    assert Task.objects.count() == 2
    with pytest.raises(ValueError, match="is not declared with unique"):
        plain.apply_async(unique=True)
    with pytest.raises(TypeError, match="unique is 'yes'; allowed in a call: False"):
        mail.apply_async((1,), unique="yes")


def test_of_many_calls_at_once_each_is_stored_once(worker: Worker) -> None:
    @shared_task(unique=True)
    def mail(user_id: int) -> int:
        return user_id

    results = mail.enqueue_many([(number % 10,) for number in range(200)])
    assert [result.conflict for result in results].count(False) == 10
    assert len({result.id for result in results}) == 10
    worker.drain()
    assert [result.get() for result in results] == [number % 10 for number in range(200)]


def test_a_conflict_can_be_an_error(database: TestDatabase) -> None:
    @shared_task(unique=True, on_conflict="raise")
    def mail(user_id: int) -> None: ...

    first = mail.apply_async((1,), task_id="my own")
    with pytest.raises(AlreadyEnqueued, match=r"like this one is there already: my own") as caught:
        mail.delay(1)
    assert (caught.value.task_id, caught.value.name) == (first.id, mail.name)


def test_a_conflict_leaves_the_callers_transaction_whole(database: TestDatabase) -> None:
    @shared_task(unique=True, on_conflict="raise")
    def mail(user_id: int) -> None: ...

    mail.delay(1)
    with transaction.atomic():
        with pytest.raises(AlreadyEnqueued):
            mail.delay(1)
        mail.delay(2)
    assert Task.objects.count() == 2


def test_a_rollback_takes_the_place_back(database: TestDatabase) -> None:
    @shared_task(unique=True)
    def mail(user_id: int) -> None: ...

    with transaction.atomic():
        mail.delay(1)
        assert mail.delay(1).conflict
        transaction.set_rollback(True)
    assert not mail.delay(1).conflict


def test_a_task_that_waits_takes_over_new_arguments(worker: Worker) -> None:
    @shared_task(unique="document", on_conflict="replace")
    def index(document: int, version: int) -> int:
        return version

    first = index.delay(1, 1)
    assert index.delay(1, 2) == first
    worker.drain()
    assert first.get() == 2


def test_one_that_runs_is_followed_by_one_more(worker: Worker) -> None:
    seen = []

    @shared_task(unique=(), on_conflict="again")
    def index() -> None:
        seen.append(content[-1])
        if len(content) == 1:
            content.append("new")
            assert not index.delay().conflict
            assert index.delay().conflict

    content = ["old"]
    index.delay()
    worker.drain()
    assert seen == ["old", "new"]


def test_until_it_starts_nothing_else_counts(worker: Worker) -> None:
    @shared_task(unique=True, unique_until="start")
    def refresh() -> None: ...

    refresh.delay()
    assert refresh.delay().conflict
    delivery = worker.claim()
    assert delivery is not None
    assert not refresh.delay().conflict
    assert refresh.delay().conflict


def test_others_are_kept_away_for_a_time(worker: Worker) -> None:
    @shared_task(unique="user_id", unique_for=timedelta(minutes=5))
    def remind(user_id: int) -> int:
        return user_id

    first = remind.delay(1)
    worker.drain()
    again = remind.delay(1)
    assert (again.conflict, again.get(), remind.delay(2).conflict) == (True, 1, False)
    assert UniquePeriod.objects.count() == 2
    assert again == first


def test_the_last_of_several_calls_runs_when_they_are_over(worker: Worker) -> None:
    @shared_task(debounce=30, debounce_max=300, unique="document")
    def save(document: int, text: str) -> str:
        return text

    first = save.delay(1, "a")
    row = Task.objects.get()
    assert timedelta(seconds=29) < row.due_at - row.created_at <= timedelta(seconds=31)
    assert (save.delay(1, "ab").conflict, save.delay(2, "x").conflict) == (True, False)
    worker.drain()
    assert first.get() == "ab"
    for option in ({"countdown": 5}, {"eta": row.due_at}):
        with pytest.raises(ValueError, match="is debounced, which decides when it is due"):
            save.apply_async((1, "a"), **option)


def test_of_a_conflict_nobody_is_told_that_it_was_sent(database: TestDatabase) -> None:
    @shared_task(unique=True)
    def mail(user_id: int) -> None: ...

    told: list[Any] = []

    def hear(sender: Any = None, headers: Any = None, **_: Any) -> None:
        told.append(headers["id"])

    signals.after_task_publish.connect(hear)
    try:
        first = mail.delay(1)
        mail.delay(1)
        mail.enqueue_many([(1,), (2,)])
    finally:
        signals.after_task_publish.disconnect(hear)
    assert told[0] == first.id
    assert len(told) == 2


def test_a_retry_keeps_its_place(worker: Worker) -> None:
    @shared_task(bind=True, unique=True)
    def mail(self: Any, user_id: int) -> int:
        if self.request.retries == 0:
            raise self.retry(countdown=60)
        return user_id

    first = mail.delay(1)
    worker.step()
    assert first.state == states.RETRY
    assert mail.delay(1) == first
    worker.drain()
    assert first.get() == 1


def test_running_it_again_by_hand_is_not_held_up_by_uniqueness(worker: Worker) -> None:
    @shared_task(unique=True)
    def mail(user_id: int) -> None: ...

    result = mail.delay(1)
    worker.drain()
    mail.delay(1)
    assert len(operations.retry([result.id]).copies) == 1
    assert (Task.objects.count(), TaskResult.objects.count()) == (2, 1)


def test_a_task_that_sends_its_like_meets_itself(run: Runner) -> None:
    """Eager mode knows what runs in it."""
    met: list[Any] = []

    @shared_task(unique=True)
    def tree(depth: int) -> int:
        met.append(tree.delay(depth).conflict)
        return depth

    @shared_task(unique=True, on_conflict="raise")
    def strict(depth: int) -> str:
        try:
            strict.delay(depth)
        except AlreadyEnqueued:
            return "raised"
        return "sent"

    assert run(tree, 1).get() == 1
    assert met == [True]
    assert run(strict, 1).get() == "raised"
    assert not run(tree, 1).conflict


def test_eager_mode_checks_what_makes_a_call_unique(run: Runner) -> None:
    @shared_task(unique=lambda a: 1 // a)
    def task(a: int) -> int:
        return a

    assert run(task, 1).get() == 1
    with pytest.raises(ZeroDivisionError):
        task.delay(0)
