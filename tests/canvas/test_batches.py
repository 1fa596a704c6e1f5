"""Batches: who is called when all tasks have ended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_tasks import AsyncResult, GroupResult, batch, chain, chord, dag, group, signature
from django_tasks.exceptions import ChordError
from tests.api.conftest import Runner
from tests.canvas.conftest import assert_nothing_is_left
from tests.canvas.jobs import add, boom, ignoring, listed, note, note_error, note_failed, notes, shaky, summed, total

pytestmark = pytest.mark.databases("sqlite", "postgresql", "redis")

#: The callbacks of every batch here.
CALLED: dict[str, Any] = {
    "on_success": note.s("success"),
    "on_failure": note_error.s("failure"),
    "on_complete": note.s("complete"),
}


def finish(run: Runner, made: Any) -> Any:
    result = made if isinstance(made, AsyncResult) else made()
    run.finish()
    assert_nothing_is_left()
    return result


def test_of_a_batch_that_succeeds_the_callbacks_for_success_and_for_the_end_are_called_once(run: Runner) -> None:
    result = finish(run, batch([add.s(1), shaky.s(5, 2), chain(add.s(1), add.s(2))], **CALLED))
    assert result.get(timeout=0) == [2, 5, 4]
    success, complete = sorted(notes, key=lambda one: str(one[1]), reverse=True)
    assert success == [[2, 5, 4], "success"]
    assert complete[1] == "complete"
    assert complete[0] == [{"id": one.id, "state": "SUCCESS", "result": one.get(timeout=0)} for one in result]


def test_of_a_batch_with_failures_the_callback_for_failure_is_called_once_and_that_for_success_is_not(
    run: Runner,
) -> None:
    result = finish(run, batch([add.s(1), boom.s(), chain(boom.s(), add.s(1)), ignoring.s()], **CALLED))
    failure = next(one for one in notes if "failure" in one)
    complete = next(one for one in notes if "complete" in one)
    assert len(notes) == 2
    assert failure[2].startswith("ChordError(")
    assert complete[0] == [
        {"id": result[0].id, "state": "SUCCESS", "result": 2},
        {"id": result[1].id, "state": "FAILURE", "error": "ValueError: boom"},
        {"id": result[2].id, "state": "FAILURE", "error": "ValueError: boom"},
        {"id": result[3].id, "state": "IGNORED", "error": ""},
    ]


@pytest.mark.parametrize("callback", [note.si("all good"), chain(summed.s(), note.s()), group(note.s(), note.s())])
def test_a_callback_for_success_may_be_a_canvas_and_its_own_failure_is_not_the_batchs(
    run: Runner, callback: Any
) -> None:
    for members in ([add.s(1), add.s(2)], [add.s(1), boom.s()]):
        notes.clear()
        finish(run, batch(members, on_success=callback, on_failure=note_failed.s("failed")))
        assert [one[0] == "failed" for one in notes if isinstance(one, tuple)] == (
            [True] if boom.s() in members else []
        )
        assert bool(notes) is True
    notes.clear()
    finish(run, batch([add.s(1)], on_success=boom.s(), on_failure=note_failed.s("failed")))
    assert notes == []


def test_one_callback_is_enough(run: Runner) -> None:
    finish(run, batch([boom.s(), add.s(1)], on_failure=note.si("failed")))
    finish(run, batch([boom.s(), add.s(1)], on_complete=note.si("ended")))
    finish(run, batch([boom.s(), add.s(1)], on_success=note.si("never")))
    finish(run, batch([add.s(1)], on_failure=note.si("never")))
    assert notes == ["failed", "ended"]


def test_a_batch_of_nothing_has_succeeded(run: Runner) -> None:
    assert finish(run, batch([], **CALLED)).results == []
    assert sorted(notes, key=str) == [[[], "complete"], [[], "success"]]


def test_the_callback_for_the_end_may_be_many(run: Runner) -> None:
    finish(run, batch([boom.s(), chord([add.s(1)], total.s())], on_complete=group(note.s("a"), note.s("b"))))
    assert sorted(name for _, name in notes) == ["a", "b"]
    assert [[one["state"] for one in told] for told, _ in notes] == [["FAILURE", "SUCCESS"]] * 2


@pytest.mark.databases("sqlite", "redis")
def test_a_revoked_task_fails_its_batch(run: Runner) -> None:
    if run.is_eager:
        pytest.skip("nothing waits there")
    result = batch([add.s(1), add.s(2)], **CALLED)()
    result[0].revoke()
    run.finish()
    assert sorted(one[-1] for one in notes) == ["complete", "failure"]
    assert_nothing_is_left()


@pytest.mark.databases("sqlite", "redis")
def test_a_batch_is_found_again_by_its_id(run: Runner) -> None:
    if run.is_eager:
        pytest.skip("there is no ledger")
    result = finish(run, batch(add.s(number) for number in range(3)))
    found = GroupResult.restore(result.id)
    assert found is not None
    assert found.get(timeout=0) == [1, 2, 3]


def named(name: str) -> dict[str, Any]:
    """Return callbacks that note their name."""
    return {"on_success": note.si(f"{name} succeeded"), "on_failure": note.si(f"{name} failed")}


def test_in_a_chain_a_batch_takes_in_what_comes_before_and_hands_on_the_list_of_its_results(run: Runner) -> None:
    steps = chain(add.s(1), batch([add.s(10), add.s(20)], **CALLED), total.s(), note.s("sum"))
    assert finish(run, steps).get(timeout=0) == 34
    success, complete = sorted((one for one in notes if one[1] != "sum"), key=lambda one: str(one[1]), reverse=True)
    assert success == [[12, 22], "success"]
    assert [one["result"] for one in complete[0]] == [12, 22]


def test_a_batch_that_fails_in_a_chain_ends_it_and_is_told_of(run: Runner) -> None:
    result = finish(run, chain(batch([add.s(1), boom.s()], **CALLED), note.s("never"), add.s(1)))
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=0)
    assert isinstance(result.result, ChordError)
    assert sorted(one[-1] for one in notes) == ["complete", "failure"]


@pytest.mark.parametrize("callback", [note.si("never"), group(note.si("never"), note.si("never"))])
@pytest.mark.parametrize("members", [[add.s(1)], [add.s(1), add.s(2)], []])
def test_when_what_comes_before_a_batch_fails_nothing_of_it_runs_and_no_callback_is_called(
    run: Runner, members: list[Any], callback: Any
) -> None:
    never = {"on_success": callback, "on_failure": callback, "on_complete": callback}
    for before in (boom.s(), group(boom.s(), add.s(1))):
        result = finish(run, chain(before, batch(members, **never), add.s(1)))
        assert result.get(timeout=0, propagate=False).__class__ in (ValueError, ChordError)
    assert notes == []


def test_batches_may_be_put_into_groups_chords_dags_and_each_other(run: Runner) -> None:
    inner = batch([add.s(1), add.s(2)], **named("inner"))
    assert finish(run, group(inner, add.s(3))).get(timeout=0) == [[2, 3], 4]
    assert finish(run, chord([inner, add.s(3)])(summed.s())).get(timeout=0) == ["sum", [[2, 3], 4]]
    assert finish(run, chord(inner, total.s())).get(timeout=0) == 5
    assert notes == ["inner succeeded"] * 3
    notes.clear()
    body = batch([total.s(), listed.s("x")], **named("body"))
    assert finish(run, chord([add.s(1), add.s(2)], body)).get(timeout=0) == [5, [[2, 3], "x"]]
    assert finish(run, group(add.s(1), add.s(2)) | body).get(timeout=0) == [5, [[2, 3], "x"]]
    assert notes == ["body succeeded"] * 2
    notes.clear()
    outer = batch([inner, batch([boom.s()], **named("bad"))], **named("outer"))
    assert str(finish(run, outer).get(timeout=0, propagate=False)) == "[[2, 3], [ValueError('boom')]]"
    assert sorted(notes) == ["bad failed", "inner succeeded", "outer failed"]
    notes.clear()
    flow = dag().add("one", add.s(1)).add("batch", batch([add.s(1), boom.s()], **named("part")), after="one")
    flow.add("last", listed.s(), after="batch", always=True)
    [told] = finish(run, flow)["last"].get(timeout=0)
    assert [one["state"] for one in told] == ["SUCCESS", "FAILURE"]
    assert notes == ["part failed"]


def test_an_empty_batch_in_a_chain_has_succeeded_with_nothing(run: Runner) -> None:
    assert finish(run, chain(add.s(1), batch([], **CALLED), summed.s())).get(timeout=0) == ["sum", []]
    assert sorted(notes, key=str) == [[[], "complete"], [[], "success"]]


def test_a_batch_survives_json_and_keeps_its_callbacks_in_copies() -> None:
    made = batch([add.s(1)], on_failure=note_failed.s("x"), queue="other")
    again = signature(json.loads(json.dumps(made)))
    assert isinstance(again, batch)
    assert json.dumps(again) == json.dumps(made)
    copy = made.clone()
    copy.kwargs["on_failure"].set(priority=7)
    assert made.kwargs["on_failure"].options == {}
    assert repr(made) == ("batch([tests.canvas.jobs.add(1)], on_failure=tests.canvas.jobs.note_failed('x'))")


def test_what_is_no_signature_is_refused() -> None:
    with pytest.raises(TypeError, match="A batch is made of signatures"):
        batch([add])
    with pytest.raises(TypeError, match=r"on_complete must be a signature, as task\.s\(\) returns it, not 3"):
        batch([add.s(1)], on_complete=3)
