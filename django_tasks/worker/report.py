"""What to send along with a report of a problem: versions, the machine, and the settings without their secrets."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from typing import Any

import django
from django.conf import settings as django_settings
from django.db import connections
from django.views.debug import SafeExceptionReporterFilter

from .. import __version__
from ..conf import NAMESPACE, settings


def settings_given() -> dict[str, Any]:
    """Return what the site's settings say in ``DJANGO_TASKS``, by upper-case names."""
    given = getattr(django_settings, NAMESPACE, None)
    return {str(name).upper(): value for name, value in given.items()} if isinstance(given, Mapping) else {}


def report_text() -> str:
    """Return the report. It opens no connection."""
    connection: Any = connections[settings.DATABASE]
    database = f"{connection.display_name} through {connection.Database.__name__}"
    if version := getattr(
        connection.Database, "sqlite_version" if connection.vendor == "sqlite" else "__version__", ""
    ):
        database += f" {version}"
    hide = SafeExceptionReporterFilter().cleanse_setting
    lines = [
        f"software -> django-workbeat:{__version__} django:{django.get_version()} py:{platform.python_version()}",
        f"platform -> system:{platform.system()} kernel:{platform.release()} imp:{platform.python_implementation()}",
        f"database -> {settings.DATABASE}: {database}",
        f"command  -> {' '.join(sys.argv[:2])}",
        "",
        *(f"{name}: {hide(name, value)!r}" for name, value in sorted(settings_given().items())),
    ]
    return "\n".join(lines)
