"""What a task has to do with others, and who did what to it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from uuid import UUID

from django.contrib.admin.models import LogEntry
from django.db.models import Q, Value
from django.http import HttpRequest

from .. import access, paging
from ..models import Call, PeriodicRun, Task, TaskResult
from ..replica import reads_from

#: Tasks, or lines of history, that are listed.
MOST: Final = 50
#: Seconds that a page waits for each of these lists; it can do without.
PATIENCE: Final = 0.5


class Relative(NamedTuple):
    """A task that another one comes from, or that it sent."""

    key: UUID
    #: The model whose page it has.
    model: str
    name: str
    custom_id: str | None
    state: str


def sent_by(request: HttpRequest, call: Call) -> list[Relative] | None:
    """Return the tasks that a task sent, newest first, as far as this person may see them; ``None`` if that took too
    long. One query."""
    where = Q(root_id=call.root_id or call.pk, parent_id=call.pk)
    try:
        with paging.time_limit(reads_from(), PATIENCE):
            return [Relative(*row) for row in _relatives(request, where).order_by("-pk")[:MOST]]
    except paging.TooSlow:
        return None


def ancestors(request: HttpRequest, call: Call) -> dict[UUID, Relative]:
    """Return the task that sent a task and the first of its workflow by their keys, as far as this person may see
    them."""
    keys = {key for key in (call.parent_id, call.root_id) if key is not None and key != call.pk}
    if not keys:
        return {}
    return {row[0]: Relative(*row) for row in _relatives(request, Q(pk__in=keys))}


def _relatives(request: HttpRequest, where: Q) -> Any:
    """Return what is to be known of the tasks and results that fit, as far as this person may see them."""
    todo, done = (
        access.visible(request, model._default_manager.using(reads_from()).filter(where))
        .order_by()
        .values_list("pk", Value(str(model._meta.model_name)), "name", "custom_id", "state")
        for model in (Task, TaskResult)
    )
    return todo.union(done, all=True)


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
