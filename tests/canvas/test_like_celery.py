"""The algebra of canvases, compared with what Celery builds of the same calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings

import django_tasks
from tests.app.tasks import add, noop
from tests.canvas.building import Recipe, build, recipes
from tests.canvas.celery_app import Celery
from tests.canvas.shapes import results, shape, text


class Ours:
    chain, group, chord = django_tasks.chain, django_tasks.group, django_tasks.chord
    signature = staticmethod(django_tasks.signature)
    maybe_signature = staticmethod(django_tasks.maybe_signature)
    chunks = django_tasks.chunks
    StampingVisitor = django_tasks.StampingVisitor
    add, noop = add, noop


def built(recipe: Recipe, names: Any) -> Any:
    try:
        return build(recipe, names)
    except Exception as error:
        return type(error)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipes)
def test_a_canvas_is_the_same_data_as_with_celery(recipe: Recipe) -> None:
    theirs = built(recipe, Celery)
    ours = built(recipe, Ours)
    note(f"ours: {ours!r}")
    if isinstance(theirs, type):
        assert isinstance(ours, type)
    else:
        assert shape(ours) == shape(theirs)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipes)
def test_a_canvas_reads_the_same_as_with_celery(recipe: Recipe) -> None:
    theirs, ours = built(recipe, Celery), built(recipe, Ours)
    try:
        expected = text(theirs)
    except IndexError:  # Celery's own: it cannot show a chord whose body is an empty chain
        return
    if not isinstance(theirs, type) and ": empty>" not in expected:  # which tells an address
        assert text(ours) == expected


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipes)
def test_a_canvas_survives_json(recipe: Recipe) -> None:
    ours = built(recipe, Ours)
    if not isinstance(ours, type):
        again = django_tasks.signature(json.loads(json.dumps(ours)))
        assert shape(again) == shape(ours)
        assert issubclass(type(ours), type(again))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recipes)
def test_the_results_of_a_frozen_canvas_are_nested_as_with_celery(recipe: Recipe) -> None:
    theirs, ours = built(recipe, Celery), built(recipe, Ours)
    if isinstance(theirs, type) or nests_groups(shape(ours)):
        return  # Celery turns the members of a group in a group round when it freezes them, and only then
    try:
        expected = results(theirs.clone().freeze())
    except Exception:  # Celery cannot freeze each thing that it lets one build
        return
    assert results(ours.clone().freeze()) == expected


def nests_groups(value: Any) -> bool:
    """Is there a group of several as a member of a group, or of a chord's header?"""
    if isinstance(value, list):
        return any(map(nests_groups, value))
    if not isinstance(value, dict):
        return False
    parts = value.get("kwargs", {})
    members = parts.get("header") or (parts.get("tasks") if value.get("subtask_type") == "group" else None) or []
    members = members["kwargs"]["tasks"] if isinstance(members, dict) else members
    several = [one for one in members if one.get("subtask_type") == "group" and len(one["kwargs"]["tasks"]) > 1]
    return bool(several) or any(map(nests_groups, value.values()))


@pytest.mark.parametrize(
    "stamp",
    [
        lambda sig, names: sig.stamp(foo=1),
        lambda sig, names: (sig.stamp(foo=1), sig.stamp(foo=2)),
        lambda sig, names: (sig.stamp(foo=1), sig.stamp(append_stamps=True, foo=2)),
        lambda sig, names: sig.stamp(_monitor(names), foo=1),
        lambda sig, names: sig.stamp(_monitor(names), append_stamps=True, where="here"),
    ],
    ids=["header", "twice", "appended", "visitor", "visitor appended"],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda names: names.add.s(1),
        lambda names: names.chain(names.add.s(1), names.add.s(2), names.group(names.add.s(3), names.add.s(4))),
        lambda names: names.group(names.add.s(1), names.chain(names.add.s(2), names.add.s(3))),
        lambda names: names.chord([names.add.s(1), names.add.s(2)], names.noop.s()),
        lambda names: _linked(names),
    ],
    ids=["task", "chain", "group", "chord", "links"],
)
def test_stamps_are_where_celery_puts_them(make: Any, stamp: Any) -> None:
    theirs, ours = make(Celery), make(Ours)
    stamp(theirs, Celery)
    stamp(ours, Ours)
    assert unordered(shape(ours)) == unordered(shape(theirs))


def _monitor(names: Any) -> Any:
    class Monitor(names.StampingVisitor):  # type: ignore[misc]
        def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
            return {"where": "there", "name": sig.task}

        def on_group_start(self, group: Any, **headers: Any) -> dict[str, Any]:
            return {"in_group": True}

        def on_chain_start(self, chain: Any, **headers: Any) -> dict[str, Any]:
            return {"in_chain": True, "hidden": 1, "stamped_headers": ["in_chain"]}

        def on_chord_body(self, sig: Any, **headers: Any) -> dict[str, Any]:
            return {"in_body": True}

        def on_callback(self, callback: Any, **headers: Any) -> dict[str, Any]:
            return {"called_back": True}

        def on_errback(self, errback: Any, **headers: Any) -> dict[str, Any]:
            return {"on_error": True}

    return Monitor()


def _linked(names: Any) -> Any:
    sig = names.add.s(1)
    sig.link(names.add.s(2))
    sig.link_error(names.noop.s())
    return sig


def unordered(value: Any) -> Any:
    """Return a shape in which the order of stamps, which Celery leaves to chance, does not count."""
    if isinstance(value, dict):
        return {key: sorted(one) if key == "stamped_headers" else unordered(one) for key, one in value.items()}
    return [unordered(one) for one in value] if isinstance(value, list) else value
