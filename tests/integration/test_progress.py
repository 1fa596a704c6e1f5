"""What a task tells while it runs."""

from __future__ import annotations

import pytest

from django_tasks import states
from tests.integration.jobs import tell_progress
from tests.integration.site import Site


def test_progress_is_seen_while_the_task_runs(site: Site) -> None:
    """``update_state()`` shows its state and meta at once, and the result replaces them."""
    site.start(concurrency=1)
    result = tell_progress.delay(str(site.gates), in_transaction=False)
    for step in (1, 2):
        site.wait_for(lambda step=step: (result.state, result.info) == ("PROGRESS", {"done": step}))  # type: ignore[misc]
        (site.gates / str(step)).touch()
    assert result.get(timeout=60)
    assert result.state == states.SUCCESS


@pytest.mark.databases("postgresql", "mariadb")
def test_progress_told_within_a_transaction_is_seen_before_it_ends(site: Site) -> None:
    """It is stored on a connection of its own, which no transaction of the task's holds back."""
    site.start(concurrency=1)
    result = tell_progress.delay(str(site.gates), in_transaction=True)
    site.wait_for(lambda: (result.state, result.info) == ("PROGRESS", {"done": 1}))
    assert not site.journal("committed")
    for step in (1, 2):
        (site.gates / str(step)).touch()
    assert result.get(timeout=60)


@pytest.mark.databases("sqlite", "redis")
def test_progress_told_within_a_transaction_on_sqlite_waits_for_nothing_and_is_seen_after_it(site: Site) -> None:
    """SQLite has one writer at a time, here the task's own transaction: its commit shows what it told."""
    site.start(concurrency=1)
    result = tell_progress.delay(str(site.gates), in_transaction=True)
    site.wait_for_entries(1, "told")
    (site.gates / "1").touch()
    site.wait_for(lambda: (result.state, result.info) == ("PROGRESS", {"done": 2}))
    (site.gates / "2").touch()
    assert result.get(timeout=60)
    assert result.state == states.SUCCESS
