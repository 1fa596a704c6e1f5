"""Random workflows with failures and retries: every task has one fate, nothing is left waiting, and what runs in the
caller comes to the same as what workers run."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from django_tasks import chain, chord, group, shared_task, states
from django_tasks.backends.fate import NOT_RUN
from django_tasks.models import Edge, Task, TaskResult
from tests.databases import TestDatabase
from tests.inprocess import Worker

#: How often each labelled task has begun its last attempt, and which errbacks were told, in one run.
ran: Counter[str] = Counter()
told: Counter[str] = Counter()


@shared_task(bind=True, max_retries=2)
def step(self: Any, *values: Any, label: str, retries: int = 0, fails: bool = False) -> Any:
    if self.request.retries < retries:
        raise self.retry(countdown=0)
    ran[label] += 1
    if fails:
        raise ValueError(label)
    return [label, *values]


@shared_task(ignore_result=True)
def quiet(*values: Any, label: str, retries: int = 0, fails: bool = False) -> Any:
    ran[label] += 1
    if fails:
        raise ValueError(label)
    return [label, *values]


@shared_task
def failed(request: Any, exc: BaseException, traceback: Any, label: str) -> None:
    told[label] += 1


_leaf = st.fixed_dictionaries(
    {
        "retries": st.sampled_from([0, 0, 0, 1, 2]),
        "fails": st.sampled_from([False] * 7 + [True]),
        "immutable": st.sampled_from([False, False, True]),
        "errback": st.booleans(),
        "quiet": st.sampled_from([False, False, False, True]),
        "link": st.sampled_from([False, False, False, True]),
    }
)


def _larger(parts: Any) -> Any:
    several = st.lists(parts, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.just("chain"), several),
        st.tuples(st.just("group"), several),
        st.tuples(st.just("chord"), several, parts),
    )


recipes = st.recursive(_leaf, _larger, max_leaves=9)


class Builder:
    """Builds a canvas of a recipe; each of its tasks gets a label."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.with_errback: set[str] = set()
        self.links: set[str] = set()

    def build(self, recipe: Any) -> Any:
        if isinstance(recipe, dict):
            return self._leaf(recipe)
        kind, parts, *body = recipe
        made = [self.build(one) for one in parts]
        if kind == "chain":
            return chain(*made) if len(made) > 1 else made[0]
        return group(made) if kind == "group" else chord(made, self.build(body[0]))

    def _leaf(self, recipe: dict[str, Any]) -> Any:
        label = f"t{len(self.labels)}"
        self.labels.append(label)
        task = quiet if recipe["quiet"] else step
        retries = 0 if recipe["quiet"] else recipe["retries"]
        kwargs = {"label": label, "retries": retries, "fails": recipe["fails"]}
        sig = task.signature(kwargs=kwargs, immutable=recipe["immutable"])
        if recipe["errback"]:
            self.with_errback.add(label)
            sig.link_error(failed.s(label=label))
        if recipe["link"]:
            linked = f"{label}.link"
            self.labels.append(linked)
            self.links.add(linked)
            sig.link(step.s(label=linked))
        return sig


def outcome(result: Any) -> Any:
    """Return a result as data: values, and which exception."""
    if hasattr(result, "results"):
        return [outcome(one) for one in result.results]
    try:
        value = result.get(timeout=0, follow_parents=False, disable_sync_subtasks=False)
    except Exception as error:
        text = str(error)
        return type(error).__name__, text if isinstance(error, ValueError) else ""
    return value


def run_for_real(recipe: Any) -> tuple[Any, Builder]:
    for model in (Task, TaskResult, Edge):
        model.objects.all().delete()
    builder = Builder()
    result = builder.build(recipe).apply_async()
    Worker().drain()
    return outcome(result), builder


def check(recipe: Any) -> None:
    ran.clear()
    told.clear()
    found, builder = run_for_real(recipe)
    note(f"{recipe!r}\n{found!r}")
    assert not Task.objects.exists(), "something is left waiting"
    assert not Edge.objects.exclude(
        after_id__in=TaskResult.objects.filter(name="django_tasks.join").values("id")
    ).exists()
    assert not [label for label, count in ran.items() if count != 1], "something ran twice"
    fates = fates_by_label()
    assert not [label for label, count in fates.items() if count != 1]
    for label in builder.with_errback:
        row = rows_by_label().get(label)
        own = row is not None and row.state == states.FAILURE
        is_skipped = (
            own and row is not None and (row.traceback or "").startswith(NOT_RUN) and row.exception[:10] != "ChordError"
        )
        if own and not is_skipped:
            assert told[label] == 1, f"the errback of {label} was told {told[label]} times"
        elif label not in ran:
            assert told[label] <= 1
        else:
            assert told[label] == 0
    first = dict(ran), dict(told)
    ran.clear()
    told.clear()
    with override_settings(DJANGO_TASKS={**_settings(), "TASK_ALWAYS_EAGER": True}):
        eager = outcome(Builder().build(recipe).apply_async())
    assert (dict(ran), dict(told)) == first
    assert eager == found


def rows_by_label() -> dict[str, TaskResult]:
    return {
        json.loads(row.body)[1].get("label", ""): row for row in TaskResult.objects.exclude(name__endswith="failed")
    }


def fates_by_label() -> Counter[str]:
    rows = TaskResult.objects.filter(name__in=[step.name, quiet.name])
    return Counter(json.loads(row.body)[1]["label"] for row in rows)


def _settings() -> dict[str, Any]:
    from django.conf import settings as django_settings

    return django_settings.DJANGO_TASKS  # type: ignore[no-any-return]


@pytest.mark.databases("sqlite", "postgresql")
def test_every_task_of_a_random_workflow_has_one_fate_and_nothing_is_left_waiting(database: TestDatabase) -> None:
    examples = 120 if database.kind == "sqlite" else 40

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    )
    @given(recipes)
    def run(recipe: Any) -> None:
        check(recipe)

    run()
