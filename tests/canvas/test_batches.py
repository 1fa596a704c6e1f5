"""Batches: who is called when all tasks have ended."""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks import GroupResult, batch, chain, chord, group
from tests.api.conftest import Runner
from tests.canvas.conftest import assert_nothing_is_left
from tests.canvas.jobs import add, boom, ignoring, note, note_error, note_failed, notes, shaky, summed, total

pytestmark = pytest.mark.databases("sqlite", "postgresql")

#: The callbacks of every batch here.
CALLED: dict[str, Any] = {
    "on_success": note.s("success"),
    "on_failure": note_error.s("failure"),
    "on_complete": note.s("complete"),
}


def finish(run: Runner, made: batch) -> Any:
    result = made()
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


@pytest.mark.databases("sqlite")
def test_a_revoked_task_fails_its_batch(run: Runner) -> None:
    if run.is_eager:
        pytest.skip("nothing waits there")
    result = batch([add.s(1), add.s(2)], **CALLED)()
    result[0].revoke()
    run.finish()
    assert sorted(one[-1] for one in notes) == ["complete", "failure"]
    assert_nothing_is_left()


@pytest.mark.databases("sqlite")
def test_a_batch_is_found_again_by_its_id(run: Runner) -> None:
    if run.is_eager:
        pytest.skip("there is no ledger")
    result = finish(run, batch(add.s(number) for number in range(3)))
    found = GroupResult.restore(result.id)
    assert found is not None
    assert found.get(timeout=0) == [1, 2, 3]


def test_what_is_no_signature_is_refused() -> None:
    with pytest.raises(TypeError, match="A batch is made of signatures"):
        batch([add])
    with pytest.raises(TypeError, match=r"on_complete must be a signature, as task\.s\(\) returns it, not 3"):
        batch([add.s(1)], on_complete=3)
