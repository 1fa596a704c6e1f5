"""Arguments that nobody is to read, carried by Redis: what :mod:`tests.api.test_sensitive` promises, with and without
rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from django_tasks import AsyncResult, chain, chord, group, shared_task
from django_tasks.backends import get_broker
from django_tasks.backends.redis import RedisBroker
from django_tasks.executor import execute
from django_tasks.models import Task, TaskResult
from django_tasks.redaction import HIDDEN, REDACTED
from tests.admin.pages import page_url, read, text_of
from tests.api.test_sensitive import CANARY, PIN, Declined, charge, leaks, log_in, name_of, seen, stored_texts
from tests.inprocess import Worker

pytestmark = pytest.mark.databases("sqlite", "postgresql")

durabilities = pytest.mark.parametrize("durable", [True, False], ids=["durable", "without rows"])


@shared_task(atomic=True, sensitive="password")
def log_in_atomically(user: str, password: str, fails: bool = False) -> str:
    seen.append(password)
    if fails:
        raise Declined(password)
    return user


@shared_task(sensitive="password")
def count_users(users: list[str], password: str) -> int:
    seen.append(password)
    return len(users)


@pytest.fixture
def worker(configure: Any, redis_url: str) -> Worker:
    """Give a worker in the test's own thread that a Redis feeds."""
    seen.clear()
    configure(BROKER_URL=redis_url)
    return Worker()


def kept_texts() -> str:
    """Return everything that the ledger has, and what Redis knows of tasks."""
    broker = get_broker()
    assert isinstance(broker, RedisBroker)
    client = broker.server.client()
    texts = [stored_texts()]
    for key in client.scan_iter(f"{broker.server.address.prefix}:*"):
        if client.type(key) == b"hash":
            texts.append(repr(client.hgetall(key)))
        elif client.type(key) == b"list":
            texts.append(repr(client.lrange(key, 0, -1)))
    return " ".join(texts)


def shown(row: TaskResult) -> str:
    """Return what the admin says of it."""
    client = Client()
    client.force_login(User.objects.create_superuser(f"root-{row.pk}"))
    return text_of(read(client, page_url("taskresult", row.pk)))


@durabilities
def test_success_takes_them_out_of_all_that_is_kept(worker: Worker, durable: bool) -> None:
    sent = charge.apply_async((7, CANARY), {"pin": PIN, "note": "open"}, durable=durable)
    open_call = log_in.apply_async(("anna",), durable=durable)
    assert worker.drain() == 2
    assert seen == [(CANARY, {"pin": PIN, "note": "open"}), ""]
    row, other = TaskResult.objects.get(pk=sent.id), TaskResult.objects.get(pk=open_call.id)
    assert (row.encoding, json.loads(row.body)) == (REDACTED, [[7, HIDDEN], {"pin": HIDDEN, "note": "open"}])
    assert (other.encoding, json.loads(other.body)) == ("", [["anna"], {}]), "nothing was there to be taken out"
    assert not leaks(f"{kept_texts()} {shown(row)}")
    result: AsyncResult[Any] = AsyncResult(sent.id)
    assert (result.get(), result.args) == ("paid", [7, HIDDEN])
    assert not Task.objects.exists()


@durabilities
def test_a_failure_keeps_them_to_be_run_again_and_shows_them_to_nobody(worker: Worker, durable: bool) -> None:
    sent = charge.apply_async((7, CANARY, "fail"), {"pin": PIN}, durable=durable)
    worker.drain()
    [row] = TaskResult.objects.all()
    assert (row.state, row.encoding) == ("FAILURE", "")
    assert json.loads(row.body) == [[7, CANARY, "fail"], {"pin": PIN}]
    assert AsyncResult[Any](sent.id).args == [7, CANARY, "fail"]
    assert not leaks(f"{row.result} {row.exception} {row.traceback} {row.history} {shown(row)}")


@durabilities
def test_they_outlive_an_attempt_that_is_retried(worker: Worker, durable: bool) -> None:
    sent = charge.apply_async((7, CANARY, "retry"), {"pin": PIN}, durable=durable)
    worker.drain()
    assert seen == [(CANARY, {"pin": PIN})] * 2, "each attempt gets the real thing"
    [row] = TaskResult.objects.all()
    assert (str(row.pk), row.state, row.retries) == (sent.id, "FAILURE", 1)
    assert json.loads(row.body)[0][1] == CANARY
    assert not leaks(f"{row.result} {row.exception} {row.traceback} {row.history}")


