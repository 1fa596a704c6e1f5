"""PgQueuer on PostgreSQL with asyncpg: two worker processes. It keeps a log of jobs, no return value."""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-unimported,misc,untyped-decorator"
from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pgqueuer
import psycopg
import uvloop
from pgqueuer.db import SyncPsycopgDriver
from pgqueuer.queries import SyncQueries

from benchmarks.contestant import Contestant


@asynccontextmanager
async def worker() -> AsyncIterator[pgqueuer.PgQueuer]:
    """Give PgQueuer's supervisor what it runs."""
    connection = await asyncpg.connect(os.environ["BENCHMARK_URL"])
    queue = pgqueuer.PgQueuer.from_asyncpg_connection(connection)

    @queue.entrypoint("noop")
    async def noop(job: pgqueuer.Job) -> None:
        """Do nothing."""

    try:
        yield queue
    finally:
        await connection.close()


class PgQueuer(Contestant):
    """As it comes: ten jobs a batch."""

    distribution = "pgqueuer"
    batch_size = 10

    def prepare(self) -> None:
        command = [sys.executable, "-m", "pgqueuer", "--pg-dsn", self.url, "install"]
        subprocess.run(command, check=True, capture_output=True)
        self.connection = psycopg.connect(self.url, autocommit=True)
        self.queries = SyncQueries(SyncPsycopgDriver(self.connection))

    def workers(self) -> list[list[str]]:
        return [[sys.executable, "-m", "benchmarks.peers.pgqueuer_pg", str(self.batch_size)]] * 2

    def send(self) -> Any:
        return self.queries.enqueue("noop", None)[0]

    def send_many(self, count: int) -> Sequence[Any]:
        sent: list[int] = self.queries.enqueue(["noop"] * count, [None] * count, [0] * count)
        return sent

    def is_done(self, task: Any) -> bool:
        query = "SELECT FROM pgqueuer_log WHERE job_id = %s AND status = 'successful'"
        return self.connection.execute(query, (task,)).fetchone() is not None

    def count_done(self) -> int:
        row = self.connection.execute("SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'").fetchone()
        return int(row[0]) if row else 0


class PgQueuerTuned(PgQueuer):
    """A hundred jobs a batch."""

    batch_size = 100


if __name__ == "__main__":
    uvloop.run(pgqueuer.run(worker, batch_size=int(sys.argv[1])))
