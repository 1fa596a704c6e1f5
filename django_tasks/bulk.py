"""Actions on all that match, however many: worked through in batches, in the background, until done or stopped.

A batch is one transaction: what it does to its rows, and how far the operation is. So whoever goes on after a crash
neither leaves a row out nor takes one twice, and any number may try at the same time.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from django.contrib.auth import get_user_model
from django.core.exceptions import ObjectDoesNotExist, PermissionDenied, ValidationError
from django.db import OperationalError as DatabaseOperationalError
from django.db import connections, transaction
from django.db.models import F, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _

from . import access, actions, audit, client, dashboard, paging, states
from .actions import Action
from .conf import settings
from .models import BulkOperation, Limit, Task, TaskResult, TaskTag, Worker
from .replica import reads_from
from .search import Selection

#: The task that works in the background.
TASK_NAME: Final = "django_tasks.bulk"
#: Before everything else: somebody waits for it.
PRIORITY: Final = 100
#: Rows per batch.
BATCH: Final = 500
#: Seconds for which the task works before it makes room for others.
TURN: Final = 10.0
#: How often a batch is tried that the database breaks off.
ATTEMPTS: Final = 3
#: Seconds for which rows are counted at most.
COUNTING: Final = 0.8


class Hindrance(NamedTuple):
    """Why nothing happens."""

    #: ``offline``: no worker runs; ``gone``: its task is not there any more; ``paused``, or ``not taken`` by any
    #: running worker: the queue in which its task waits.
    reason: str
    queue: str = ""


def count(chosen: Selection, rows: QuerySet[Any]) -> int | None:
    """Return how many of these rows are chosen; ``None`` if that takes too long to count."""
    try:
        with paging.time_limit(settings.DATABASE, COUNTING):
            return _upto(rows, chosen.at).count()
    except paging.TooSlow:
        return None


def begin(
    action: Action, parameters: Mapping[str, Any], *, search: str, filters: Mapping[str, str], request: HttpRequest
) -> BulkOperation:
    """Store an action on all that a search finds now, and send the task that does it.

    Raises :class:`~django_tasks.search.SearchError`,
    :class:`~django_tasks.exceptions.OperationalError` when the task cannot be sent.
    """
    person: Any = request.user
    operation = BulkOperation(
        action=action.name,
        parameters=json.dumps(parameters),
        search=search,
        filters=json.dumps(filters),
        user_id=str(person.pk),
        user_name=person.get_username(),
        created_at=dashboard.database_now(),
    )
    chosen = _selection(operation, person)
    operation.after = chosen.floor or ""  # what comes meanwhile must not push out of the newest rows what is in there
    operation.total = count(chosen, _chosen(chosen, request))
    with transaction.atomic(using=settings.DATABASE):
        operation.save(using=settings.DATABASE)
        send(operation)
    return operation


def send(operation: BulkOperation) -> None:
    """Send the task that goes on with it, to a queue from which somebody takes it."""
    options = {"queue": _place() or settings.TASK_DEFAULT_QUEUE, "priority": PRIORITY, "tags": [_tag(operation)]}
    client.send(TASK_NAME, [operation.pk], {}, options)


def hindrance(operation: BulkOperation) -> Hindrance | None:
    """Return why nothing goes on with an operation that is under way; ``None`` if something does, or will."""
    online = _online()
    if not online:
        return Hindrance("offline")
    tagged = TaskTag.objects.using(reads_from()).filter(tag=_tag(operation))
    rows = Task.objects.using(reads_from()).filter(pk__in=tagged.values("task_id"))
    found = [_kept_back(queue, state, online) for queue, state in rows.values_list("queue", "state")]
    if not found:
        return Hindrance("gone")
    return None if None in found else found[0]


def work(operation_id: int, seconds: float = TURN, batch: int = BATCH) -> BulkOperation | None:
    """Go on with an operation for so long, at least one batch; return how it is then, ``None`` if there is none.

    What makes it impossible to go on is kept in the row and raised.
    """
    end = time.monotonic() + seconds
    attempts = ATTEMPTS
    while True:
        try:
            operation = step(operation_id, batch)
            attempts = ATTEMPTS
        except Exception as error:
            attempts -= 1
            if attempts and isinstance(error, DatabaseOperationalError):  # a deadlock, a lock that was waited for
                continue
            _rows().filter(pk=operation_id).update(
                state=BulkOperation.FAILED, error=f"{type(error).__name__}: {error}"[:2_000], finished_at=_now()
            )
            raise
        if operation is None or not operation.is_active or time.monotonic() >= end:
            return operation


def step(operation_id: int, batch: int = BATCH) -> BulkOperation | None:
    """Do one batch, in one transaction; return the operation as it is then, ``None`` if there is none."""
    with transaction.atomic(using=settings.DATABASE):
        operation = _locked(operation_id)
        if operation is None or not operation.is_active:
            return operation
        operation.state = BulkOperation.RUNNING
        operation.started_at = operation.started_at or _now()
        if operation.abort_at is not None:
            operation.state, operation.finished_at = BulkOperation.ABORTED, _now()
        else:
            _work_on(operation, batch)
        operation.save(using=settings.DATABASE)
    return operation


def abort(operation: BulkOperation, user_name: str) -> bool:
    """Let it stop after the present batch; False if it has ended already."""
    active = _rows().filter(pk=operation.pk, state__in=(BulkOperation.WAITING, BulkOperation.RUNNING))
    return bool(active.update(abort_at=_now(), aborted_by=user_name))


def resume(operation: BulkOperation) -> bool:
    """Go on with what was stopped or failed, from where it is; False if it is under way, or done."""
    ended = _rows().filter(pk=operation.pk, state__in=(BulkOperation.ABORTED, BulkOperation.FAILED))
    with transaction.atomic(using=settings.DATABASE):
        found = ended.update(
            state=BulkOperation.WAITING, abort_at=None, aborted_by="", finished_at=None, error="", started_at=None
        )
        if found:
            send(operation)
    return bool(found)


# Inside --------------------------------------------------------------------------------------------------------------


def _work_on(operation: BulkOperation, batch: int) -> None:
    action = actions.BY_NAME[operation.action]
    request = _request(operation, action)
    rows = _chosen(_selection(operation, request.user), request)
    if operation.after:
        rows = rows.filter(pk__gt=operation.after)
    found = list(rows.only("pk", "name", "custom_id").order_by("pk")[:batch])
    if not found:
        operation.state, operation.finished_at = BulkOperation.DONE, _now()
        return
    keys = [str(row.pk) for row in found]
    done = action.do(keys, json.loads(operation.parameters), access.narrowing(request))
    audit.record(request.user, found, done.said, deleted=action.deletes)
    operation.after = str(found[-1].pk)
    operation.changed += len(done.said)
    operation.left += len(done.left)
    operation.reasons = json.dumps(Counter(json.loads(operation.reasons)) + Counter(done.left.values()))


def _request(operation: BulkOperation, action: Action) -> HttpRequest:
    """Return what stands for the request of whoever asked. Raises ``PermissionDenied`` if they may not any more, or if
    this is no time for changes."""
    try:
        user: Any = get_user_model()._default_manager.get(pk=operation.user_id)
    except (ObjectDoesNotExist, ValidationError, ValueError):
        user = None
    request = HttpRequest()
    request.user = user
    if user is None or not access.may_enter(request) or not user.has_perm(action.needs):
        raise PermissionDenied(_("%s may not do that any more.") % operation.user_name)
    if access.is_read_only(request):
        raise PermissionDenied(_("The admin is read-only at present."))
    return request


def _chosen(chosen: Selection, request: HttpRequest) -> QuerySet[Any]:
    rows: QuerySet[Any] = chosen.model.objects.using(settings.DATABASE).all()
    return _upto(access.visible(request, chosen.narrow(rows)), chosen.at)


def _selection(operation: BulkOperation, user: Any) -> Selection:
    return Selection.of(
        actions.BY_NAME[operation.action].model,
        operation.search,
        json.loads(operation.filters),
        at=operation.created_at,
        full=user.has_perm("django_tasks.view_payload"),
        floor=operation.after or None,
    )


def _upto(rows: QuerySet[Any], moment: datetime) -> QuerySet[Any]:
    """Return what was there at this moment: what the action itself brings about is not worked on."""
    return rows.filter(**{"finished_at__lte" if rows.model is TaskResult else "created_at__lte": moment})


def _online() -> list[Worker]:
    now = dashboard.database_now()
    return [worker for worker in dashboard.current_workers() if worker.status(now) == "online"]


def _paused(kind: str, name: str) -> bool:
    limit = Limit.objects.using(reads_from()).filter(kind=kind, name=name).first()
    return limit is not None and limit.is_paused(dashboard.database_now())


def _place() -> str | None:
    """Return a queue from which a running worker takes tasks, the default one if it is one; ``None`` if there is
    none."""
    online = _online()
    # A worker of all queues takes from one of this name, too, and nobody paused it for the sake of other tasks.
    names = [name for worker in online for name in worker.queues.split(" -")[0].split(",") if name != "*"]
    queues = dict.fromkeys((settings.TASK_DEFAULT_QUEUE, TASK_NAME, *names))
    return next((queue for queue in queues if _takes(online, queue) and not _paused(Limit.QUEUE, queue)), None)


def _takes(online: list[Worker], queue: str) -> bool:
    return any(dashboard.consumes(worker, queue) for worker in online)


def _kept_back(queue: str, state: str, online: list[Worker]) -> Hindrance | None:
    if state == states.STARTED:
        return None
    if _paused(Limit.QUEUE, queue) or _paused(Limit.TASK, TASK_NAME):
        return Hindrance("paused", queue)
    return None if _takes(online, queue) else Hindrance("not taken", queue)


def _tag(operation: BulkOperation) -> str:
    """Return the tag of its task, by which an index finds it."""
    return f"{TASK_NAME}:{operation.pk}"


def _locked(operation_id: int) -> BulkOperation | None:
    rows = _rows().filter(pk=operation_id)
    if connections[settings.DATABASE].features.has_select_for_update:
        return rows.select_for_update().first()
    rows.update(after=F("after"))  # SQLite: from here on nobody else writes
    return rows.first()


def _rows() -> QuerySet[BulkOperation]:
    return BulkOperation.objects.using(settings.DATABASE)


def _now() -> datetime:
    return datetime.now(UTC)
