"""Deleting what nobody wants any more, in batches."""

from __future__ import annotations

import time
from abc import ABC
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from ... import states
from .. import stores
from ..base import Broker, Queues
from .arrivals import PERIOD, TAG
from .dialect import CLAIMABLE, HELD_BACK, RESULT, TASK, WORKER, Dialect
from .engine import Engine
from .gate import STATE
from .logs import LOG
from .workflow import EDGE, GROUP

#: Seconds after which a worker that stopped is forgotten.
FORGET_WORKERS = 86_400.0
#: Seconds after which the state of a limit says nothing any more.
FORGET_STATES = 3_600.0
#: Seconds after which nobody looks at a failure any more that was acknowledged: the admin shows those of 30 days.
FORGET_MARKS = 31 * 86_400.0

MARK = "django_tasks_failuremark"
NAMES = "django_tasks_tasknames"


class DatabasePruning(Broker, ABC):
    """The verbs of the database broker that delete many rows."""

    dialect: Dialect
    engine: Engine

    def purge(self, queues: Queues) -> int:
        where, params = "", list(queues.names)
        if queues.names:
            where += f" AND queue IN ({', '.join(['%s'] * len(queues.names))})"
        if queues.excluded:
            where += f" AND queue NOT IN ({', '.join(['%s'] * len(queues.excluded))})"
            params += sorted(queues.excluded)
        count = 0
        # Each kind has an index of its own.
        kinds = {CLAIMABLE: "queue, priority DESC, due_at", "state = 'UNROUTABLE'": "name", HELD_BACK: "limit_key"}
        for kind, order in kinds.items():
            count += self._delete(TASK, f"{kind}{where} ORDER BY {order}", params, guard=f" AND {kind}")
        return count

    def prune(
        self, expires: Mapping[str, timedelta | None], *, batch: int = 1_000, deadline: float = float("inf")
    ) -> int:
        count = 0
        needed = ""
        if self.engine.query(f"SELECT 1 FROM {EDGE} LIMIT 1"):  # what something that is not done takes in
            needed = f" AND NOT EXISTS (SELECT 1 FROM {EDGE} e WHERE e.before_id = {RESULT}.id)"
        for state, age in expires.items():
            if age is not None:
                count += self._delete(
                    RESULT,
                    f"state = %s AND finished_at < {self.dialect.later}{needed} ORDER BY finished_at",
                    [state, -age.total_seconds()],
                    batch=batch,
                    deadline=deadline,
                )
        self.engine.execute(
            f"DELETE FROM {WORKER} WHERE coalesce(stopped_at, lost_at) < {self.dialect.later}"
            f" AND NOT EXISTS (SELECT 1 FROM {TASK} t WHERE t.worker_id = {WORKER}.id)",
            [-FORGET_WORKERS],
        )
        self.engine.execute(  # one that starts now has just told its names
            f"DELETE FROM {NAMES} WHERE told_at < {self.dialect.later}"
            f" AND NOT EXISTS (SELECT 1 FROM {WORKER} WHERE task_names = {NAMES}.id)",
            [-FORGET_WORKERS],
        )
        self.engine.execute(f"DELETE FROM {PERIOD} WHERE until_at < {self.dialect.now}")
        if (kept := expires.get(states.SUCCESS)) is not None:
            self.engine.execute(f"DELETE FROM {GROUP} WHERE created_at < {self.dialect.later}", [-kept.total_seconds()])
        self.engine.execute(
            f"DELETE FROM {STATE} WHERE moment < {self.dialect.epoch(self.dialect.now)} - %s", [FORGET_STATES]
        )
        self.engine.execute(
            f"DELETE FROM {MARK} WHERE (acknowledged_at IS NULL OR acknowledged_at < {self.dialect.later})"
            f" AND (muted_until IS NULL OR muted_until < {self.dialect.now})",
            [-FORGET_MARKS],
        )
        return count

    def _delete(
        self,
        table: str,
        where: str,
        params: Sequence[Any],
        *,
        guard: str = "",
        batch: int = 1_000,
        deadline: float = float("inf"),
    ) -> int:
        """Delete by primary key in bounded batches: no statement is long, no gap is locked.

        ``guard`` is asked again when a row is deleted: it may have moved on since it was found.
        """
        count = 0
        beside: list[str] | None = None
        while True:
            keys = sorted(
                row[0] for row in self.engine.query(f"SELECT id FROM {table} WHERE {where} LIMIT {batch:d}", params)
            )
            if keys:
                marks = ", ".join([self.dialect.uuid] * len(keys))
                stored: list[tuple[Any, ...]] = []
                if table == RESULT:
                    away = f"id IN ({marks}) AND result_encoding LIKE '%%:%%'"
                    stored = self.engine.query(f"SELECT result, result_encoding FROM {RESULT} WHERE {away}", keys)
                count += self.engine.execute(f"DELETE FROM {table} WHERE id IN ({marks}){guard}", keys)
                stores.drop(stored)
                if beside is None:
                    beside = [one for one in (TAG, LOG) if self.engine.query(f"SELECT 1 FROM {one} LIMIT 1")]
                for other in beside:
                    sql = f"DELETE FROM {other} WHERE task_id IN ({marks})"
                    gone = f"NOT EXISTS (SELECT 1 FROM {table} t WHERE t.id = task_id)"
                    self.engine.execute(f"{sql} AND {gone}", keys)
            if len(keys) < batch or time.monotonic() > deadline:
                return count
