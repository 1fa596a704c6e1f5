"""``captured_tasks``, ``enqueued`` and the assertions: what was sent, and what waits."""

from __future__ import annotations

import threading
import unittest
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest
from django.db import transaction
from django.test import TestCase
from django.utils import timezone

from django_tasks import send_task
from django_tasks.models import Task
from django_tasks.testing import (
    SentTask,
    TasksMixin,
    assert_enqueued,
    assert_not_enqueued,
    captured_tasks,
    eager_tasks,
    enqueued,
    run_tasks,
)
from tests.testing import jobs
from tests.testing.conftest import In

ONLY_SQLITE = pytest.mark.databases("sqlite")
ETA = datetime(2100, 1, 1, tzinfo=UTC)


def test_what_is_sent_is_captured_with_all_that_the_call_said_and_stored(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        with captured_tasks() as sent:
            assert sent == []
            first = jobs.mail.delay("ada")
            assert [one.name for one in sent] == [jobs.mail.name]
            jobs.price.apply_async(
                ((1, 2),), {"each": datetime(2026, 1, 2, tzinfo=UTC)}, queue="slow", priority=-5, task_id="mine",
                headers={"tenant": "acme"}, countdown=60, expires=90, shadow="a name", app_id="shop",
            )  # fmt: skip
            jobs.price.apply_async((3,), eta=ETA)
            jobs.price.enqueue_many([(4,), {"amount": 5}])
            send_task("nobody.knows")
        jobs.price.delay(6)
        assert Task.objects.count() == 7
        mail, price, later, four, five, unknown = sent
        assert (mail.id, mail.queue, mail.priority, mail.eta, mail.countdown) == (first.id, "mail", 3, None, None)
        assert (price.args, price.kwargs) == ([[1, 2]], {"each": datetime(2026, 1, 2, tzinfo=UTC)})
        assert (price.queue, price.priority, price.id, price.countdown) == ("slow", -5, "mine", 60)
        assert price.headers == {"tenant": "acme"}
        assert {"shadow", "expires", "properties"} == price.options.keys()
        assert price.eta is not None
        assert abs(price.eta - timezone.now() - timedelta(seconds=60)) < timedelta(seconds=30)
        assert later.eta == ETA
        assert later.countdown == pytest.approx((ETA - timezone.now()).total_seconds(), abs=30)
        assert (four.args, four.kwargs, five.args, five.kwargs) == ([4], {}, [], {"amount": 5})
        assert unknown.name == "nobody.knows"
        assert price.result.state == "PENDING"


def test_captured_tasks_run_when_the_test_says_so_and_what_they_send_is_captured_as_well(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        with captured_tasks() as sent:
            jobs.send_many.delay(["a", "b"])
            assert jobs.log == []
            run_tasks()
        assert [one.name for one in sent] == [jobs.send_many.name, jobs.mail.name, jobs.mail.name]
        assert jobs.log == ["mail to a", "mail to b"]


def test_captured_tasks_need_no_database_if_they_are_not_to_be_stored() -> None:
    # pytest-django refuses every query here: this test takes no database.
    with captured_tasks(store=False) as sent:
        result = jobs.mail.delay("ada")
        jobs.mail.enqueue_many([("bob",)])
    assert [one.args for one in sent] == [["ada"], ["bob"]]
    assert sent[0].id == result.id


@ONLY_SQLITE
def test_blocks_that_capture_may_nest(in_test_case: In) -> None:
    @in_test_case
    def body(case: TestCase) -> None:
        with captured_tasks() as outer:
            jobs.mail.delay("a")
            with captured_tasks(store=False) as inner:
                jobs.mail.delay("b")
            jobs.mail.delay("c")
        assert [one.args for one in outer] == [["a"], ["b"], ["c"]]
        assert [one.args for one in inner] == [["b"]]
        assert [one.args for one in enqueued()] == [["a"], ["c"]]


@ONLY_SQLITE
def test_nothing_is_run_within_the_block_even_if_the_projects_tests_are_eager(in_test_case: In) -> None:
    @in_test_case
    def body(case: TestCase) -> None:
        with eager_tasks():
            with captured_tasks() as sent:
                jobs.mail.delay("ada")
            assert (len(sent), jobs.log) == (1, [])
            jobs.mail.delay("bob")
        assert jobs.log == ["mail to bob"]


def test_calls_of_other_threads_are_captured(database: Any) -> None:
    def send() -> None:
        jobs.mail.delay("ada")
        database.connection.close()

    with captured_tasks() as sent:
        thread = threading.Thread(target=send)
        thread.start()
        thread.join()
    assert [one.args for one in sent] == [["ada"]]
    assert_enqueued(jobs.mail)


def test_what_waits_for_the_commit_is_sent_by_it(in_test_case: In) -> None:
    @in_test_case
    def body(case: TestCase) -> None:
        with captured_tasks() as sent:
            transaction.on_commit(lambda: jobs.mail.delay("late"))
            assert sent == []
            with case.captureOnCommitCallbacks(execute=True):
                transaction.on_commit(lambda: jobs.mail.delay("ada"))
                jobs.mail.delay_on_commit("bob")  # the row joins the transaction anyway
        assert [one.args for one in sent] == [["bob"], ["ada"]]


def test_what_a_rollback_takes_back_was_sent_and_is_not_enqueued(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        with captured_tasks() as sent:
            with transaction.atomic():
                jobs.mail.delay("ada")
                transaction.set_rollback(True)
            jobs.price.delay(1)
        assert [one.result.exists() for one in sent] == [False, True]
        assert_not_enqueued(jobs.mail)


def test_a_call_that_is_not_stored_because_it_is_there_already_was_not_sent(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        with captured_tasks() as sent:
            first, second = jobs.unique.delay("flour"), jobs.unique.delay("flour")
            jobs.mail.apply_async(("ada",), task_id="mine")
            jobs.mail.apply_async(("bob",), task_id="mine")
        assert first == second
        assert [(one.name, one.args) for one in sent] == [(jobs.unique.name, ["flour"]), (jobs.mail.name, ["ada"])]


# What is enqueued ----------------------------------------------------------------------------------------------------


def test_what_is_enqueued_is_found_by_task_arguments_queue_and_time(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        flour = jobs.price.delay((1, 2), each=3)
        salt = jobs.price.apply_async((2,), queue="slow", countdown=60)
        assert [one.id for one in enqueued()] == [flour.id, salt.id]
        assert enqueued(jobs.price) == enqueued(jobs.price.name) == enqueued()
        assert [one.id for one in enqueued(args=[(1, 2)])] == [flour.id]
        assert [one.id for one in enqueued(args=(ANY,), kwargs={"each": 3})] == [flour.id]
        assert [one.id for one in enqueued(kwargs={})] == [salt.id]
        assert [one.id for one in enqueued(jobs.price, queue="slow")] == [salt.id]
        assert [one.id for one in enqueued(within=30)] == [flour.id]
        assert len(enqueued(within=timedelta(minutes=2))) == 2
        [sent] = assert_enqueued(jobs.price, args=[2], within=61)
        assert isinstance(sent, SentTask)
        assert (sent.countdown, sent.priority, sent.headers) == (60, 0, {})
        assert len(assert_enqueued(jobs.price, count=2)) == 2
        assert enqueued(jobs.mail) == []
        assert_not_enqueued(jobs.mail)
        run_tasks(with_scheduled=True)
        assert_not_enqueued()


def test_a_retry_is_enqueued_and_what_is_done_is_not(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        jobs.order.delay("flour", tries=1)
        run_tasks()
        [sent] = assert_enqueued(jobs.order, within=60)
        assert sent.eta is not None
        assert sent.eta > timezone.now() + timedelta(seconds=30)
        run_tasks(with_scheduled=True)
        assert_not_enqueued(jobs.order)


def test_a_failed_assertion_shows_what_comes_nearest(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        jobs.price.apply_async((1,), {"each": 3}, queue="slow")
        jobs.price.apply_async((2,), eta=ETA)
        jobs.mail.delay("ada")
        with pytest.raises(AssertionError) as told:
            assert_enqueued(jobs.price, args=[2], kwargs={}, queue="slow", within=60)
        name = jobs.price.name
        assert str(told.value).splitlines() == [
            f"Enqueued: None of {name} with args=[2], kwargs={{}}, queue='slow', within=0:01:00.",
            "Nearest to it:",
            f"  {name}(args=[1], kwargs={{'each': 3}}) in queue 'slow': args are [1] and kwargs are {{'each': 3}}",
            f"  {enqueued(args=[2])[0]}: queue is 'default' and it is due at 2100-01-01 00:00:00 UTC",
            f"  {jobs.mail.name}(args=['ada'], kwargs={{}}) in queue 'mail': it is another task and args are ['ada']"
            " and queue is 'mail'",
        ]
        with pytest.raises(AssertionError, match=r"Enqueued: 2 of .*price, 1 wanted\.\nSo are:\n .*\(args=\[1\]"):
            assert_enqueued(jobs.price, count=1)
        with pytest.raises(AssertionError, match=r"against expectation: any task\.\nThere are:\n(  .*\n){2}.*price"):
            assert_not_enqueued()
        for number in range(9):
            jobs.order.delay(str(number))
        with pytest.raises(AssertionError, match="… and 7 more"):
            assert_enqueued("nobody.knows")


def test_a_failed_assertion_says_why_nothing_may_be_enqueued(in_test_case: In) -> None:
    @in_test_case
    def body(case: TestCase) -> None:
        with pytest.raises(AssertionError, match=r"None of .*mail\.\nNothing is enqueued\.$"):
            assert_enqueued(jobs.mail)
        jobs.price.delay(1)  # which leaves a function of ours to the commit, on PostgreSQL
        run_tasks()
        transaction.on_commit(lambda: jobs.price.delay(1))
        with eager_tasks(), pytest.raises(AssertionError) as told:
            assert_enqueued(jobs.price)
        assert str(told.value).splitlines()[1:] == [
            "Nothing is enqueued.",
            "TASK_ALWAYS_EAGER is on here: calls run at once, and none is enqueued.",
            f"Done already: 1 of {jobs.price.name}.",
            "Functions that wait for the commit: 1. In a TestCase they run within "
            "captureOnCommitCallbacks(execute=True).",
        ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"task": 5}, "task must be a task or its name, not 5"),
        ({"args": "flour"}, "args must be a list or a tuple, not 'flour'"),
        ({"kwargs": [1]}, r"kwargs must be a dict, not \[1\]"),
        ({"queue": "no queue"}, "queue is 'no queue'; allowed"),
        ({"within": "soon"}, "within must be seconds as a number, or a timedelta, not 'soon'"),
        ({"count": 0}, r"count must be a whole number from 1, not 0; assert_not_enqueued\(\) asks for none"),
    ],
)
@ONLY_SQLITE
def test_a_condition_that_nothing_can_meet_is_an_error(arguments: dict[str, Any], told: str, in_test_case: In) -> None:
    @in_test_case
    def body(case: TestCase) -> None:
        with pytest.raises((TypeError, ValueError), match=told):
            assert_enqueued(**{"task": None, **arguments})


@ONLY_SQLITE
def test_the_mixin_offers_the_same_as_methods(database: Any) -> None:
    class OrderTests(TasksMixin, TestCase):
        def test_orders(self) -> None:
            with self.captured_tasks() as sent:
                jobs.order.delay("flour")
            assert len(sent) == 1
            self.assertEnqueued(jobs.order, args=["flour"])
            self.assertNotEnqueued(jobs.mail)
            assert len(self.enqueued()) == 1
            assert self.run_tasks().counts == {"SUCCESS": 1}
            assert self.perform_task(jobs.price, (2,)).get() == 2
            with self.eager_tasks():
                assert jobs.price.delay(3).get() == 3
            with pytest.raises(RuntimeError, match="within a transaction"), self.worker():
                pass
            self.assertEnqueued(jobs.mail)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(OrderTests).run(result)
    assert result.errors == []
    [(_, text)] = result.failures
    assert f"AssertionError: Enqueued: None of {jobs.mail.name}." in text
