"""Who did what: a line in the history of each row that a person changed, and one in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from django.apps import apps
from django.db.models import Model

logger = logging.getLogger("django_tasks.admin")

#: ``LogEntry.action_flag``: these are stored.
CHANGED, DELETED = 2, 3


def record(user: Any, rows: Iterable[Model], said: Mapping[str, str], *, deleted: bool = False) -> None:
    """Write what ``user`` did to those of these rows that ``said`` has a sentence for, by their primary keys.

    The history is that of Django's admin; without the admin there is only the log.
    """
    rows = [row for row in rows if str(row.pk) in said]
    for row in rows:
        logger.info("%s %s by %s", row.pk, said[str(row.pk)], user.get_username())
    if not rows or not apps.is_installed("django.contrib.admin"):
        return
    from django.contrib.admin.models import LogEntry
    from django.contrib.contenttypes.models import ContentType

    kind = ContentType.objects.get_for_model(type(rows[0]), for_concrete_model=False).pk
    LogEntry.objects.bulk_create(
        LogEntry(
            user_id=user.pk,
            content_type_id=kind,
            object_id=str(row.pk),
            object_repr=str(row)[:200],
            action_flag=DELETED if deleted else CHANGED,
            change_message=said[str(row.pk)],
        )
        for row in rows
    )
