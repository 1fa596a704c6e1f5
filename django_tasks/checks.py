"""System checks: what is wrong with the set-up, with the setting and the cure. Ids are never reused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.db import connections

from . import clash
from .conf import check_settings, settings
from .routing import check_routes
from .serialization import check_formats

TAG = "django_tasks"


@checks.register(TAG, checks.Tags.compatibility)
def check_clash(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E001, W001: PyPI's ``django-tasks`` installs the same import package."""
    found: list[checks.CheckMessage] = []
    for problem in clash.find_clash():
        kind = checks.Error if problem.overwritten else checks.Warning
        found.append(
            kind(problem.message, hint=problem.hint, id=f"django_tasks.{'E' if problem.overwritten else 'W'}001")
        )
    return found


@checks.register(TAG)
def check_configuration(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """E002: a setting is unknown or has a bad value. E003: the database cannot be a broker. W002: pickle is
    accepted."""
    problems = check_settings() or [*check_formats(), *check_routes()]
    if problems:
        return [checks.Error(problem, id="django_tasks.E002") for problem in problems]
    found: list[checks.CheckMessage] = []
    alias = settings.DATABASE
    if alias not in connections:
        return [
            checks.Error(
                f"DJANGO_TASKS['DATABASE'] names {alias!r}, which is not in DATABASES ({', '.join(connections)}).",
                id="django_tasks.E003",
            )
        ]
    vendor = connections[alias].vendor
    if vendor not in ("sqlite", "postgresql", "mysql"):
        found.append(
            checks.Error(
                f"DJANGO_TASKS['DATABASE'] names {alias!r}, a {vendor} database.",
                hint="Tasks can be kept in PostgreSQL, SQLite, MariaDB or MySQL; give them an alias of their own.",
                id="django_tasks.E003",
            )
        )
    if settings.ALLOW_UNSAFE_PICKLE and "pickle" in settings.ACCEPT_CONTENT:
        found.append(
            checks.Warning(
                "DJANGO_TASKS accepts pickle: whoever can write to the database can run code in the worker.",
                hint="Use JSON; remove 'pickle' from ACCEPT_CONTENT and ALLOW_UNSAFE_PICKLE.",
                id="django_tasks.W002",
            )
        )
    return found
