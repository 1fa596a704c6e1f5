"""RQ with Redis, a pool of two workers."""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-unimported,misc,untyped-decorator"
from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis
import rq

from benchmarks.contestant import Contestant


def noop() -> None:
    """Do nothing."""


def stamp() -> float:
    """Return the time of the clock that all processes share."""
    return time.monotonic()


class RQ(Contestant):
    """As it comes: a process is forked for each task."""

    distribution = "rq"
    worker_class = "rq.worker.Worker"

    def prepare(self) -> None:
        self.connection = redis.Redis.from_url(self.url)
        self.queue = rq.Queue(connection=self.connection)

    def workers(self) -> list[list[str]]:
        pool = [str(Path(sys.executable).with_name("rq")), "worker-pool", "--url", self.url, "--num-workers", "2"]
        return [[*pool, "--worker-class", self.worker_class, "--logging-level", "WARNING"]]

    def send(self) -> Any:
        return self.queue.enqueue(noop).id

    def send_many(self, count: int) -> Sequence[Any]:
        return [job.id for job in self.queue.enqueue_many([rq.Queue.prepare_data(noop) for _ in range(count)])]

    def is_done(self, task: Any) -> bool:
        return bool(self.connection.exists(f"rq:results:{task}"))

    def count_done(self) -> int:
        return int(self.queue.finished_job_registry.get_job_count(cleanup=False))

    def send_stamp(self) -> Any:
        return self.queue.enqueue(stamp)

    def wait_for_stamp(self, sent: Any) -> float:
        return float(sent.latest_result(timeout=30).return_value)


class RQTuned(RQ):
    """Tasks run in the workers themselves, which its documentation names for very short ones."""

    worker_class = "rq.worker.SimpleWorker"
