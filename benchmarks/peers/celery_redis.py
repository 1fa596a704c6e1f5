"""Celery with Redis as broker and result store, prefork of two."""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-unimported,misc,untyped-decorator"
from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import celery
import redis

from benchmarks.contestant import Contestant

TUNED = bool(os.environ.get("BENCHMARK_TUNED"))

url = os.environ.get("BENCHMARK_URL", "redis://127.0.0.1")
app = celery.Celery("benchmark", broker=f"{url}/0", backend=f"{url}/1")
if TUNED:
    # What Celery's own guide on optimizing advises for many short tasks.
    app.conf.worker_prefetch_multiplier = 128
    app.conf.worker_disable_rate_limits = True


@app.task
def noop() -> None:
    """Do nothing."""


@app.task
def stamp() -> float:
    """Return the time of the clock that all processes share."""
    return time.monotonic()


@app.task
def pass_on(value: Any = None) -> Any:
    """Return what it is given."""
    return value


@app.task
def count(values: list[Any]) -> int:
    """Return how many there are."""
    return len(values)


class Celery(Contestant):
    """As it comes, with hiredis."""

    distribution = "celery"

    def prepare(self) -> None:
        self.results = redis.Redis.from_url(f"{self.url}/1")

    def workers(self) -> list[list[str]]:
        return [[sys.executable, "-m", "celery", "-A", "benchmarks.peers.celery_redis", "worker", "-c", "2"]]

    def send(self) -> Any:
        return noop.delay().id

    def send_many(self, count: int) -> Sequence[Any]:
        return [result.id for result in celery.group(noop.s() for _ in range(count)).apply_async().results]

    def is_done(self, task: Any) -> bool:
        return bool(self.results.exists(f"celery-task-meta-{task}"))

    def count_done(self) -> int:
        return int(self.results.dbsize())

    def send_stamp(self) -> Any:
        return stamp.delay()

    def wait_for_stamp(self, sent: Any) -> float:
        return float(sent.get(timeout=30))

    def run_chain(self, length: int) -> float:
        began = time.monotonic()
        celery.chain(pass_on.s(0), *(pass_on.s() for _ in range(length - 1))).apply_async().get(timeout=300)
        return time.monotonic() - began

    def run_chord(self, members: int) -> float:
        began = time.monotonic()
        done = celery.chord([pass_on.s(number) for number in range(members)])(count.s()).get(timeout=300)
        if done != members:
            raise AssertionError(f"The body got {done} results of {members}")
        return time.monotonic() - began


class CeleryTuned(Celery):
    """Long prefetch, no rate limits; no gossip, mingle or heartbeat."""

    def workers(self) -> list[list[str]]:
        os.environ["BENCHMARK_TUNED"] = "1"
        [command] = super().workers()
        return [[*command, "--without-gossip", "--without-mingle", "--without-heartbeat"]]
