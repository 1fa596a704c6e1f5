"""What becomes of a workflow when one of its tasks fails: who is told, who is not run, and how it says so."""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks import AsyncResult, chain, chord, group, states
from django_tasks.exceptions import ChordError, TaskRevokedError
from django_tasks.models import Edge, Task, TaskResult
from tests.api.conftest import Runner
from tests.canvas.conftest import assert_nothing_is_left
from tests.canvas.jobs import add, boom, ignoring, listed, note, note_error, note_failed, notes, summed

pytestmark = pytest.mark.databases("sqlite", "postgresql", "mariadb", "redis")

E = note_error


def finish(run: Runner, canvas: Any) -> Any:
    """Run a canvas to its end; return its result."""
    result = canvas.apply_async()
    run.finish()
    assert_nothing_is_left()
    return result


def told() -> list[Any]:
    """Return which task each errback was told of, by name, and the exception; and what else it was linked with."""
    return sorted((name.rpartition(".")[2], _text(error), *more) for _, name, error, *more in notes)


def _text(error: str) -> str:
    return "ChordError" if error.startswith("ChordError(") else error


BOOM = "ValueError('boom')"
IN_CHORD = "ChordError"

#: Canvases, and the tasks of which an errback is told, as Celery 5.7 does with Redis. Where it hangs for ever, or tells
#: nobody (nested chords), what the same rules say.
CANVASES: dict[str, tuple[Any, list[Any]]] = {
    "task": (lambda: boom.s().on_error(E.s()), [("boom", BOOM)]),
    "first of a chain": (lambda: chain(boom.s(), add.s(1)).on_error(E.s()), [("boom", BOOM)]),
    "second of a chain": (lambda: chain(add.s(1), boom.s(), add.s(1)).on_error(E.s()), [("boom", BOOM)]),
    "last of a chain": (lambda: chain(add.s(1), boom.s()).on_error(E.s()), [("boom", BOOM)]),
    "body's errback": (lambda: chord([boom.s(), add.s(1)], summed.s().on_error(E.s())), [("summed", IN_CHORD)]),
    "chord's errback": (
        lambda: chord([boom.s(), add.s(1)], summed.s()).on_error(E.s("more")),
        [("summed", IN_CHORD, "more")],
    ),
    "all of a header": (lambda: chord([boom.s(), boom.s()], summed.s()).on_error(E.s()), [("summed", IN_CHORD)]),
    "before a chord": (
        lambda: chain(boom.s(), chord([add.s(1), add.s(1)], summed.s())).on_error(E.s()),
        [("boom", BOOM)],
    ),
    "chain in a header": (
        lambda: chord([chain(boom.s(), add.s(1)), add.s(1)], summed.s().on_error(E.s())),
        [("summed", IN_CHORD)],
    ),
    "only chain in a header": (
        lambda: chord([chain(boom.s(), add.s(1))], summed.s().on_error(E.s())),
        [("summed", IN_CHORD)],
    ),
    "group as body": (
        lambda: chord([boom.s(), add.s(1)], group(listed.s("x").on_error(E.s("x")), listed.s("y").on_error(E.s("y")))),
        [("listed", BOOM, "x"), ("listed", BOOM, "y")],
    ),
    "member of a group": (lambda: group(boom.s(), add.s(1)).on_error(E.s()), [("boom", BOOM)]),
    "task, group, task": (
        lambda: chain(listed.s("a"), group(boom.s(), add.si(1)), summed.s()).on_error(E.s()),
        [("summed", IN_CHORD)],
    ),
    "after a chord": (
        lambda: chain(group(boom.s(), add.s(1)), summed.s(), listed.s("q")).on_error(E.s()),
        [("summed", IN_CHORD)],
    ),
    "chord in a header": (
        lambda: chord(
            [chord([boom.s(), add.s(1)], summed.s().on_error(E.s("in"))), add.s(1)], summed.s().on_error(E.s("out"))
        ),
        [("summed", IN_CHORD, "in"), ("summed", IN_CHORD, "out")],
    ),
    "chord in a header, after what failed": (
        lambda: chord(
            [chain(boom.s(), chord([add.s(1), add.s(2)], summed.s().on_error(E.s("in")))), add.s(1)],
            summed.s().on_error(E.s("out")),
        ),
        [("summed", IN_CHORD, "out")],
    ),
    "group onto a group, then a task": (
        lambda: (group(boom.s(), add.s(1)) | group(listed.s(), listed.s()) | summed.s()).on_error(E.s()),
        [("summed", BOOM)],
    ),
    "body itself": (lambda: chord([add.s(1), add.s(2)], boom.s()).on_error(E.s()), [("boom", BOOM)]),
    "callback": (lambda: _with_link(add.s(1), boom.s().on_error(E.s())), [("boom", BOOM)]),
}


def _with_link(sig: Any, callback: Any) -> Any:
    sig.link(callback)
    return sig


@pytest.mark.parametrize("name", CANVASES)
def test_each_errback_is_told_once(run: Runner, name: str) -> None:
    make, expected = CANVASES[name]
    finish(run, make())
    assert told() == expected


