"""Random workflows with failures, retries, crashes and cancellations: every task has one fate, errbacks are told of
what failed, once, nothing is left waiting, and what runs in the caller comes to the same as what workers run.

``WORKFLOW_EXAMPLES`` is how many of each there are, and ``WORKFLOW_LEAVES`` how large they may be: about 9 tasks are
nested two deep, 40 four deep.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import override_settings
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from django_tasks import AsyncResult
from django_tasks.backends import close_all, get_broker
from django_tasks.executor import execute
from django_tasks.models import Edge, Task, TaskResult
from tests.canvas.conftest import assert_nothing_is_left
from tests.canvas.random_workflows import Builder, outcome, problems, ran, recipes
from tests.databases import TestDatabase
from tests.inprocess import Worker

EXAMPLES = int(os.environ.get("WORKFLOW_EXAMPLES", "0"))
LEAVES = int(os.environ.get("WORKFLOW_LEAVES", "9"))
#: No crash makes poison of a task here.
MANY_LOSSES = 1_000

#: What befalls workers while they run a workflow, one after the other.
FAULTS = ("none", "killed before", "killed after", "late", "revoke")


def examples(count: int) -> settings:
    return settings(
        max_examples=EXAMPLES or count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    )


@pytest.fixture(params=["database", "redis"])
def broker(request: pytest.FixtureRequest, database: TestDatabase) -> Iterator[str]:
    """Carry tasks by the database, and by Redis."""
    if request.param == "database":
        yield database.kind
        return
    url = request.getfixturevalue("redis_url")
    with override_settings(DJANGO_TASKS={**django_settings.DJANGO_TASKS, "BROKER_URL": url}):
        yield "redis"
    close_all()


def forget_everything() -> None:
    for model in (Task, TaskResult, Edge):
        model.objects.all().delete()
    ran.clear()


@pytest.mark.databases("sqlite", "postgresql")
def test_a_random_workflow_comes_to_the_same_here_and_on_workers(broker: str) -> None:
    """R6, R7, R27"""
    worker = Worker()

    @examples(80 if broker == "sqlite" else 30)
    @given(recipes(LEAVES))
    def run(recipe: Any) -> None:
        forget_everything()
        builder = Builder()
        result = builder.build(recipe).apply_async()
        worker.drain()
        found, once = outcome(result), dict(ran)
        note(f"{recipe!r}\n{found!r}")
        assert_nothing_is_left()
        assert problems(builder) == []
        assert set(once.values()) <= {1}, "something ran twice"
        ran.clear()
        with override_settings(DJANGO_TASKS={**django_settings.DJANGO_TASKS, "TASK_ALWAYS_EAGER": True}):
            eager = outcome(Builder().build(recipe).apply_async())
        assert dict(ran) == once
        assert eager == found

    run()


@pytest.mark.databases("sqlite", "postgresql")
def test_whatever_befalls_workers_a_random_workflow_ends_in_order(broker: str) -> None:
    """R6, R7, R27: workers die before and after a task's body, answer when another one has taken over, and somebody
    cancels what waits."""
    workers = [Worker(name="first@test"), Worker(name="second@test")]

    @examples(80 if broker == "sqlite" else 30)
    @given(recipes(LEAVES), st.lists(st.tuples(st.sampled_from(FAULTS), st.integers(0, 50)), max_size=12))
    def run(recipe: Any, faults: list[tuple[str, int]]) -> None:
        forget_everything()
        builder = Builder()
        result = builder.build(recipe).apply_async()
        for fault, number in faults:
            suffer(workers, fault, number)
        for worker in workers:
            worker.drain()
        note(f"{recipe!r}\n{faults!r}\n{outcome(result)!r}")
        assert_nothing_is_left()
        assert problems(builder) == []
        runs_again = sum(fault.startswith(("killed", "late")) for fault, _ in faults)
        assert sum(ran.values()) <= len(ran) + runs_again
        if not any(fault == "revoke" for fault, _ in faults):
            ran.clear()
            with override_settings(DJANGO_TASKS={**django_settings.DJANGO_TASKS, "TASK_ALWAYS_EAGER": True}):
                eager = outcome(Builder().build(recipe).apply_async())
            assert eager == outcome(result)

    run()


def suffer(workers: list[Worker], fault: str, number: int) -> None:
    """Run one task, or let something happen to it."""
    one, other = workers[number % 2], workers[1 - number % 2]
    if fault == "none":
        one.step()
    elif fault == "revoke":
        ids = sorted(str(key) for key in Task.objects.values_list("pk", flat=True))
        if ids:
            AsyncResult(ids[number % len(ids)]).revoke()
    elif (delivery := one.claim()) is not None:
        execution = None if fault == "killed before" else execute(delivery, worker=one.holder.name)
        get_broker().lose(one.holder, [delivery.id], max_losses=MANY_LOSSES, reason="It was killed")
        if fault == "late" and execution is not None:
            other.step()
            if not execution.stored:
                refused = get_broker().step([execution.done], holder=one.holder).refused
                assert refused == {delivery.id}
