"""Who did what: a line in the history of each row that a person changed, and one in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db.models import Model
from django.http import HttpRequest
from django.utils.translation import gettext as _

from .utils.log import escape

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    AnyAdmin = ModelAdmin[Any]
else:
    AnyAdmin = object  # a project without the admin has no ModelAdmin

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


class Audited(AnyAdmin):
    """For an admin: what Django writes into the history of a row is a line in the log, too."""

    def log_addition(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Write down that somebody added a row."""
        return _logged(request, [super().log_addition(request, obj, message)])[0]

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> Any:
        """Write down what somebody did to a row."""
        return _logged(request, [super().log_change(request, obj, message)])[0]

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Write down that somebody deletes rows."""
        return _logged(request, super().log_deletions(request, queryset))


def _logged(request: HttpRequest, entries: list[Any]) -> list[Any]:
    for entry in entries:
        said = entry.get_change_message() or _("Deleted")
        logger.info("%s: %s by %s", escape(entry.object_repr), escape(said), request.user.get_username())
    return entries
