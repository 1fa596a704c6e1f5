"""Storing what tasks said to the log: one statement for many attempts, beside their outcomes."""

from __future__ import annotations

from typing import Final

from ...journal import Taken
from .engine import Engine

LOG: Final = "django_tasks_tasklog"
#: Rows, and ids, per statement.
CHUNK: Final = 100


class Logs:
    """One broker's hand for logs. May be used from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def write(self, taken: Taken) -> None:
        """Store parts of logs, and forget those of tasks that leave nothing behind."""
        dialect = self._engine.dialect
        for start in range(0, len(taken.parts), CHUNK):
            some = taken.parts[start : start + CHUNK]
            marks = ", ".join([f"({dialect.uuid}, %s, %s, %s)"] * len(some))
            rows = [(dialect.key(one.task_id), one.attempt, len(one.lines), one.text) for one in some]
            sql = f"INSERT INTO {LOG} (task_id, attempt, count, records) VALUES {marks}"
            self._engine.execute(sql, [value for row in rows for value in row])
        for start in range(0, len(taken.gone), CHUNK):
            keys = [dialect.key(one) for one in taken.gone[start : start + CHUNK]]
            marks = ", ".join([dialect.uuid] * len(keys))
            self._engine.execute(f"DELETE FROM {LOG} WHERE task_id IN ({marks})", keys)
