"""Rows of the to-do list and the ledger, as the engine would have written them, for tests of what people see."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django_tasks import ids, own_code, states
from django_tasks.models import Task, TaskResult

#: The name of a task that this process knows, and one that it does not.
KNOWN, UNKNOWN = "tests.app.tasks.add", "gone.tasks.forgotten"


def ago(seconds: float) -> datetime:
    """Return the moment so many seconds before now, in whole milliseconds as SQLite keeps them."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def waiting(**fields: Any) -> Task:
    """Return an unsaved task that waits."""
    moment = ago(1)
    return Task(**{"id": UUID(ids.new_id()), **_call(), "created_at": moment, "due_at": moment, **fields})


def finished(state: str = states.SUCCESS, seconds_ago: float = 1, **fields: Any) -> TaskResult:
    """Return an unsaved result that ended so many seconds ago."""
    moment = ago(seconds_ago)
    times = {"created_at": moment, "due_at": moment, "started_at": moment, "finished_at": moment}
    return TaskResult(**{"id": UUID(ids.new_id()), **_call(), **times, "attempt": 1, "state": state, **fields})


def saved(rows: Iterable[Any]) -> list[Any]:
    """Store rows of one kind and return them."""
    rows = list(rows)
    return list(type(rows[0]).objects.bulk_create(rows, batch_size=1000))


def failure(text: str = "boom", *, place: Any = None, **fields: Any) -> TaskResult:
    """Return an unsaved failure with everything that the engine stores of one, if wanted with the file, function and
    line of the project where it came up."""
    error = {"exc_type": "ValueError", "exc_module": "builtins", "exc_args": [text], "text": text, "causes": []}
    front = {} if place is None else {own_code.KEY: place}
    return finished(
        states.FAILURE,
        **{
            "result": json.dumps({**front, **error}, separators=(",", ":")),
            "exception": f"ValueError: {text}"[:255],
            "traceback": f"Traceback (most recent call last):\n  …\nValueError: {text}",
            **fields,
        },
    )


def _call() -> dict[str, Any]:
    return {"name": KNOWN, "queue": "default", "body": "[[1,2],{}]"}
