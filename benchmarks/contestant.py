"""What every contestant can be asked to do, so that one driver measures them all in the same way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

#: Contestants by name: module and class. Only the chosen one is imported; each lives in its own environment.
CONTESTANTS = {
    "workbeat": "benchmarks.workbeat:Workbeat",
    "workbeat-coroutines": "benchmarks.workbeat:WorkbeatCoroutines",
    "workbeat-redis": "benchmarks.workbeat:WorkbeatRedis",
    "workbeat-redis-durable": "benchmarks.workbeat:WorkbeatRedisDurable",
    "workbeat-ignored": "benchmarks.workbeat:WorkbeatIgnored",
    "bare": "benchmarks.bare:Bare",
    "celery": "benchmarks.peers.celery_redis:Celery",
    "celery-tuned": "benchmarks.peers.celery_redis:CeleryTuned",
    "huey": "benchmarks.peers.huey_redis:Huey",
    "dramatiq": "benchmarks.peers.dramatiq_redis:Dramatiq",
    "rq": "benchmarks.peers.rq_redis:RQ",
    "rq-tuned": "benchmarks.peers.rq_redis:RQTuned",
    "taskiq": "benchmarks.peers.taskiq_redis:Taskiq",
    "procrastinate": "benchmarks.peers.procrastinate_pg:Procrastinate",
    "pgqueuer": "benchmarks.peers.pgqueuer_pg:PgQueuer",
    "pgqueuer-tuned": "benchmarks.peers.pgqueuer_pg:PgQueuerTuned",
}


class Peer(NamedTuple):
    """Another task queue."""

    #: What ``peers.environment`` installs for it.
    library: str
    #: The kind of server that it needs.
    kind: str
    #: How many of its tasks take about as long as 1,000 of ours.
    share: int
    #: Can its callers have what a task returned?
    keeps_results: bool = True


#: The peers by name.
PEERS = {
    "celery": Peer("celery", "redis", 60),
    "celery-tuned": Peer("celery", "redis", 60),
    "huey": Peer("huey", "redis", 150),
    "dramatiq": Peer("dramatiq", "redis", 60),
    "rq": Peer("rq", "redis", 20),
    "rq-tuned": Peer("rq", "redis", 40),
    "taskiq": Peer("taskiq", "redis", 80),
    "procrastinate": Peer("procrastinate", "postgresql", 30, keeps_results=False),
    "pgqueuer": Peer("pgqueuer", "postgresql", 150, keeps_results=False),
    "pgqueuer-tuned": Peer("pgqueuer", "postgresql", 150, keeps_results=False),
}


class Contestant(ABC):
    """A task queue with a no-op task and a worker of two processes. ``url`` tells its server."""

    #: The package whose version is told beside the figures; empty for code of the benchmarks themselves.
    distribution: ClassVar[str] = ""
    #: How ours runs tasks, as ``runworker --pool`` takes it; the others have two processes.
    pool: str = ""
    #: Can many tasks be sent with one call?
    sends_many: ClassVar[bool] = True

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def keeps_results(self) -> bool:
        """Can a caller have what a task returned?"""
        return type(self).send_stamp is not Contestant.send_stamp

    @abstractmethod
    def prepare(self) -> None:
        """Make tables, or whatever else an empty server lacks."""

    @abstractmethod
    def workers(self) -> list[list[str]]:
        """Return the commands that together run a worker of two processes."""

    @abstractmethod
    def send(self) -> Any:
        """Send one no-op task and return what ``is_done`` knows it by."""

    def send_many(self, count: int) -> Sequence[Any]:
        """Send ``count`` no-op tasks, with one call where there is one, and return what ``send`` would for each."""
        return [self.send() for _ in range(count)]

    @abstractmethod
    def is_done(self, task: Any) -> bool:
        """Tell whether the task is done and its outcome stored. Asked fifty times a second, so it must be cheap."""

    @abstractmethod
    def count_done(self) -> int:
        """Return how many tasks are done since ``prepare``."""

    def send_stamp(self) -> Any:
        """Send a task that returns ``time.monotonic()``, a clock that all processes of the machine share."""
        raise NotImplementedError(f"{self.distribution} keeps no results")

    def wait_for_stamp(self, sent: Any) -> float:
        """Wait for what ``send_stamp`` sent and return its return value."""
        raise NotImplementedError(f"{self.distribution} keeps no results")

    def run_chain(self, length: int) -> float:
        """Send a chain of so many no-op tasks and wait for its end; return the seconds that took."""
        raise NotImplementedError(f"{self.distribution} has no chains")

    def run_chord(self, members: int) -> float:
        """Send a chord of so many no-op tasks with one as its body and wait for that; return the seconds."""
        raise NotImplementedError(f"{self.distribution} has no chords")

    def send_chords(self, chords: int, members: int) -> tuple[float, int]:
        """Send a chain of so many chords; return the seconds until that is stored, and the largest message in bytes."""
        raise NotImplementedError(f"{self.distribution} has no chords")

    def send_group(self, members: int) -> float:
        """Send a group of so many no-op tasks; return the seconds until they are all stored."""
        raise NotImplementedError(f"{self.distribution} has no groups")

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Let go of connections."""


def load(name: str, url: str) -> Contestant:
    """Import one of ``CONTESTANTS`` and return it for the server at ``url``."""
    module, _, attribute = CONTESTANTS[name].partition(":")
    made: Contestant = getattr(import_module(module), attribute)(url)
    return made
