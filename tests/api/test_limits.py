"""Limits, fairness and tags as tasks declare them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_tasks import client, limits, operations, shared_task, states
from django_tasks.backends import get_broker
from django_tasks.exceptions import ImproperlyConfigured
from django_tasks.models import Limit, Task, TaskResult, TaskTag
from django_tasks.registry import tasks
from django_tasks.task import Task as BaseTask
from tests.api.conftest import Runner
from tests.databases import TestDatabase
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")


def declared(*functions: Any) -> dict[str, dict[str, Any]]:
    """Return the limits that a worker writes down for these tasks."""
    limits.declare(functions)
    fields = [*limits.NOTHING, "overridden"]
    return {row["name"]: {key: row[key] for key in fields} for row in Limit.objects.values("name", *fields)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_limit": "often"}, "rate_limit is 'often'; allowed: a number per second, or a text such as '10/s'"),
        ({"rate_limit": True}, "rate_limit is True; allowed"),
        ({"concurrency": 0}, "concurrency is 0; allowed: None"),
        ({"concurrency": 2.0}, "concurrency is 2.0; allowed"),
        ({"per_worker": True}, "per_worker says that a rate .*: give rate_limit, too"),
        ({"per_worker": 1, "rate_limit": 1}, "per_worker is 1; allowed: True or False"),
        ({"fair": True}, "fair lets keys take turns: give key, too"),
        ({"key": "account"}, "key says for what limits hold .*: give rate_limit, concurrency or fair, too"),
        ({"key": "nobody", "concurrency": 1}, r"key names 'nobody'; the task takes \(account: "),
        ({"key": 7, "concurrency": 1}, "key is 7; allowed: the name of an argument"),
        ({"key": (), "concurrency": 1}, "key names no argument"),
        ({"tags": "vip"}, "tags must be a list of texts, not 'vip'"),
        ({"tags": [""]}, "A tag is a printable text of 1 to 64 characters, not ''"),
        ({"tags": ["a\nb"]}, "A tag is a printable text"),
        ({"tags": [str(number) for number in range(21)]}, "at most 20 tags, not 21"),
        ({"throttle": 5}, "there is no such option; unique_for=SECONDS"),
    ],
)
def test_a_declaration_that_cannot_be_kept_is_refused(options: dict[str, Any], message: str) -> None:
    def refused(account: int, x: int = 1) -> None: ...

    with pytest.raises(ImproperlyConfigured, match=message):
        shared_task(name="tests.refused", **options)(refused)
    assert "tests.refused" not in tasks


def test_a_class_based_task_declares_its_limits_as_attributes(database: TestDatabase) -> None:
    class Charge(BaseTask[..., None]):
        name = "tests.charge"
        concurrency = 2

        def run(self, account: int) -> None: ...

        def key(self, account: int) -> int:
            return account % 10

    charge = Charge()
    assert declared(charge)["tests.charge"]["concurrency"] == 2
    charge.delay(123)
    assert Task.objects.get().limit_key == "3"


def test_what_the_code_declares_is_written_down(database: TestDatabase) -> None:
    @shared_task
    def free() -> None: ...

    @shared_task(rate_limit="10/m", per_worker=True)
    def paced() -> None: ...

    @shared_task(concurrency=3, key="account", fair=True)
    def keyed(account: int) -> None: ...

    found = declared(free, paced, keyed)
    assert found == {
        paced.name: {
            "rate": "10/m",
            "per_worker": True,
            "concurrency": None,
            "per_key": False,
            "fair": False,
            "overridden": False,
        },
        keyed.name: {
            "rate": "",
            "per_worker": False,
            "concurrency": 3,
            "per_key": True,
            "fair": True,
            "overridden": False,
        },
    }
    assert declared(free, paced, keyed) == found


def test_a_new_declaration_replaces_the_old_one_unless_people_decided(database: TestDatabase) -> None:
    def task(**options: Any) -> Any:
        def changing() -> None: ...

        return shared_task(name="tests.changing", **options)(changing)

    assert declared(task(concurrency=3))["tests.changing"]["concurrency"] == 3
    assert declared(task(concurrency=4))["tests.changing"]["concurrency"] == 4
    limits.change(Limit.TASK, "tests.changing", concurrency=9)
    assert declared(task(concurrency=5))["tests.changing"]["concurrency"] == 9
    assert limits.reset(Limit.TASK, "tests.changing")
    assert declared(task(concurrency=5))["tests.changing"]["concurrency"] == 5
    limits.pause(Limit.TASK, "tests.changing", reason="to see")
    found = declared(task())["tests.changing"]
    assert (found["concurrency"], Limit.objects.get().pause_reason) == (None, "to see")
    assert limits.resume(Limit.TASK, "tests.changing")
    assert not Limit.objects.exists(), "it says nothing any more"


def test_a_limited_task_runs_to_its_end(run: Runner) -> None:
    seen = []

    @shared_task(bind=True, concurrency=1, key="account", max_retries=1)
    def charge(self: Any, account: str) -> str:
        seen.append(account)
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return account

    limits.declare([charge])
    results = [run(charge, account) for account in ("a", "b")]
    assert [result.get() for result in results] == ["a", "b"]
    assert sorted(seen) == ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("key", "call", "expected"),
    [
        ("account", ((7,), {}), "7"),
        ("account", ((), {"account": "é"}), "é"),
        (("account", "x"), ((7,), {}), "[7, 1]"),
        (lambda account, **_: account // 10, ((77,), {"x": 2}), "7"),
        ("account", ((None,), {}), ""),
        ("account", (({"b": 1, "a": 2},), {}), '{"a": 2, "b": 1}'),
        ("account", (("x" * 255,), {}), "x" * 255),
        ("account", (("x" * 256,), {}), "blake2b:"),
        ("account", (("a\0b",), {}), "blake2b:"),
    ],
)
def test_the_key_comes_from_the_arguments(database: TestDatabase, key: Any, call: Any, expected: str) -> None:
    @shared_task(concurrency=1, key=key)
    def charge(account: Any, x: int = 1) -> None: ...

    charge.apply_async(*call)
    found = Task.objects.get()
    assert found.state == states.LIMITED
    assert found.limit_key is not None
    assert found.limit_key == expected or (expected == "blake2b:" and found.limit_key.startswith(expected))
    assert len(found.limit_key) <= 255


def test_a_task_without_limits_is_stored_as_it_always_was(database: TestDatabase) -> None:
    @shared_task
    def free() -> None: ...

    free.delay()
    found = Task.objects.get()
    assert (found.state, found.limit_key, found.unique_key, found.options) == (states.PENDING, None, None, None)


def test_many_limited_calls_are_sent_at_once(worker: Worker) -> None:
    @shared_task(concurrency=2)
    def charge(account: int) -> int:
        return account

    limits.declare([charge])
    results = charge.enqueue_many([(number,) for number in range(250)])
    assert Task.objects.limited().count() == 250
    worker.drain()
    assert [result.get() for result in results] == list(range(250))


def test_what_is_run_again_is_limited_as_before(worker: Worker) -> None:
    @shared_task(concurrency=1, key="account", tags=["money"])
    def charge(account: str) -> None: ...

    limits.declare([charge])
    result = charge.delay("a")
    worker.drain()
    [copy] = operations.retry([result.id]).copies.values()
    row = Task.objects.get(pk=copy)
    assert (row.state, row.limit_key) == (states.LIMITED, "a")
    assert TaskTag.objects.filter(tag="money").count() == 2


# Pauses ---------------------------------------------------------------------------------------------------------------


def test_a_pause_says_who_and_why_and_until_when(database: TestDatabase) -> None:
    limit = limits.pause(Limit.QUEUE, "mail", by="ann", reason="provider is down", until=timedelta(hours=1))
    assert (limit.paused_by, limit.pause_reason) == ("ann", "provider is down")
    [numbers] = limits.overview()
    assert (numbers.paused, numbers.paused_until) == (True, limit.paused_until)
    limits.pause(Limit.QUEUE, "mail")
    [numbers] = limits.overview()
    assert (numbers.paused, numbers.paused_until, numbers.paused_by) == (True, None, "")
    assert limits.resume(Limit.QUEUE, "mail")
    assert not limits.resume(Limit.QUEUE, "mail")
    assert limits.overview() == []


def test_what_cannot_be_paused_or_limited_is_refused(database: TestDatabase) -> None:
    now = get_broker().now()
    for wrong in (("queue", "no spaces"), ("worker", "x"), ("task", ""), ("task", "x" * 256)):
        with pytest.raises(ValueError, match=r"allowed|A limit is|A task's name"):
            limits.pause(*wrong)
    with pytest.raises(ValueError, match="would be over already"):
        limits.pause("queue", "mail", until=now)
    with pytest.raises(ValueError, match="rate_limit is 'x'"):
        limits.change("queue", "mail", rate="x")
    with pytest.raises(TypeError, match="A limit has no 'speed'"):
        limits.change("queue", "mail", speed=1)
    assert not limits.reset("queue", "mail")
    assert not Limit.objects.exists()


def test_the_overview_counts_what_runs_and_what_waits(worker: Worker) -> None:
    @shared_task(concurrency=2, queue="pdf")
    def charge() -> None: ...

    limits.declare([charge])
    limits.change(Limit.QUEUE, "pdf", rate="1000/s")
    charge.enqueue_many([()] * 5)
    get_broker().admit(worker._queues)
    found = {one.name: (one.kind, one.running, one.waiting, one.rate) for one in limits.overview()}
    assert found == {charge.name: ("task", 2, 3, ""), "pdf": ("queue", 2, 3, "1000/s")}


# Tags -----------------------------------------------------------------------------------------------------------------


def test_a_task_knows_its_tags(run: Runner) -> None:
    @shared_task(bind=True, tags=["money"])
    def charge(self: Any) -> list[str]:
        return list(self.request.tags)

    assert run.apply(charge, tags=["vip", "money"]).get() == ["money", "vip"]
    assert run(charge).get() == ["money"]


@pytest.mark.parametrize("tags", ["vip", [5], [""], [None]])
def test_tags_of_a_call_that_cannot_be_are_refused(database: TestDatabase, tags: Any) -> None:
    @shared_task
    def charge() -> None: ...

    with pytest.raises((TypeError, ValueError), match="tag"):
        charge.apply_async(tags=tags)
    assert not Task.objects.exists()


def test_tags_are_kept_as_long_as_the_task(worker: Worker) -> None:
    @shared_task(tags=["a", "b"])
    def kept() -> None: ...

    @shared_task(ignore_result=True, tags=["a"])
    def forgotten() -> None: ...

    @shared_task(atomic=True, ignore_result=True, tags=["a"])
    def forgotten_atomically() -> None: ...

    results = [kept.delay(), kept.delay()]
    forgotten.delay()
    forgotten_atomically.delay()
    assert TaskTag.objects.count() == 6
    worker.drain()
    assert TaskTag.objects.count() == 4
    results[0].forget()
    assert sorted(TaskTag.objects.values_list("tag", "task_id")) == [
        (tag, TaskResult.objects.get().pk) for tag in ("a", "b")
    ]
    TaskResult.objects.update(finished_at=get_broker().now() - timedelta(days=1))
    assert operations.prune(older_than=timedelta(hours=1)) == 1
    assert not TaskTag.objects.exists()
    kept.apply_async(queue="other", countdown=60)
    assert operations.purge(["other"]) == 1
    assert not TaskTag.objects.exists()


def test_untagged_tasks_have_no_tags_written(database: TestDatabase) -> None:
    @shared_task
    def plain() -> None: ...

    plain.enqueue_many([()] * 3)
    plain.enqueue_many([()] * 3, tags=["x"])
    assert TaskTag.objects.filter(tag="x").count() == TaskTag.objects.count() == 3


# Cancelling many ------------------------------------------------------------------------------------------------------


def test_tasks_are_revoked_by_name_queue_and_tag(worker: Worker) -> None:
    @shared_task
    def one() -> None: ...

    @shared_task(concurrency=1)
    def other() -> None: ...

    limits.declare([other])
    one.enqueue_many([()] * 3, tags=["x"])
    one.enqueue_many([()] * 2, queue="mail")
    other.enqueue_many([()] * 4, tags=["x", "y"])
    one.enqueue_many([()] * 1, countdown=60, tags=["x"], queue="mail")
    assert client.revoke_where(name=one.name, tag="x", queue="mail") == 1
    assert client.revoke_where(tag="y") == 4
    assert client.revoke_where(tag="y") == 0
    assert client.revoke_where(queue="mail") == 2
    assert client.revoke_where(name=one.name) == 3
    assert not Task.objects.exists()
    assert TaskResult.objects.filter(state=states.REVOKED).count() == 10
    with pytest.raises(ValueError, match="give at least one"):
        client.revoke_where()


def test_what_runs_is_asked_to_stop_once(worker: Worker) -> None:
    @shared_task
    def one() -> None: ...

    one.enqueue_many([()] * 2)
    assert worker.claim() is not None
    assert client.revoke_where(name=one.name) == 2
    assert client.revoke_where(name=one.name) == 0
    assert Task.objects.get().revoked_at is not None


def test_more_than_a_batch_is_revoked(worker: Worker) -> None:
    @shared_task
    def one() -> None: ...

    one.enqueue_many([()] * (client.BATCH + 10))
    assert client.revoke_where(name=one.name) == client.BATCH + 10
