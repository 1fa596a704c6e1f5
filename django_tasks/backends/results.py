"""Reading what became of a task: one record, whether it is still on the to-do list or already in the ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connections

from .. import states
from ..ids import dashed, key_of
from ..models import Task, TaskLog, TaskResult, TaskTag
from . import stores
from .relations import Relations, parts


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
_WAITING = ("state", "custom_state", "meta", *_COMMON)
_DONE = ("state", "result", "result_encoding", "traceback", "worker", "finished_at", *_COMMON)


class DatabaseResults(Relations):
    """The to-do list and the ledger under one Django alias, read in the caller's own transaction."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def read(self, task_id: str) -> Record | None:
        """Return what is known of a task, ``None`` if nobody knows it.

        The to-do list is read first: a task only ever moves from there to the ledger, so it cannot be missed in
        between.
        """
        waiting = self._row(Task, _WAITING, task_id)
        if waiting is None:
            return self.read_ended(task_id)
        state, custom_state, meta, *common = waiting
        told = state == states.STARTED and custom_state
        shown = states.shown(state, retries=common[_COMMON.index("retries")])
        history = common[-1]
        return self._record(
            task_id,
            common,
            state=custom_state if told else shown,
            result=meta if told else _last_error(history) if shown == states.RETRY else None,
            traceback=_last_traceback(history) if shown == states.RETRY else None,
        )

    def read_ended(self, task_id: str) -> Record | None:
        """Return what the ledger says, ``None`` if the task is not there (yet). The cheapest question there is."""
        done = self._row(TaskResult, _DONE, task_id)
        return None if done is None else self._ended(task_id, done)

    def read_ended_many(self, task_ids: Sequence[str]) -> list[Record]:
        """Return what the ledger says of these, by the ids as they were given; those that are not there are left
        out."""
        given = {key_of(one): one for one in task_ids}
        found = []
        for some in parts(given):
            rows = TaskResult.objects.using(self.alias).filter(pk__in=some).values_list("pk", *_DONE)
            for key, *done in rows:
                record = self._ended(given[str(key)], done)
                record.task_id = given[str(key)]
                found.append(record)
        return found

    def _ended(self, task_id: str, done: Sequence[Any]) -> Record:
        state, result, encoding, traceback, worker, finished_at, *common = done
        finished: Any = TaskResult._meta.get_field("finished_at")
        return self._record(
            task_id,
            common,
            state=state,
            result=result,
            result_encoding=encoding,
            traceback=traceback,
            worker=worker or None,
            finished_at=finished.from_db_value(finished_at, None, connections[self.alias]),
        )

    def _row(self, model: type[Task | TaskResult], columns: Sequence[str], task_id: str) -> tuple[Any, ...] | None:
        """Read one row in SQL: who waits asks often, and making the same query anew costs more than running it."""
        connection = connections[self.alias]
        table, key = model._meta.db_table, model._meta.pk.get_db_prep_value(key_of(task_id), connection)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(columns)} FROM {table} WHERE id = %s", [key])  # noqa: S608 - constants
            return cursor.fetchone()  # type: ignore[no-any-return]

    def forget(self, task_id: str) -> None:
        """Delete the ledger's line with its tags; a task that is not done stays."""
        key = key_of(task_id)
        line = TaskResult.objects.using(self.alias).filter(pk=key)
        stored = list(line.values_list("result", "result_encoding"))
        if line.delete()[0]:
            stores.drop(stored)
            TaskTag.objects.using(self.alias).filter(task_id=key).delete()
            TaskLog.objects.using(self.alias).filter(task_id=key).delete()

    def _record(self, task_id: str, common: list[Any], **fields: Any) -> Record:
        custom_id, name, queue, body, encoding, retries, attempt, root_id, parent_id, options, history = common
        return Record(
            task_id=custom_id or key_of(task_id),
            name=name,
            queue=queue,
            body=body,
            encoding=encoding,
            retries=retries,
            attempt=attempt,
            root_id=root_id and dashed(root_id),
            parent_id=parent_id and dashed(parent_id),
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
