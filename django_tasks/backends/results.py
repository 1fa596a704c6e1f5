"""Reading what became of a task: one record, whether it is still on the to-do list or already in the ledger."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connections

from .. import states
from ..ids import key_of
from ..models import Task, TaskResult


@dataclass(slots=True)
class Record:
    """A task as its caller may know it."""

    task_id: str
    state: str
    name: str
    queue: str
    body: str
    encoding: str
    retries: int = 0
    attempt: int = 0
    #: The result or the exception as data, serialized; in the to-do list what ``update_state`` told.
    result: str | None = None
    result_encoding: str = ""
    traceback: str | None = None
    worker: str | None = None
    finished_at: datetime | None = None
    root_id: str | None = None
    parent_id: str | None = None
    options: str | None = None
    history: str | None = None

    @property
    def finished(self) -> bool:
        return self.state in states.FINISHED


_COMMON = (
    "custom_id",
    "name",
    "queue",
    "body",
    "encoding",
    "retries",
    "attempt",
    "root_id",
    "parent_id",
    "options",
    "history",
)


class DatabaseResults:
    """The to-do list and the ledger under one Django alias, read in the caller's own transaction."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def read(self, task_id: str) -> Record | None:
        """Return what is known of a task, ``None`` if nobody knows it.

        The to-do list is read first: a task only ever moves from there to the ledger, so it cannot be missed in
        between.
        """
        key = key_of(task_id)
        waiting = (
            Task.objects.using(self.alias)
            .filter(pk=key)
            .values_list("state", "custom_state", "meta", "worker_id", *_COMMON)
            .first()
        )
        if waiting is not None:
            state, custom_state, meta, _worker, *common = waiting
            told = state == states.STARTED and custom_state
            return self._record(
                key,
                common,
                state=custom_state if told else states.shown(state),
                result=meta if told else _last_error(common[-1]) if state == states.RETRY else None,
                traceback=_last_traceback(common[-1]) if state == states.RETRY else None,
            )
        done = (
            TaskResult.objects.using(self.alias)
            .filter(pk=key)
            .values_list("state", "result", "result_encoding", "traceback", "worker", "finished_at", *_COMMON)
            .first()
        )
        if done is None:
            return None
        state, result, encoding, traceback, worker, finished_at, *common = done
        return self._record(
            key,
            common,
            state=state,
            result=result,
            result_encoding=encoding,
            traceback=traceback,
            worker=worker or None,
            finished_at=finished_at,
        )

    def ended(self, task_id: str) -> bool:
        """Is the task in the ledger? The cheapest question there is, for those who wait."""
        connection = connections[self.alias]
        field = TaskResult._meta.pk
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT 1 FROM {TaskResult._meta.db_table} WHERE id = %s",  # noqa: S608 - a constant
                [field.get_db_prep_value(key_of(task_id), connection)],
            )
            return cursor.fetchone() is not None

    def forget(self, task_id: str) -> None:
        """Delete the ledger's line; a task that is not done stays."""
        TaskResult.objects.using(self.alias).filter(pk=key_of(task_id)).delete()

    def _record(self, key: str, common: list[Any], **fields: Any) -> Record:
        custom_id, name, queue, body, encoding, retries, attempt, root_id, parent_id, options, history = common
        return Record(
            task_id=custom_id or key,
            name=name,
            queue=queue,
            body=body,
            encoding=encoding,
            retries=retries,
            attempt=attempt,
            root_id=root_id and str(root_id),
            parent_id=parent_id and str(parent_id),
            options=options,
            history=history,
            **fields,
        )


def _last_error(history: str | None) -> str | None:
    attempts = json.loads(history) if history else []
    return json.dumps(attempts[-1]["error"]) if attempts and isinstance(attempts[-1].get("error"), dict) else None


def _last_traceback(history: str | None) -> str | None:
    attempts = json.loads(history) if history else []
    return attempts[-1].get("traceback") if attempts else None
