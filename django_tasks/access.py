"""Who sees and may change what in the admin, as the project's own functions decide (``ADMIN_READ_ONLY``,
``ADMIN_TASK_FILTER``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.module_loading import import_string

from .conf import settings

M = TypeVar("M", bound=Model)
#: Narrows tasks or results to those that somebody may see.
Narrow = Callable[[QuerySet[Any]], QuerySet[Any]]


def is_read_only(request: HttpRequest) -> bool:
    """Is this person only to look?"""
    given = settings.ADMIN_READ_ONLY
    return bool(imported("ADMIN_READ_ONLY", given)(request)) if isinstance(given, str) else given


def may_enter(request: HttpRequest) -> bool:
    """Does any admin site that this process knows let this person in? Without the admin it is enough to be active."""
    user: Any = request.user
    if not apps.is_installed("django.contrib.admin"):
        return bool(user.is_active)
    from django.contrib.admin.sites import all_sites, site

    return any(each.has_permission(request) for each in (site, *all_sites))


def visible(request: HttpRequest, rows: QuerySet[M]) -> QuerySet[M]:
    """Return those of these tasks or results that the person may see. In the background, where there is no request,
    it is one that has nothing but its ``user``."""
    path = settings.ADMIN_TASK_FILTER
    if path is None:
        return rows
    found = imported("ADMIN_TASK_FILTER", path)(request, rows)
    if not isinstance(found, QuerySet):
        raise ImproperlyConfigured(
            f"DJANGO_TASKS['ADMIN_TASK_FILTER'] is {path!r}, which returned a {type(found).__name__}; "
            "allowed: the QuerySet that it was given, narrowed."
        )
    return found


def narrowing(request: HttpRequest) -> Narrow | None:
    """Return what narrows rows to those that the person may see; ``None`` where everybody sees all."""
    if settings.ADMIN_TASK_FILTER is None:
        return None
    return partial(visible, request)


def check() -> list[str]:
    """Return what is wrong with the two settings, a sentence each."""
    problems = []
    for name in ("ADMIN_READ_ONLY", "ADMIN_TASK_FILTER"):
        given = getattr(settings, name)
        if isinstance(given, str):
            try:
                imported(name, given)
            except ImproperlyConfigured as error:
                problems.append(str(error))
    return problems


def imported(setting: str, path: str) -> Callable[..., Any]:
    """Return the function, or the class, that a setting names. Raises ``ImproperlyConfigured`` if there is none."""
    try:
        found = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"DJANGO_TASKS[{setting!r}] is {path!r}, which cannot be imported: {error}"
        ) from error
    if not callable(found):
        raise ImproperlyConfigured(f"DJANGO_TASKS[{setting!r}] is {path!r}, which is no function.")
    return found  # type: ignore[no-any-return]