@durabilities
@pytest.mark.parametrize("fails", [False, True])
def test_they_go_in_the_transaction_of_the_task_itself(worker: Worker, durable: bool, fails: bool) -> None:
    log_in_atomically.apply_async(("anna", CANARY, fails), durable=durable)
    assert worker.drain() == 1
    worker.step()  # Redis hears of the end with the next exchange
    [row] = TaskResult.objects.all()
    assert seen == [CANARY]
    assert row.state == ("FAILURE" if fails else "SUCCESS")
    if fails:
        assert json.loads(row.body) == [["anna", CANARY, True], {}]
        assert not leaks(f"{row.result} {row.exception} {row.traceback}")
    else:
        assert (row.encoding, json.loads(row.body)) == (REDACTED, [["anna", HIDDEN, False], {}])
        assert not leaks(kept_texts())


def test_what_was_given_a_row_while_it_ran_loses_them_too(worker: Worker) -> None:
    sent = log_in.apply_async(("anna", CANARY), durable=False)
    delivery = worker.claim()
    assert delivery is not None
    get_broker().mark_started({(delivery.id, delivery.attempt): 2.0})
    assert Task.objects.filter(pk=sent.id).exists()
    worker.run(delivery)
    worker.step()
    [row] = TaskResult.objects.all()
    assert (row.encoding, json.loads(row.body)) == (REDACTED, [["anna", HIDDEN], {}])
    assert not leaks(kept_texts())
    assert not Task.objects.exists()


@durabilities
def test_many_that_end_together_lose_them(worker: Worker, durable: bool) -> None:
    """Of a batch, each its own, also next to what has none."""
    calls = [log_in.apply_async((f"user {number}", f"{CANARY} {number}"), durable=durable) for number in range(5)]
    name_of.apply_async(("open",), durable=durable)
    broker, holder = get_broker(), worker.holder
    deliveries = broker.step([], holder=holder, limit=10).deliveries
    assert len(deliveries) == 6
    done = [execute(delivery, worker=holder.name).done for delivery in deliveries]
    assert not broker.step(done, holder=holder, limit=10).refused
    for number, call in enumerate(calls):
        assert json.loads(TaskResult.objects.get(pk=call.id).body) == [[f"user {number}", HIDDEN], {}]
    assert json.loads(TaskResult.objects.get(name=name_of.name).body) == [["open"], {}]
    assert not leaks(kept_texts())


def test_members_of_workflows_lose_them(worker: Worker) -> None:
    """Each as it ends, while others that have not begun keep theirs."""
    chain(name_of.s("anna"), log_in.s(CANARY), name_of.s()).delay()
    chord(group(log_in.s("ben", CANARY), log_in.s("eve", password=CANARY)), count_users.s(CANARY)).delay()
    assert worker.drain() == 6
    assert seen == [CANARY] * 4
    bodies = {json.dumps(json.loads(row.body)) for row in TaskResult.objects.filter(encoding=REDACTED)}
    assert bodies == {
        json.dumps([[HIDDEN], {}]),
        json.dumps([["ben", HIDDEN], {}]),
        json.dumps([["eve"], {"password": HIDDEN}]),
    }
    assert TaskResult.objects.filter(encoding=REDACTED).count() == 4
    assert not leaks(kept_texts())
    assert not Task.objects.exists()


def test_a_member_that_fails_keeps_them_and_those_before_it_do_not(worker: Worker) -> None:
    chain(log_in.s("anna", CANARY), charge.s(CANARY, "fail")).delay()
    assert worker.drain() == 2
    first, second = TaskResult.objects.get(name=log_in.name), TaskResult.objects.get(name=charge.name)
    assert (first.encoding, json.loads(first.body)) == (REDACTED, [["anna", HIDDEN], {}])
    assert (second.state, json.loads(second.body)) == ("FAILURE", [[CANARY, "fail"], {}])
    assert not leaks(f"{second.result} {second.exception} {second.traceback} {shown(second)}")
