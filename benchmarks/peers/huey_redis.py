"""Huey with Redis, two worker processes."""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-unimported,misc,untyped-decorator"
from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import huey

from benchmarks.contestant import Contestant

#: ``store_none``: Huey would keep no result of a task that returns None.
queue = huey.RedisHuey("benchmark", url=os.environ.get("BENCHMARK_URL", "redis://127.0.0.1"), store_none=True)


@queue.task()
def noop() -> None:
    """Do nothing."""


@queue.task()
def stamp() -> float:
    """Return the time of the clock that all processes share."""
    return time.monotonic()


class Huey(Contestant):
    """As it comes, but for processes in place of threads, and without a line of log for each task."""

    distribution = "huey"
    sends_many = False

    def prepare(self) -> None:
        queue.storage.flush_all()

    def workers(self) -> list[list[str]]:
        consumer = str(Path(sys.executable).with_name("huey_consumer"))
        return [[consumer, "benchmarks.peers.huey_redis.queue", "--workers=2", "--worker-type=process", "--quiet"]]

    def send(self) -> Any:
        return noop().id

    def is_done(self, task: Any) -> bool:
        return bool(queue.storage.has_data_for_key(task))

    def count_done(self) -> int:
        return int(queue.result_count())

    def send_stamp(self) -> Any:
        return stamp()

    def wait_for_stamp(self, sent: Any) -> float:
        return float(sent.get(blocking=True, timeout=30))
