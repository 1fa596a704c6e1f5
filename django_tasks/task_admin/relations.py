"""What a task has to do with others, and who did what to it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.db.models import Value
from django.http import HttpRequest

from .. import access, paging
from ..conf import settings
from ..models import Call, PeriodicRun, Task, TaskResult

#: Tasks, or lines of history, that are listed.
MOST: Final = 50
#: Seconds that a page waits for each of these lists; it can do without.
PATIENCE: Final = 0.5


def sent_by(request: HttpRequest, call: Call) -> list[Task | TaskResult] | None:
    """Return the tasks that a task sent, newest first, as far as this person may see them; ``None`` if that took too
    long."""
    where = {"root_id": call.root_id or call.pk, "parent_id": call.pk}
    found: list[Task | TaskResult] = []
    try:
        with paging.time_limit(settings.DATABASE, PATIENCE):
            for model in (Task, TaskResult):
                rows: Any = access.visible(request, model._default_manager.using(settings.DATABASE).filter(**where))
                found += rows.only("name", "state", "custom_id").order_by("-pk")[:MOST]
    except paging.TooSlow:
        return None
    return found[:MOST]


class Ancestor(NamedTuple):
    """A task that another one comes from."""

    key: UUID
    #: The model whose page it has.
    model: str
    name: str
    custom_id: str | None


def ancestors(request: HttpRequest, call: Call) -> dict[UUID, Ancestor]:
    """Return the task that sent a task and the first of its workflow by their keys, as far as this person may see
    them."""
    keys = {key for key in (call.parent_id, call.root_id) if key is not None and key != call.pk}
    if not keys:
        return {}
    todo, done = (
        access.visible(request, model._default_manager.using(settings.DATABASE).filter(pk__in=keys))
        .order_by()
        .values_list("pk", Value(str(model._meta.model_name)), "name", "custom_id")
        for model in (Task, TaskResult)
    )
    return {row[0]: Ancestor(*row) for row in todo.union(done, all=True)}


def run_of(call: Call) -> PeriodicRun | None:
    """Return the run of a periodic task by which this task was sent."""
    runs = PeriodicRun.objects.filter(task_id=call.pk).select_related("periodic_task")
    return runs.only("by_hand", "scheduled_for", "periodic_task__name").first()


def history(call: Call) -> list[LogEntry] | None:
    """Return who did what to a task, latest first, also what was done before it was done; ``None`` if that took too
    long."""
    entries = LogEntry.objects.filter(
        object_id=str(call.pk), content_type__app_label="django_tasks", content_type__model__in=("task", "taskresult")
    )
    try:
        with paging.time_limit(entries.db, PATIENCE):  # no index of Django's has the id of an object
            return list(entries.select_related("user").order_by("-action_time")[:MOST])
    except paging.TooSlow:
        return None
