"""What the rows refuse, and what they tell of themselves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import Error, IntegrityError, transaction

from django_tasks import states
from django_tasks.backends import get_broker
from django_tasks.ids import key_of, new_id
from django_tasks.models import Task, TaskResult, Worker
from tests.databases import TestDatabase, attached

#: Connections whose clock shows another hour than the server's.
ELSEWHERE = {"sqlite": "", "postgresql": "", "mariadb": "?init_command=SET%20time_zone%3D%27%2B05%3A30%27"}


def fields(**changes: Any) -> dict[str, Any]:
    """Return what every call needs."""
    now = get_broker().now()
    return {
        "id": UUID(new_id()),
        "name": "n",
        "queue": "q",
        "body": "[[],{}]",
        "created_at": now,
        "due_at": now,
        **changes,
    }


def a_worker(**changes: Any) -> Worker:
    """Store a worker that renewed its lease just now."""
    now = get_broker().now()
    values = {"name": "w", "hostname": "h", "pid": 1, "pool": "prefork", "concurrency": 1, "queues": "*"}
    return Worker.objects.create(
        **{**values, "version": "1", "started_at": now, "beat_at": now, "lease": 30.0, **changes}
    )


def test_the_to_do_list_refuses_a_state_that_is_not_one_of_its_own(database: TestDatabase) -> None:
    for state in [*sorted(states.FINISHED), "", "CUSTOM"]:
        with pytest.raises(Error, match="djt_task_state"), transaction.atomic():
            Task.objects.create(**fields(state=state))
    assert not Task.objects.exists()


def test_the_to_do_list_takes_each_state_of_its_own(database: TestDatabase) -> None:
    for state in states.UNFINISHED:
        Task.objects.create(**fields(state=state))
    assert Task.objects.count() == len(states.UNFINISHED)


@pytest.mark.parametrize("model", [Task, TaskResult])
def test_an_id_is_unique(database: TestDatabase, model: Any) -> None:
    extra = {} if model is Task else {"state": states.SUCCESS, "finished_at": get_broker().now()}
    values = fields(**extra)
    model.objects.create(**values)
    with pytest.raises(IntegrityError), transaction.atomic():
        model.objects.create(**values)


def test_questions_to_the_to_do_list(database: TestDatabase) -> None:
    now = get_broker().now()
    hour = timedelta(hours=1)
    made = {
        "due": Task.objects.create(**fields(due_at=now - hour)),
        "again": Task.objects.create(**fields(due_at=now - hour, state=states.RETRY)),
        "later": Task.objects.create(**fields(due_at=now + hour)),
        "runs": Task.objects.create(**fields(due_at=now - hour, state=states.STARTED, worker_id=7)),
        "aside": Task.objects.create(**fields(due_at=now - hour, state=states.UNROUTABLE)),
    }

    def names(found: Any) -> set[str]:
        wanted = set(found)
        return {name for name, task in made.items() if task in wanted}

    with attached("elsewhere", database.url + ELSEWHERE[database.kind]):
        for alias in (database.alias, "elsewhere"):
            tasks = Task.objects.using(alias)
            assert names(tasks.claimable()) == {"due", "again", "later"}
            assert names(tasks.due()) == {"due", "again"}
            assert names(tasks.scheduled()) == {"later"}
            assert names(tasks.running()) == names(tasks.of_worker(7)) == {"runs"}
            assert names(tasks.unroutable()) == {"aside"}


def test_questions_to_the_ledger(database: TestDatabase) -> None:
    now = get_broker().now()
    old = TaskResult.objects.create(**fields(state=states.FAILURE, finished_at=now - timedelta(days=2)))
    new = TaskResult.objects.create(**fields(state=states.SUCCESS, finished_at=now))
    results = TaskResult.objects.all()
    assert list(results.finished_before(now - timedelta(days=1))) == list(results.failed()) == [old]
    assert list(results.with_state(states.SUCCESS)) == [new]


def test_a_worker_is_online_while_its_lease_holds(database: TestDatabase) -> None:
    now = get_broker().now()
    ago = now - timedelta(seconds=31)
    known = {
        "online": a_worker(),
        "draining": a_worker(draining=True),
        "stopped": a_worker(stopped_at=now),
        "lost": a_worker(lost_at=now),
    }
    silent = a_worker(beat_at=ago)
    assert {name: worker.status(now) for name, worker in known.items()} == {name: name for name in known}
    assert silent.status(now) == "lost"
    with attached("elsewhere", database.url + ELSEWHERE[database.kind]):
        for alias in (database.alias, "elsewhere"):
            online = Worker.objects.using(alias).online(timedelta(seconds=30))
            assert {worker.pk for worker in online} == {known["online"].pk, known["draining"].pk}


def test_a_call_tells_what_its_columns_hold() -> None:
    task = Task(id=new_id(), name="app.send", custom_id=None)
    assert (task.task_id, task.option_values, task.attempts) == (str(task.id), {}, [])
    assert str(task) == f"app.send {task.id}"
    named = Task(id=key_of("order 1"), custom_id="order 1", options='{"shadow":"s"}', history='[{"attempt":1}]')
    assert (named.task_id, named.option_values, named.attempts) == ("order 1", {"shadow": "s"}, [{"attempt": 1}])


def test_a_running_task_shows_what_it_said_of_itself() -> None:
    running = Task(state=states.STARTED, custom_state="PROGRESS")
    assert running.shown_state == "PROGRESS"
    assert Task(state=states.STARTED).shown_state == states.STARTED
    assert Task(state=states.RETRY, custom_state="PROGRESS").shown_state == states.RETRY


def test_a_name_in_capitals_is_another_one_to_the_orm(database: TestDatabase) -> None:
    """MySQL's and MariaDB's own order of letters takes both for the same."""
    for text in ("A", "a"):
        Task.objects.create(**fields(queue=text, name=text))
    assert list(Task.objects.filter(queue="A").values_list("name", flat=True)) == ["A"]
    assert list(Task.objects.filter(name="a").values_list("queue", flat=True)) == ["a"]
    assert sorted(Task.objects.values_list("queue", flat=True).distinct()) == ["A", "a"]
