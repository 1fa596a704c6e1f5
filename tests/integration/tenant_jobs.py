"""Tasks of a site with tenants, languages and time zones. Workers load this module by ``IMPORTS``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from asgiref.sync import sync_to_async
from django.utils import timezone, translation
from django.utils.translation import gettext

from django_tasks import Task, register_context, shared_task
from tests.integration.jobs import note

tenant: ContextVar[str | None] = ContextVar("tenant", default=None)


@register_context("tests.tenant")
class TenantHook:
    """As a site with a schema for each tenant would have it."""

    def capture(self) -> str | None:
        return tenant.get()

    @contextmanager
    def restore(self, value: str) -> Iterator[None]:
        if value == "gone":
            raise LookupError("There is no tenant 'gone' any more")
        token = tenant.set(value)
        try:
            yield
        finally:
            tenant.reset(token)


def seen() -> list[Any]:
    return [tenant.get(), translation.get_language(), gettext("Monday"), timezone.get_current_timezone_name()]


class Telling(Task[..., Any]):
    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note(f"on_success:{tenant.get()}", self)


@shared_task(bind=True, base=Telling, max_retries=2)
def look_around(self: Any, seconds: float = 0.0, retries: int = 0) -> list[Any]:
    """Tell what is there, in the last attempt of all."""
    time.sleep(seconds)
    if self.request.retries < retries:
        raise self.retry(countdown=0)
    return seen()


@shared_task(bind=True, base=Telling, max_retries=2)
async def look_around_async(self: Any, seconds: float = 0.0, retries: int = 0) -> list[Any]:
    await asyncio.sleep(seconds)
    if self.request.retries < retries:
        raise self.retry(countdown=0)
    in_thread = await sync_to_async(seen)()
    assert in_thread == seen()
    return in_thread


@shared_task
def send_on() -> str:
    """Send another one from here."""
    return look_around.delay().id
