"""People who visit the admin: each with a browser of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client, override_settings

from tests.databases import TestDatabase

Browser = Callable[..., Client]


@pytest.fixture(autouse=True)
def _plain_settings() -> Iterator[None]:
    with override_settings(LANGUAGE_CODE="en-us"):
        yield


@pytest.fixture
def browser(database: TestDatabase) -> Browser:
    """Give ``browser("view_task", "view_payload")``: a client logged in as staff with these permissions only."""

    def log_in(*permissions: str, **user: Any) -> Client:
        name = user.pop("username", "-".join(permissions) or "nobody")
        person = User.objects.create_user(name[:150], **{"is_staff": True, **user})
        person.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client()
        client.force_login(person)
        return client

    return log_in


@pytest.fixture
def root(browser: Browser) -> Client:
    """Give a client that may do everything."""
    return browser(is_superuser=True)
