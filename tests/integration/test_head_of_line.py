"""A long task holds up nothing but its own process."""

from __future__ import annotations

from typing import Any

import pytest

from django_tasks import Task, states
from tests.integration.jobs import block_interpreter, wait_at_gate, work
from tests.integration.site import Site


def test_short_tasks_are_done_while_a_long_one_runs(site: Site) -> None:
    """R28: one long task and twenty short ones behind it, on two processes; none runs twice."""
    site.start()
    [long] = wait_at_gate.enqueue_many([(str(site.gates),)])
    short = work.enqueue_many([()] * 20)
    start = site.wait_for_start(long)
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in short))
    assert long.state in (states.PENDING, states.STARTED)
    site.open_gate(start)
    assert site.account([long, *short]).reruns == 0


@pytest.mark.databases("sqlite", "postgresql")
@pytest.mark.parametrize(
    "task", [pytest.param(work, id="sleeping"), pytest.param(block_interpreter, id="holding-the-interpreter")]
)
def test_what_is_claimed_behind_a_long_task_goes_to_another_process(site: Site, task: Task[..., Any]) -> None:
    """R28: also when the long one lets no other thread of its process run, so that only the supervisor can act."""
    site.start()
    # One statement stores them all, so the first claim holds the long one and others behind it.
    long = task.apply_async((8.0,), priority=1, countdown=0.5)
    short = work.enqueue_many([()] * 20, countdown=0.5)
    site.wait_for(lambda: all(result.state == states.SUCCESS for result in short))
    assert not site.journal("end", task_id=long.id), "the short tasks waited for the long one"
    assert site.account([long, *short]).reruns == 0


@pytest.mark.databases("sqlite")
def test_a_long_task_is_shown_as_running_even_if_it_holds_the_interpreter(site: Site) -> None:
    """What runs for longer than about a second is visible, with its start."""
    site.start(concurrency=1)
    result = block_interpreter.delay(4.0)
    site.wait_for(lambda: result.state == states.STARTED)
    assert not site.journal("end"), "it was shown too late"
    assert result.get(timeout=60)
