"""Procrastinate on PostgreSQL: two worker processes. It keeps the state of a job, no return value."""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-unimported,misc,untyped-decorator"
from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import procrastinate
import psycopg

from benchmarks.contestant import Contestant

url = os.environ.get("BENCHMARK_URL", "postgresql://")
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))


@app.task(name="noop")
async def noop() -> None:
    """Do nothing."""


class Procrastinate(Contestant):
    """As it comes."""

    distribution = "procrastinate"

    def prepare(self) -> None:
        self.sender = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=self.url))
        self.sender.open()
        self.sender.schema_manager.apply_schema()
        self.job = self.sender.configure_task("noop")
        self.connection = psycopg.connect(self.url, autocommit=True)

    def workers(self) -> list[list[str]]:
        return [[sys.executable, "-m", "procrastinate", "-a", "benchmarks.peers.procrastinate_pg.app", "worker"]] * 2

    def send(self) -> Any:
        return self.job.defer()

    def send_many(self, count: int) -> Sequence[Any]:
        sent: list[int] = self.job.batch_defer(*[{}] * count)
        return sent

    def is_done(self, task: Any) -> bool:
        query = "SELECT FROM procrastinate_jobs WHERE id = %s AND status = 'succeeded'"
        return self.connection.execute(query, (task,)).fetchone() is not None

    def count_done(self) -> int:
        row = self.connection.execute("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'").fetchone()
        return int(row[0]) if row else 0

    def close(self) -> None:
        self.sender.close()
