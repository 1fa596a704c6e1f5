"""What a task is told of its workflow, and what it may do to it."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from django_tasks import chain, chord, group, shared_task, states
from django_tasks.exceptions import ImproperlyConfigured
from django_tasks.models import Edge, Task, TaskResult
from tests.api.conftest import Runner
from tests.canvas.conftest import assert_nothing_is_left
from tests.canvas.jobs import (
    add,
    boom,
    growing,
    listed,
    note,
    note_error,
    notes,
    replacing,
    shaky,
    summed,
    total,
    where,
)

pytestmark = pytest.mark.databases("sqlite", "postgresql", "redis")


def finish(run: Runner, canvas: Any) -> Any:
    result = canvas.apply_async()
    run.finish()
    assert_nothing_is_left()
    return result


def only(run: Runner, mode: str) -> None:
    if run.is_eager == (mode == "real"):
        pytest.skip(f"this is about {mode} mode")


def test_ids_of_root_parent_and_group_are_those_of_the_results(run: Runner) -> None:
    result = finish(run, chain(where.s(), group(where.s(), where.s()), listed.s()))
    header, first = result.parent, result.parent.parent
    told = [first.get(timeout=0), *header.get(timeout=0)]
    assert {one["root"] for one in told} == {first.id}
    assert [one["parent"] for one in told] == [None, first.id, first.id]
    assert [(one["group"], one["index"]) for one in told] == [(None, None), (header.id, 0), (header.id, 1)]
    assert [one["chord"] for one in told] == [None, result.id, result.id]


def test_what_follows_is_told_as_signatures(run: Runner) -> None:
    only(run, "real")
    sig = where.s().on_error(note_error.s())
    sig.link(note.s())
    result = finish(run, chain(sig, listed.s("next"), listed.s("last")))
    told = result.parent.parent.get(timeout=0)
    assert [name.rpartition(".")[2] for name in told["chain"]] == ["listed", "listed"]
    assert [name.rpartition(".")[2] for name in told["callbacks"]] == ["note"]
    assert [name.rpartition(".")[2] for name in told["errbacks"]] == ["note_error"]


def test_links_are_called_once_each(run: Runner) -> None:
    sig = add.s(1)
    sig.link(note.s("first"))
    sig.link(note.s("second"))
    sig.link(note.s("first"))  # the same again is not another one
    sig.link(chain(add.s(10), note.s("third")))
    finish(run, sig)
    assert sorted(notes, key=str) == [[12, "third"], [2, "first"], [2, "second"]]


def test_links_of_a_canvas_are_called_where_celery_calls_them(run: Runner) -> None:
    ends = [
        (chain(add.s(1), add.s(2)), [4]),
        (chord([add.s(1), add.s(2)], total.s()), [5]),
        (group(add.s(1), add.s(2)), [None]),
    ]
    for canvas, values in ends:
        notes.clear()
        canvas.link(note.s() if values != [None] else note.si(None))
        finish(run, canvas)
        assert notes == values


def test_a_link_of_the_call_itself(run: Runner) -> None:
    add.apply_async((1,), link=[note.s("linked"), note.si("alone")], link_error=note_error.s())
    boom.apply_async(link=note.s(), link_error=[note_error.s(), note_error.s("more")])
    run.finish()
    assert [one for one in notes if not isinstance(one, tuple)] in ([[2, "linked"], "alone"], ["alone", [2, "linked"]])
    assert sorted(one[3:] for one in notes if isinstance(one, tuple)) == [(), ("more",)]


def test_tasks_are_added_to_a_chord_while_it_runs(run: Runner) -> None:
    only(run, "real")
    result = finish(run, chord([growing.s(1, 2), growing.s(5, 0), growing.s(7, 1)], summed.s()))
    _, values = result.get(timeout=0)
    assert values[:3] == [1, 5, 7]
    assert sorted(values[3:]) == [100, 100, 101]


def test_outside_of_a_header_nothing_can_be_added(run: Runner) -> None:
    result = finish(run, growing.s(1, 1))
    with pytest.raises(ValueError, match="in no chord's header"):
        result.get(timeout=0)


def test_a_replacement_keeps_the_place_and_tells_the_errbacks_once(run: Runner) -> None:
    finish(run, chain(replacing.s(1, "boom").on_error(note_error.s()), note.s()))
    assert len(notes) == 1
    assert notes[0][2] == "ValueError('boom')"
    notes.clear()
    result = finish(run, chord([replacing.s(1, "chord"), add.s(1)], summed.s()).on_error(note_error.s()))
    assert result.get(timeout=0) == ["sum", [5, 2]]
    assert notes == []


def test_a_replacement_inherits_headers_stamps_and_its_place_in_a_group(run: Runner) -> None:
    only(run, "real")
    sig = replacing.s(1, "where").set(headers={"tenant": "a"})
    sig.stamp(shop="b")
    result = finish(run, group(add.s(1), sig) | listed.s())
    told = result.parent[1].get(timeout=0)
    assert told["headers"] == {"tenant": "a"}
    assert told["stamps"] == {"shop": "b"}
    assert (told["group"], told["index"], told["chord"]) == (result.parent.id, 1, result.id)
    assert told["id"] == result.parent[1].id
    assert told["nesting"] == 1


@shared_task(bind=True, max_retries=2)
def stamped(self: Any, label: str) -> Any:
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.stamps, self.request.headers, (self.request.delivery_info or {})["priority"], self.request.group


def test_stamps_headers_priority_and_group_survive_retries(run: Runner) -> None:
    sig = stamped.s("x").set(priority=7, headers={"tenant": "a"})
    canvas = group(sig, add.s(1))
    canvas.stamp(shop="b")
    result = finish(run, canvas)
    assert result[0].get(timeout=0) == [{"shop": "b"}, {"tenant": "a"}, 7, result.id]


def test_a_task_of_a_workflow_is_retried_and_then_the_rest_goes_on(run: Runner) -> None:
    result = finish(run, chain(shaky.s(1, 3), add.s(1), group(shaky.s(1), add.s(1)), total.s()))
    assert result.get(timeout=0) == 5
    finish(run, chain(shaky.s(1, 9).on_error(note_error.s()), add.s(1)))
    assert len(notes) == 1


@shared_task(bind=True, atomic=True)
def sending(self: Any, fails: bool) -> str:
    result = chain(note.s(1), group(note.s(), note.s()), summed.s()).delay()
    if fails:
        raise ValueError("nothing of it is sent")
    return str(result.id)


def test_what_an_atomic_task_sends_appears_only_if_it_commits(run: Runner) -> None:
    only(run, "real")
    finish(run, sending.s(True))
    assert notes == []
    assert TaskResult.objects.count() == 1
    result = finish(run, sending.s(False))
    assert notes == [1, 1, 1]
    rows = TaskResult.objects.filter(root_id=result.id)
    assert {str(row.parent_id) for row in rows.filter(name=note.name)} >= {result.id}


@shared_task(bind=True, atomic=True)
def replacing_atomically(self: Any, fails: bool) -> Any:
    sig = chord([add.s(1), boom.s() if fails else add.s(2)], total.s())
    raise self.replace(sig)


def test_an_atomic_task_puts_others_in_its_place(run: Runner) -> None:
    only(run, "real")
    result = finish(run, chain(replacing_atomically.s(False), add.s(100)))
    assert result.get(timeout=0) == 105
    result = finish(run, chain(replacing_atomically.s(True), add.s(100)))
    assert result.state == states.FAILURE


def test_a_workflow_is_sent_in_the_callers_transaction(run: Runner) -> None:
    only(run, "real")
    with transaction.atomic():
        chord([note.s(1), note.s(2)], summed.s()).delay()
        transaction.set_rollback(True)
    run.finish()
    assert notes == []
    assert not Task.objects.exists()
    assert not Edge.objects.exists()
    with transaction.atomic():
        result = chord([note.s(1), note.s(2)], summed.s()).delay()
        assert Task.objects.count() == 3
    run.finish()
    assert result.get(timeout=0) == ["sum", [1, 2]]


@pytest.mark.databases("sqlite", "redis")
def test_a_delay_begins_when_the_task_has_waited_long_enough(run: Runner) -> None:
    if run.is_eager:
        pytest.skip("nothing waits there")
    chain(add.s(1), add.s(2).set(countdown=60), add.s(3).set(expires=60)).apply_async()
    assert run.worker.step() is not None
    second = Task.objects.get(state=states.PENDING)
    assert 50 < (second.due_at - TaskResult.objects.get().finished_at).total_seconds() < 70
    third = Task.objects.get(state=states.WAITING)
    assert "expires_in" in third.option_values["node"]


@shared_task(unique=True)
def alone(value: int = 0) -> int:
    return value


def test_a_unique_task_has_no_neighbours() -> None:
    with pytest.raises(ImproperlyConfigured, match="is unique"):
        chain(alone.s(1), add.s(1)).apply_async()


def test_skew_lets_members_start_one_after_the_other() -> None:
    skewed = group(add.s(number) for number in range(4)).skew(start=1, stop=3, step=1)
    assert [one.options["countdown"] for one in skewed.tasks] == [1, 2, 3, 3]


@shared_task(durable=False)
def forgotten(value: int) -> int:
    return value + 1


def test_a_task_that_is_not_durable_is_so_in_a_workflow(run: Runner) -> None:
    result = finish(run, chain(group(forgotten.s(1), forgotten.s(2)), total.s(), forgotten.s()))
    assert result.get(timeout=0) == 6
    members = group(forgotten.s(1), forgotten.s(2))()  # which nothing waits for
    run.finish()
    assert members.get(timeout=0) == [2, 3]


def test_a_call_that_waits_cannot_be_sent_without_a_row() -> None:
    with pytest.raises(ValueError, match="has a place in a workflow, which is kept in its row"):
        chain(add.s(1), add.s(2).set(durable=False)).apply_async()