@pytest.mark.parametrize("name", [name for name in CANVASES if name != "callback"])
@pytest.mark.databases("sqlite", "redis")
def test_the_result_raises_what_failed_first(run: Runner, name: str) -> None:
    make, _ = CANVASES[name]
    result = finish(run, make())
    nested = name in ("chord in a header", "chord in a header, after what failed")
    with pytest.raises((ValueError, ChordError) if nested else ValueError, match="boom"):
        result.get(timeout=0)


def test_what_comes_after_a_failure_ends_with_the_same_exception_and_says_why(run: Runner) -> None:
    result = finish(run, chain(boom.s(), add.s(1), add.s(2)))
    assert result.state == states.FAILURE
    with pytest.raises(ValueError, match="boom"):
        result.get(timeout=0, follow_parents=False)
    assert result.traceback.startswith("Not run: its predecessor ")
    assert result.parent.parent.id in result.parent.traceback
    assert "Traceback" in result.parent.parent.traceback


def test_a_chords_body_fails_with_chord_error_which_names_the_first_failure_of_the_header(run: Runner) -> None:
    result = finish(run, chord([add.s(1), boom.s(), boom.s()], summed.s()))
    with pytest.raises(ChordError) as caught:
        result.get(timeout=0, follow_parents=False)
    assert str(caught.value) == f"Dependency {result.parent[1].id} raised ValueError('boom')"


@pytest.mark.databases("sqlite", "redis")
def test_errors_are_read_where_values_may_not_be_json(run: Runner) -> None:
    run.configure(TASK_SERIALIZER="yaml", RESULT_SERIALIZER="yaml", ACCEPT_CONTENT=["yaml"])
    result = finish(run, chord([note.s(1), boom.s()], summed.s()))
    assert result.state == states.FAILURE
    with pytest.raises(ChordError, match="boom"):
        result.get(timeout=0, follow_parents=False)


def test_the_rest_of_a_header_runs_though_one_failed(run: Runner) -> None:
    finish(run, chord([boom.s(), note.s(1), note.s(2)], summed.s()))
    assert sorted(notes) == [1, 2]


@pytest.mark.databases("sqlite", "redis")
def test_an_errback_that_takes_an_id_alone_is_given_that_of_the_task_that_failed(run: Runner) -> None:
    result = finish(run, chain(boom.s().on_error(note_failed.s("more")), add.s(1)))
    assert notes == [("failed", result.parent.id, "more")]


@pytest.mark.databases("sqlite", "redis")
def test_an_immutable_errback_is_given_nothing(run: Runner) -> None:
    finish(run, boom.s().on_error(note.si("failed")))
    assert notes == ["failed"]


@pytest.mark.databases("sqlite", "redis")
def test_a_chain_as_an_errback_begins_with_the_id_of_the_task_that_failed(run: Runner) -> None:
    result = finish(run, boom.s().on_error(chain(note.s(), note.s())))
    assert notes == [result.id, result.id]


def test_what_comes_after_a_task_that_is_ignored_is_revoked(run: Runner) -> None:
    result = finish(run, chain(ignoring.s(), add.s(1)))
    assert result.state == states.REVOKED
    with pytest.raises(TaskRevokedError, match="ended as IGNORED"):
        result.get(timeout=0, follow_parents=False)


def test_what_is_linked_to_a_task_that_fails_is_not_run(run: Runner) -> None:
    finish(run, _with_link(boom.s(), note.s()))
    assert notes == []


def test_errbacks_of_a_header_are_called_with_the_setting(run: Runner) -> None:
    run.configure(TASK_ALLOW_ERROR_CB_ON_CHORD_HEADER=True)
    finish(run, chord([boom.s(), boom.s()], summed.s()).on_error(note.si("called")))
    assert notes == ["called"] * 3


def test_revoking_a_task_revokes_what_comes_after_it_and_calls_no_errback(database: Any) -> None:
    result = chain(add.s(1), add.s(2), add.s(3)).on_error(E.s()).apply_async()
    result.parent.parent.revoke()
    for one in (result, result.parent, result.parent.parent):
        assert one.state == states.REVOKED
        assert one.exists()
    assert not Task.objects.exists()
    assert not Edge.objects.exists()
    assert notes == []


def test_revoking_what_waits_ends_it_and_what_comes_after_it_while_the_rest_runs(run: Runner) -> None:
    if run.is_eager:
        pytest.skip("nothing waits there")
    result = chain(note.s(1), note.s(), note.s()).apply_async()
    result.parent.revoke()
    run.finish()
    assert notes == [1]
    assert [result.state, result.parent.state, result.parent.parent.state] == ["REVOKED", "REVOKED", "SUCCESS"]


def test_all_ends_are_in_the_ledger_once(run: Runner) -> None:
    if run.is_eager:
        pytest.skip("there is no ledger")
    result = finish(run, chord([boom.s(), add.s(1)], chain(summed.s(), listed.s())))
    ended = TaskResult.objects.values_list("id", flat=True)
    assert {str(one) for one in ended} == {*map(str, _ids(result))}


def _ids(result: Any) -> list[str]:
    found: list[str] = []
    while result is not None:
        found += (
            [one.id for one in result]
            if isinstance(result, list) or not isinstance(result, AsyncResult)
            else [result.id]
        )
        result = result.parent
    return found
