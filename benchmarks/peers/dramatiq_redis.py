"""Dramatiq with Redis as broker and result store, two processes."""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-unimported,misc,untyped-decorator"
from __future__ import annotations

import os
import sys
import time
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.contestant import Contestant

url = os.environ.get("BENCHMARK_URL", "redis://127.0.0.1")
results = RedisBackend(url=f"{url}/1")
broker = RedisBroker(url=f"{url}/0")
broker.add_middleware(Results(backend=results, store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor
def noop() -> None:
    """Do nothing."""


@dramatiq.actor
def stamp() -> float:
    """Return the time of the clock that all processes share."""
    return time.monotonic()


class Dramatiq(Contestant):
    """As it comes: eight threads in each process."""

    distribution = "dramatiq"
    sends_many = False

    def prepare(self) -> None:
        self.store = redis.Redis.from_url(f"{self.url}/1")

    def workers(self) -> list[list[str]]:
        return [[sys.executable, "-m", "dramatiq", "benchmarks.peers.dramatiq_redis", "--processes", "2"]]

    def send(self) -> Any:
        return noop.send()

    def is_done(self, task: Any) -> bool:
        return bool(self.store.exists(results.build_message_key(task)))

    def count_done(self) -> int:
        return int(self.store.dbsize())

    def send_stamp(self) -> Any:
        return stamp.send()

    def wait_for_stamp(self, sent: Any) -> float:
        return float(sent.get_result(block=True, timeout=30_000))
