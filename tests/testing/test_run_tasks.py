"""``run_tasks`` and ``perform_task``: a worker's work, in the test's own transaction."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.test import TestCase
from django.utils import timezone

from django_tasks import AsyncResult, send_task, signals
from django_tasks.exceptions import DecodeError, EncodeError, NotRegistered
from django_tasks.models import Task, TaskResult, Worker
from django_tasks.testing import assert_enqueued, eager_tasks, perform_task, run_tasks
from tests.databases import TestDatabase
from tests.testing import jobs
from tests.testing.conftest import In
from tests.testing.jobs import HOUR, Shortage

ONLY_SQLITE = pytest.mark.databases("sqlite")


def test_it_runs_what_was_sent_and_what_that_sends_until_nothing_is_due(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        result = jobs.price.delay(3, each=2)
        jobs.send_many.delay(["a", "b"])
        summary = run_tasks()
        assert summary.counts == {"SUCCESS": 4}
        assert (result.get(timeout=10), result.state) == (6, "SUCCESS")
        assert jobs.log == ["mail to a", "mail to b"]
        assert summary.results[0] == result
        assert summary.errors == {}
        assert Task.objects.count() == 0
        assert TaskResult.objects.count() == 2  # the others ignore their results
        assert [one.get() for one in summary.results if one.ignored] == [None, None]
        assert Worker.objects.count() == 0
        assert run_tasks().results == []


def test_a_task_that_fails_raises_its_own_exception_in_the_test(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        result = jobs.fail.delay("flour")
        later = jobs.price.delay(1)
        with pytest.raises(Shortage, match="flour") as raised:
            run_tasks()
        assert raised.value.__notes__ == [f"Raised by task {jobs.fail.name}[{result.id}], run by django_tasks.testing"]
        assert (result.state, type(result.result)) == ("FAILURE", Shortage)
        assert later.state == "PENDING"
        assert run_tasks().counts == {"SUCCESS": 1}


def test_failures_are_collected_if_the_test_says_so(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        results = [jobs.fail.delay("flour"), jobs.price.delay(1), jobs.stop_the_test.delay("exit")]
        summary = run_tasks(failures="collect")
        assert summary.counts == {"SUCCESS": 1, "FAILURE": 2}
        assert summary.states == {results[0].id: "FAILURE", results[1].id: "SUCCESS", results[2].id: "FAILURE"}
        assert [repr(error) for error in summary.errors.values()] == ["Shortage('flour')", "SystemExit(3)"]


@ONLY_SQLITE
@pytest.mark.parametrize(("how", "error"), [("fail", pytest.fail.Exception), ("interrupt", KeyboardInterrupt)])
def test_what_stops_the_test_is_not_taken_for_a_failure_of_the_task(
    how: str, error: type[BaseException], inside: In
) -> None:
    @inside
    def body(case: TestCase) -> None:
        jobs.stop_the_test.delay(how)
        with pytest.raises(error):
            run_tasks(failures="collect")


def test_a_retry_waits_for_its_time_unless_scheduled_tasks_are_run_as_well(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        result = jobs.order.delay("flour", tries=2)
        assert run_tasks().states == {result.id: "RETRY"}
        assert run_tasks().results == []
        assert (result.state, result.retries) == ("RETRY", 1)
        summary = run_tasks(with_scheduled=True)
        assert (summary.states, summary.results) == ({result.id: "SUCCESS"}, [result])
        assert (result.get(timeout=10), result.retries) == ("flour ordered", 2)
        assert jobs.log == [("flour", 0), ("flour", 1), ("flour", 2)]


def test_time_is_set_forward_as_far_as_the_test_says_and_delays_add_up(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        result = jobs.order.delay("flour", tries=3)  # retried after 60, 120 and 180 seconds
        early = jobs.price.apply_async((1,), countdown=100)
        late = jobs.price.apply_async((2,), eta=timezone.now() + 2 * HOUR)
        jobs.send_later.apply_async((3,), countdown=118)  # which sends a task for 121 seconds from now
        summary = run_tasks(now=timedelta(seconds=123))
        assert summary.counts == {"RETRY": 1, "SUCCESS": 3}
        assert (result.retries, early.state, late.state) == (3, "SUCCESS", "PENDING")
        assert jobs.log == [("flour", 0), ("flour", 1), "sent", ("flour", 2)]
        assert run_tasks(now=timedelta(seconds=170)).results == []
        assert run_tasks(now=timedelta(seconds=190)).states == {result.id: "SUCCESS"}
        assert run_tasks(now=timezone.now() + 3 * HOUR).results == [late]
        assert run_tasks().results == []


def test_the_rows_keep_the_moment_at_which_they_were_due(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        eta = datetime(2100, 1, 1, tzinfo=UTC)
        result = jobs.price.apply_async((1,), eta=eta)
        run_tasks(with_scheduled=True)
        assert TaskResult.objects.get(pk=result.id).due_at == eta


def test_what_expires_on_the_journey_is_revoked(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        result = jobs.price.apply_async((1,), countdown=60, expires=30)
        in_time = jobs.price.apply_async((2,), countdown=60, expires=90)
        gone = jobs.price.apply_async((3,), expires=-1)
        assert run_tasks().states == {gone.id: "REVOKED"}
        summary = run_tasks(with_scheduled=True)
        assert (summary.states[result.id], summary.states[in_time.id]) == ("REVOKED", "SUCCESS")


@ONLY_SQLITE
@pytest.mark.parametrize("days", [30, 4000])
def test_a_test_that_travels_in_time_says_until_when(days: int, inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        there = timezone.now() + timedelta(days=days)
        with time_machine.travel(there, tick=False):
            tomorrow = jobs.what_time.apply_async(eta=timezone.now() + timedelta(days=1))
            relative = jobs.price.apply_async((1,), countdown=60)  # counted by the database's clock, which stays
            assert run_tasks(now=timezone.now()).results == [relative]
        with time_machine.travel(there + timedelta(days=2), tick=False):
            assert run_tasks(now=timezone.now()).results == [tomorrow]
            assert tomorrow.get() == timezone.now()
        with time_machine.travel(there - timedelta(days=days + 1)), pytest.raises(ValueError, match="only be set forw"):
            run_tasks(now=timezone.now())


def test_queues_are_run_in_the_order_given_and_others_are_left(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        for queue, article in (("b", "b1"), ("a", "a1"), ("c", "c1"), ("a", "a2")):
            jobs.order.apply_async((article,), queue=queue)
        jobs.order.apply_async(("a0",), queue="a", priority=9)
        assert run_tasks("c").counts == {"SUCCESS": 1}
        assert run_tasks(["b", "a"]).counts == {"SUCCESS": 4}
        assert [article for article, _ in jobs.log] == ["c1", "b1", "a0", "a1", "a2"]


def test_the_number_of_attempts_can_be_limited(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        for number in range(3):
            jobs.price.delay(number)
        assert run_tasks(max_tasks=2).counts == {"SUCCESS": 2}
        assert Task.objects.count() == 1


def test_one_round_leaves_what_it_sends(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        jobs.for_ever.delay()
        jobs.price.delay(1)
        retried = jobs.order.delay("flour", tries=1)
        assert run_tasks(until_empty=False).counts == {"SUCCESS": 2, "RETRY": 1}
        assert Task.objects.count() == 2
        assert run_tasks(until_empty=False, now=HOUR).counts == {"SUCCESS": 2}
        assert retried.state == "SUCCESS"


@ONLY_SQLITE
def test_a_task_that_sends_itself_for_ever_is_found_out(in_test_case: In, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_tasks.testing.running.ENDLESS", 20)

    @in_test_case
    def body(case: TestCase) -> None:
        jobs.for_ever.delay()
        with pytest.raises(RuntimeError, match=f"20 attempts, the last of {jobs.for_ever.name}"):
            run_tasks()
        Task.objects.all().delete()


def test_progress_is_told_and_seen_within_the_tests_transaction(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        result = jobs.progress.delay()
        run_tasks()
        assert result.get() == ["PROGRESS", {"done": 1}, False]


def test_a_task_that_breaks_the_transaction_does_not_break_the_test(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        Group.objects.create(name="mine")
        results = [jobs.break_transaction.delay("twice"), jobs.survive.delay("once"), jobs.price.delay(1)]
        summary = run_tasks(failures="collect")
        assert list(summary.states.values()) == ["FAILURE", "SUCCESS", "SUCCESS"]
        assert type(summary.errors[results[0].id]).__name__ == "IntegrityError"
        assert results[1].get() == 1
        assert Group.objects.filter(name="mine").exists()
        # Only within a transaction is the first statement lost with the second.
        assert Group.objects.filter(name="twice").exists() is not connection.in_atomic_block


def test_a_result_that_cannot_be_stored_fails_the_task_and_not_the_test(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        jobs.unstorable.delay()
        nul = jobs.price.delay("\0")
        summary = run_tasks(failures="collect")
        assert {type(error) for error in summary.errors.values()} <= {EncodeError}
        assert summary.states[nul.id] == nul.state
        assert Group.objects.count() == 0


def test_functions_on_commit_run_as_after_the_tasks_own_commit(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        jobs.on_commit.delay(5)
        with case.captureOnCommitCallbacks(execute=True) as callbacks:
            summary = run_tasks()
        assert jobs.log == [("before", 5), ("committed", 5)]
        assert summary.counts == {"SUCCESS": 2}
        assert callbacks == []


def test_what_the_test_gives_to_on_commit_is_its_own_business(in_test_case: In) -> None:
    @in_test_case
    def body(case: TestCase) -> None:
        with case.captureOnCommitCallbacks(execute=True):
            transaction.on_commit(lambda: jobs.price.delay(1))
            assert run_tasks().results == []
        assert run_tasks().counts == {"SUCCESS": 1}


def test_an_atomic_task_leaves_all_or_nothing(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        jobs.all_or_nothing.delay("good", fails=False)
        jobs.all_or_nothing.delay("bad", fails=True)
        assert run_tasks(failures="collect").counts == {"SUCCESS": 2, "FAILURE": 1}
        assert list(Group.objects.values_list("name", flat=True)) == ["good"]
        assert jobs.log == ["mail to good"]


def test_a_rejected_task_runs_again_and_a_revoked_one_does_not(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        again, never, itself = jobs.requeued.delay(), jobs.price.delay(1), jobs.revoke_itself.delay()
        never.revoke()
        assert run_tasks().states == {again.id: "SUCCESS", itself.id: "REVOKED"}
        assert (again.get(), never.state) == (3, "REVOKED")


def test_an_asynchronous_task_works_on_the_tests_connection(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        Group.objects.create(name="mine")
        result = jobs.count_groups.delay()
        run_tasks()
        assert result.get() == 2


def test_limits_hold_nothing_back(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        results = [jobs.limited.delay(number) for number in range(3)]
        assert run_tasks().counts == {"SUCCESS": 3}
        assert [result.get() for result in results] == [0, 1, 2]
        assert perform_task(jobs.limited, (4,)).get() == 4


def test_arguments_that_cannot_be_read_fail_the_task(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        result = jobs.price.delay(1)
        Task.objects.filter(pk=result.id).update(body="[", options="nonsense")
        with pytest.raises(DecodeError):
            run_tasks()
        assert result.state == "FAILURE"


@pytest.mark.databases(alias="tasks")
def test_tasks_in_another_database_are_run_there(database: TestDatabase) -> None:
    result = jobs.price.delay(2)
    assert Task.objects.using("tasks").count() == 1
    assert_enqueued(jobs.price)
    with transaction.atomic(using="tasks"):
        assert run_tasks().counts == {"SUCCESS": 1}
        transaction.set_rollback(True, using="tasks")
    assert result.state == "PENDING"
    assert perform_task(jobs.progress).get() == ["PROGRESS", {"done": 1}, False]


def test_an_unknown_name_is_an_error(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        result = send_task("nobody.knows")
        with pytest.raises(NotRegistered, match="run_tasks"):
            run_tasks()
        assert Task.objects.get(pk=result.id).state == "UNROUTABLE"


@ONLY_SQLITE
def test_it_runs_stored_tasks_whatever_the_projects_settings_say_of_eager_mode(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        jobs.send_many.delay(["a"])
        with eager_tasks():
            assert run_tasks(max_tasks=1).counts == {"SUCCESS": 1}
            assert Task.objects.get().name == jobs.mail.name
            assert perform_task(jobs.send_many, (["b", "c"],)).state == "SUCCESS"
        assert Task.objects.count() == 3
        run_tasks()


@ONLY_SQLITE
def test_signals_and_request_are_those_of_a_worker(inside: In) -> None:
    received: list[Any] = []

    def receive(signal: Any, sender: Any, request: Any, **told: Any) -> None:
        received.append((sender.partition("@")[0], request.name, request.attempt))

    @inside
    def body(case: TestCase) -> None:
        result = jobs.price.delay(1)
        signals.task_received.connect(receive)
        run_tasks()
        assert received == [("testing", jobs.price.name, 1)]
        assert str(AsyncResult[Any](result.id).worker).startswith("testing@")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"failures": "ignore"}, "failures must be 'raise' or 'collect', not 'ignore'"),
        ({"max_tasks": 0}, "max_tasks must be a whole number from 1, or None, not 0"),
        ({"queue": "no queue"}, "queue is 'no queue'; allowed"),
        ({"now": HOUR, "with_scheduled": True}, "Give either with_scheduled"),
        ({"now": 60}, "now must be a datetime, or a timedelta from the database's now, not 60"),
    ],
)
@ONLY_SQLITE
def test_a_bad_argument_is_told(arguments: dict[str, Any], told: str, in_test_case: In) -> None:
    @in_test_case
    def body(case: TestCase) -> None:
        with pytest.raises((TypeError, ValueError), match=told):
            run_tasks(**arguments)


# One task -----------------------------------------------------------------------------------------------------------


def test_one_task_is_performed_and_nothing_else(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        other = jobs.price.apply_async((1,), priority=9)
        result = perform_task(jobs.price, (3,), {"each": 2}, countdown=60)
        assert (result.get(timeout=10), result.state, other.state) == (6, "SUCCESS", "PENDING")
        sender = perform_task(jobs.send_many, (["a"],))
        assert (sender.state, jobs.log, Task.objects.count()) == ("SUCCESS", [], 2)
        assert perform_task(jobs.price.name, (2,)).get() == 2


def test_a_performed_task_tells_its_failure_and_its_retry_by_its_result(inside: In) -> None:
    @inside
    def body(case: TestCase) -> None:
        failed = perform_task(jobs.fail, ("flour",))
        assert failed.state == "FAILURE"
        with pytest.raises(Shortage, match="flour"):
            failed.get()
        retried = perform_task(jobs.order, ("flour",), {"tries": 1})
        assert (retried.state, str(retried.result)) == ("RETRY", "flour")
        run_tasks(with_scheduled=True)
        assert retried.get() == "flour ordered"


@ONLY_SQLITE
def test_a_task_that_is_done_is_not_performed_again(in_test_case: In) -> None:
    @in_test_case
    def body(case: TestCase) -> None:
        first = perform_task(jobs.order, ("flour",), task_id="mine")
        assert perform_task(jobs.order, ("flour",), task_id="mine") == first
        assert jobs.log == [("flour", 0)]
        with pytest.raises(TypeError, match="article"):
            perform_task(jobs.order)
