"""What calls take along, by real workers of every pool."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings
from django.utils import timezone, translation

from django_tasks import AsyncResult, states
from django_tasks.models import Task
from tests.integration.site import Site
from tests.integration.tenant_jobs import look_around, look_around_async, send_on, tenant

pytestmark = pytest.mark.databases("sqlite")

MODULES = ["tests.integration.jobs", "tests.integration.tenant_jobs"]
POOLS = ["prefork=1", "threads=4", "asyncio=4", "solo"]
NOTHING = [None, "en-us", "Monday", "UTC"]


@contextmanager
def visitor(name: str | None, language: str, zone: str | int) -> Iterator[None]:
    """Be a tenant's visitor."""
    token = tenant.set(name)
    place = zone if isinstance(zone, str) else timezone.get_fixed_timezone(zone)
    try:
        with (
            override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, "TASK_CONTEXT": ["language", "timezone"]}),
            translation.override(language),
            timezone.override(place),
        ):
            yield
    finally:
        tenant.reset(token)


@pytest.mark.parametrize("pool", POOLS)
def test_tenants_languages_and_zones_come_along_through_retries_and_leak_into_nothing(site: Site, pool: str) -> None:
    site.launch("--pool", pool, IMPORTS=MODULES).wait_until_it_says("is ready.")
    sent: list[tuple[AsyncResult[Any], list[Any]]] = []
    for turn in range(6):
        for task in (look_around, look_around_async):
            with visitor("acme", "de", "Europe/Berlin"):
                expected = ["acme", "de", "Montag", "Europe/Berlin"]
                sent.append((task.delay(0.01, retries=turn % 2), expected))
            with visitor("zola", "fr", 330):
                sent.append((task.delay(0.01, retries=turn % 2), ["zola", "fr", "lundi", "+0530"]))
            sent.append((task.delay(0.01), NOTHING))
    for result, expected in sent:
        assert result.get(timeout=60) == expected
    entries = site.wait_for_entries(36, *(f"on_success:{name}" for name in ("acme", "zola", None)))
    told = {entry.task_id: entry.event for entry in entries}
    assert all(told[result.id] == f"on_success:{expected[0]}" for result, expected in sent)


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_that_is_sent_by_a_task_has_what_that_one_had(site: Site, pool: str) -> None:
    site.launch("--pool", pool, IMPORTS=MODULES, TASK_CONTEXT=["language"]).wait_until_it_says("is ready.")
    with visitor("acme", "de", "Europe/Berlin"):
        first = send_on.delay()
    second: AsyncResult[Any] = AsyncResult(first.get(timeout=60))
    assert second.get(timeout=60)[:3] == ["acme", "de", "Montag"]


def test_a_context_that_cannot_be_restored_fails_the_task_and_no_other(site: Site) -> None:
    """Neither a tenant that is gone nor a worker that does not know of tenants runs a task without."""
    with visitor("gone", "en", "UTC"):
        gone = look_around.delay()
    with visitor("acme", "en", "UTC"):
        fine = look_around.delay()
    site.launch("--burst", IMPORTS=MODULES).wait()
    assert fine.state == states.SUCCESS
    assert gone.state == states.FAILURE
    assert "There is no tenant 'gone' any more" in str(gone.result)


def test_a_call_without_a_context_has_no_options_for_it(site: Site) -> None:
    """Who has nothing to take along pays nothing."""
    look_around.delay()
    assert Task.objects.get().options is None
