"""Taskiq with a list in Redis as its queue, Redis as result store, and two processes."""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-unimported,misc,untyped-decorator"
from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import redis
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks.contestant import Contestant

url = os.environ.get("BENCHMARK_URL", "redis://127.0.0.1")
broker = ListQueueBroker(f"{url}/0").with_result_backend(RedisAsyncResultBackend(f"{url}/1"))


@broker.task(task_name="noop")
async def noop() -> None:
    """Do nothing."""


@broker.task(task_name="stamp")
async def stamp() -> float:
    """Return the time of the clock that all processes share."""
    return time.monotonic()


class Taskiq(Contestant):
    """As it comes, with uvloop, and without a line of log for each task. A list knows no acknowledgement."""

    distribution = "taskiq"
    sends_many = False

    def prepare(self) -> None:
        self.store = redis.Redis.from_url(f"{self.url}/1")
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(broker.startup())

    def workers(self) -> list[list[str]]:
        options = ["--workers", "2", "--log-level", "WARNING"]
        return [[sys.executable, "-m", "taskiq", "worker", "benchmarks.peers.taskiq_redis:broker", *options]]

    def send(self) -> Any:
        return self.loop.run_until_complete(noop.kiq()).task_id

    def send_many(self, count: int) -> Sequence[Any]:
        async def send() -> list[Any]:
            return [(await noop.kiq()).task_id for _ in range(count)]

        return self.loop.run_until_complete(send())

    def is_done(self, task: Any) -> bool:
        return bool(self.store.exists(task))

    def count_done(self) -> int:
        return int(self.store.dbsize())

    def send_stamp(self) -> Any:
        return self.loop.run_until_complete(stamp.kiq())

    def wait_for_stamp(self, sent: Any) -> float:
        # It asks again and again; every 200 ms unless told otherwise.
        result = self.loop.run_until_complete(sent.wait_result(check_interval=0.002, timeout=30))
        return float(result.return_value)

    def close(self) -> None:
        self.loop.run_until_complete(broker.shutdown())
        self.loop.close()
