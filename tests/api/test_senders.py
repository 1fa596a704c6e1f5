"""Who sent a call, and in which request: what the middleware remembers, and what calls take along of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from django_tasks import shared_task
from django_tasks.context_hooks import REQUEST_LIMIT, captured, restored
from django_tasks.middleware import REMEMBER_REQUEST, http_request
from django_tasks.models import Task
from tests.databases import TestDatabase

pytestmark = pytest.mark.databases("sqlite")

ANNA = {"id": "7", "name": "anna"}


@shared_task
def work() -> None: ...


@shared_task
def tell() -> dict[str, Any] | None:
    return captured()


def send(request: HttpRequest, key: int = 0) -> HttpResponse:
    work.delay()
    return HttpResponse()


async def asend(request: HttpRequest) -> HttpResponse:
    await work.adelay()
    return HttpResponse()


def break_down(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("broken")


urlpatterns = [
    path("orders/<path:key>", send),
    path("async/", asend),
    path("broken/", break_down),
]


@pytest.fixture(autouse=True)
def _site(settings: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [REMEMBER_REQUEST, *settings.MIDDLEWARE]
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "TASK_CONTEXT": ["user", "request"]}
    yield
    assert http_request.get() is None


def carried() -> Any:
    """Return what the one call that was sent took along, and forget it."""
    [row] = Task.objects.all()
    row.delete()
    return json.loads(row.options or "{}").get("context")


def test_a_call_takes_along_who_sent_it_and_by_which_request(database: TestDatabase) -> None:
    client = Client()
    client.post("/orders/1543?token=secret")
    assert carried() == {"request": "POST /orders/1543"}
    client.force_login(User.objects.create_user("anna", pk=7))
    client.get("/orders/a%00b%20c")
    assert carried() == {"user": ANNA, "request": "GET /orders/a\x00b c"}
    client.get(f"/orders/{'x' * 2_000}")
    assert len(carried()["request"]) == REQUEST_LIMIT


def test_so_does_one_of_an_asynchronous_view(database: TestDatabase) -> None:
    client = AsyncClient()
    client.force_login(User.objects.create_user("anna", pk=7))
    asyncio.run(_get(client, "/async/"))
    assert carried() == {"user": ANNA, "request": "GET /async/"}


async def _get(client: AsyncClient, url: str) -> None:
    await client.get(url)


def test_nothing_is_remembered_after_a_request_however_it_ended(database: TestDatabase) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        Client().get("/broken/")
    work.delay()
    assert carried() is None


def test_a_site_without_users_sends_without_them(database: TestDatabase, settings: Any) -> None:
    settings.MIDDLEWARE = [REMEMBER_REQUEST]
    Client().get("/orders/1")
    assert carried() == {"request": "GET /orders/1"}


def test_a_task_that_is_sent_by_a_task_has_the_sender_of_that_one(database: TestDatabase) -> None:
    told = {"user": ANNA, "request": "GET /orders/1"}
    with restored(told):
        assert captured() == told
        assert tell.apply().get() == told
    assert captured() is None


def test_a_middleware_that_is_missing_is_told(settings: Any) -> None:
    def said() -> list[str]:
        return [str(one.msg) for one in run_checks(tags=["django_tasks"]) if one.id == "django_tasks.W008"]

    assert said() == []
    settings.MIDDLEWARE = settings.MIDDLEWARE[1:]
    [told] = said()
    assert "has 'user', 'request', but" in told
    settings.DJANGO_TASKS = {**settings.DJANGO_TASKS, "TASK_CONTEXT": ["language"]}
    assert said() == []
