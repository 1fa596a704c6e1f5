"""Random workflows as plain data, the tasks that they are made of, and the account of what became of them.

A task has a label. What became of it, and which errbacks were told, is read from the ledger: a worker may have died.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from django_tasks import AsyncResult, Task, batch, chain, chord, dag, group, revival, shared_task, states
from django_tasks.backends.message import AFTER, JOIN
from django_tasks.models import TaskResult

#: How often each labelled task has begun its last attempt here.
ran: Counter[str] = Counter()


@shared_task(bind=True, max_retries=2)
def step(self: Task[..., Any], *values: Any, label: str, retries: int = 0, fails: bool = False) -> Any:
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
    ran[f"failed {label}"] += 1


@shared_task
def ended(outcomes: Any, label: str) -> Any:
    ran[f"ended {label}"] += 1
    return [one["state"] if isinstance(one, dict) else len(one) for one in outcomes]


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


def recipes(leaves: int) -> st.SearchStrategy[Any]:
    """Canvases of so many tasks at most, batches and dags of such."""
    parts = st.recursive(_leaf, _larger, max_leaves=leaves)
    several = st.lists(parts, min_size=1, max_size=4)
    edges = st.lists(st.lists(st.integers(0, 3), max_size=3, unique=True), min_size=4, max_size=4)
    always = st.lists(st.booleans(), min_size=4, max_size=4)
    whole = st.one_of(st.tuples(st.just("batch"), several), st.tuples(st.just("dag"), several, edges, always))
    return st.one_of(parts, parts, parts, whole)


@dataclass
class Builder:
    """Builds a workflow of a recipe; each of its tasks gets a label."""

    labels: list[str] = field(default_factory=list)
    with_errback: set[str] = field(default_factory=set)
    batches: set[str] = field(default_factory=set)

    def build(self, recipe: Any) -> Any:
        if isinstance(recipe, dict):
            return self._leaf(recipe)
        kind, parts, *more = recipe
        made = [self.build(one) for one in parts]
        if kind == "chain":
            return chain(*made) if len(made) > 1 else made[0]
        if kind == "chord":
            return chord(made, self.build(more[0]))
        if kind == "batch":
            return self._batch(made)
        return group(made) if kind == "group" else self._dag(made, *more)

    def _leaf(self, recipe: dict[str, Any]) -> Any:
        label = self._label()
        task = quiet if recipe["quiet"] else step
        retries = 0 if recipe["quiet"] else recipe["retries"]
        kwargs = {"label": label, "retries": retries, "fails": recipe["fails"]}
        sig = task.signature(kwargs=kwargs, immutable=recipe["immutable"])
        if recipe["errback"]:
            self.with_errback.add(label)
            sig.link_error(failed.s(label=label))
        if recipe["link"]:
            sig.link(step.s(label=self._label()))
        return sig

    def _batch(self, members: list[Any]) -> batch:
        label = self._label()
        self.batches.add(label)
        callbacks = {"on_failure": failed.s(label=label), "on_complete": ended.s(label=label)}
        return batch(members, on_success=step.s(label=label), **callbacks)

    def _dag(self, parts: list[Any], edges: list[list[int]], always: list[bool]) -> dag:
        flow = dag()
        for number, part in enumerate(parts):
            after = [str(one) for one in edges[number] if one < number]
            flow.add(str(number), part, after=after, always=bool(after) and always[number])
        return flow

    def _label(self) -> str:
        self.labels.append(f"t{len(self.labels)}")
        return self.labels[-1]


def outcome(result: Any) -> Any:
    """Return a result as data: values, and which exception."""
    if hasattr(result, "results"):
        return [outcome(one) for one in result.results]
    if result.ignored:  # what is known of it nevertheless
        result = AsyncResult(result.id)
        if not result.exists():
            return None
    try:
        return _without_ids(result.get(timeout=0, follow_parents=False, disable_sync_subtasks=False))
    except Exception as error:
        text = str(error)
        return type(error).__name__, text if isinstance(error, ValueError) else ""


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return [value["state"], _without_ids(value.get("result")), value.get("error", "").partition(":")[0]]
    return [_without_ids(one) for one in value] if isinstance(value, list) else value


def problems(builder: Builder) -> list[str]:
    """Return what is wrong, as the ledger tells it, with a workflow that has ended."""
    lines = {str(row.pk): row for row in TaskResult.objects.all()}
    fates: Counter[str] = Counter()
    told: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    for row in lines.values():
        label = json.loads(row.body)[1].get("label", "")
        if row.name == failed.name:
            told[label] += 1
        elif row.name in (step.name, quiet.name):
            fates[label] += 1
            was_not_run = revival.was_not_run(row)
            if was_not_run if label in builder.batches else label in builder.with_errback:
                calls = row.state == states.FAILURE and not (was_not_run and _is_skipped(row, lines))
                expected[label] += calls
    found = [f"{label} has {count} fates" for label, count in fates.items() if count > 1]
    # A result that nobody wants leaves no line.
    found += [f"{label} has no fate" for label in builder.labels if not fates[label] and not ran[label]]
    for label in builder.labels:
        if told[label] != expected[label]:
            found.append(f"the errback of {label} was told {told[label]} times, not {expected[label]}")
    return found


def _is_skipped(row: TaskResult, lines: Mapping[str, TaskResult]) -> bool:
    """Was this task not run because one before it failed in its own chain, which called the errbacks already?"""
    culprit = re.search(r"\[(.*?)\] ended as", row.traceback or "")
    assert culprit is not None
    kind = revival.before(row)[culprit[1]]
    return kind == AFTER or (kind == JOIN and _is_skipped(lines[culprit[1]], lines))
