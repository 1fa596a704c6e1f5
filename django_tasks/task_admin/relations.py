"""What a task has to do with others, and who did what to it."""

from __future__ import annotations

from typing import Any, Final

from django.contrib.admin.models import LogEntry
from django.http import HttpRequest

from .. import access, paging
from ..conf import settings
from ..models import Call, Task, TaskResult

#: Tasks, or lines of history, that are listed.
MOST: Final = 50
#: Seconds that a page waits for each of these lists; it can do without.
PATIENCE: Final = 0.5


def sent_by(request: HttpRequest, call: Call) -> list[Task | TaskResult]:
    """Return the tasks that a task sent, newest first, as far as this person may see them."""
    where = {"root_id": call.root_id or call.pk, "parent_id": call.pk}
    found: list[Task | TaskResult] = []
    try:
        with paging.time_limit(settings.DATABASE, PATIENCE):
            for model in (Task, TaskResult):
                rows: Any = access.visible(request, model._default_manager.using(settings.DATABASE).filter(**where))
                found += rows.only("name", "state", "custom_id").order_by("-pk")[:MOST]
    except paging.TooSlow:
        return []
    return found[:MOST]


def history(call: Call) -> list[LogEntry]:
    """Return who did what to a task, latest first; also what was done before it was done."""
    entries = LogEntry.objects.filter(
        object_id=str(call.pk), content_type__app_label="django_tasks", content_type__model__in=("task", "taskresult")
    )
    try:
        with paging.time_limit(entries.db, PATIENCE):  # no index of Django's has the id of an object
            return list(entries.select_related("user").order_by("-action_time")[:MOST])
    except paging.TooSlow:
        return []
