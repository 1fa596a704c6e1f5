"""What the contract needs besides a broker's own methods: more processes, time that passes, a look at the records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from django.conf import settings
from django.db import connections, transaction
from django.db.models import F
from django.test import override_settings

from django_tasks.backends import get_results
from django_tasks.backends.base import Broker
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.message import Message
from django_tasks.backends.redis import RedisBroker
from django_tasks.backends.redis.wire import Entry, write
from django_tasks.backends.results import Record
from django_tasks.models import Beat, Command, Limit, LimitState, Reply, Task, TaskResult, UniquePeriod, Worker

#: SQL for a column so many seconds earlier; NULL stays NULL.
EARLIER = {
    "sqlite": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', {column}, '-{seconds} seconds')",
    "postgresql": "{column} - {seconds} * interval '1 s'",
    "mysql": "{column} - INTERVAL {seconds} SECOND",
}
MOMENTS = {
    Task: "created_at due_at expires_at started_at revoked_at",
    TaskResult: "created_at due_at expires_at started_at finished_at",
    Worker: "started_at beat_at stopped_at lost_at",
    Limit: "paused_at paused_until",
    UniquePeriod: "until_at",
    Command: "created_at expires_at",
    Reply: "created_at",
    Beat: "started_at seen_at stopped_at",
}


class Bench(ABC):
    """One server, and all that a test may do with it."""

    #: Does the caller's transaction keep all others from writing?
    shuts_others_out = False

    @abstractmethod
    def new_broker(self) -> Broker:
        """Return another instance, as another process has it; closed after the test."""

    @abstractmethod
    def let_pass(self, seconds: float) -> None:
        """Make everything that is stored so many seconds older."""

    @abstractmethod
    def record(self, task_id: str) -> Record | None:
        """Return what everybody can know of a task."""

    @abstractmethod
    def worker(self, worker: int) -> Worker | None:
        """Return what is known of one start of a worker."""

    @abstractmethod
    def limit(self, kind: str, name: str, **fields: Any) -> None:
        """Set the limit of a queue or a task, in place of what there was; without fields, take it away."""

    @abstractmethod
    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Open a transaction of the caller."""

    @abstractmethod
    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """Open a transaction of the caller that ends in a rollback."""

    def state(self, task_id: str) -> str | None:
        """Return the state of a task, ``None`` if nobody knows it."""
        record = self.record(task_id)
        return record.state if record else None


class DatabaseBench(Bench):
    """A database under an alias."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.shuts_others_out = connections[alias].vendor == "sqlite"
        self._brokers: list[DatabaseBroker] = []

    def new_broker(self) -> DatabaseBroker:
        self._brokers.append(DatabaseBroker(self.alias))
        return self._brokers[-1]

    def let_pass(self, seconds: float) -> None:
        connection = connections[self.alias]
        with connection.cursor() as cursor:
            for model, columns in MOMENTS.items():
                sets = ", ".join(
                    f"{column} = {EARLIER[connection.vendor].format(column=column, seconds=seconds)}"
                    for column in columns.split()
                )
                cursor.execute(f"UPDATE {model._meta.db_table} SET {sets}", [])
        LimitState.objects.using(self.alias).update(moment=F("moment") - seconds)

    def record(self, task_id: str) -> Record | None:
        return get_results(self.alias).read(task_id)

    def worker(self, worker: int) -> Worker | None:
        return Worker.objects.using(self.alias).filter(pk=worker).first()

    def limit(self, kind: str, name: str, **fields: Any) -> None:
        Limit.objects.using(self.alias).filter(kind=kind, name=name).delete()
        if fields:
            Limit.objects.using(self.alias).create(kind=kind, name=name, **fields)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with transaction.atomic(using=self.alias):
            yield

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        with transaction.atomic(using=self.alias):
            yield
            transaction.set_rollback(True, using=self.alias)

    def close(self) -> None:
        """Close every broker it gave."""
        for broker in self._brokers:
            broker.close()


class RedisBench(DatabaseBench):
    """A Redis in front of a database."""

    def __init__(self, alias: str, url: str, *, durable: bool = True) -> None:
        super().__init__(alias)
        self.url = url
        self._durable = durable
        self.redis = RedisBroker(alias, url)

    def new_broker(self) -> DatabaseBroker:
        self._brokers.append((RedisBroker if self._durable else Forgetful)(self.alias, self.url))
        return self._brokers[-1]

    def let_pass(self, seconds: float) -> None:
        super().let_pass(seconds)
        server = self.redis.server
        client = server.client()
        for key in client.scan_iter(f"{server.address.prefix}:*"):
            kind, part = client.type(key), key.rpartition(b"}:")[2]
            if kind == b"zset" and part != b"p":
                for member, score in client.zrange(key, 0, -1, withscores=True):
                    client.zadd(key, {member: score - seconds})
            elif part == b"mark":
                name, moment = client.get(key).split(b" ")
                client.set(key, b"%s %r" % (name, float(moment) - seconds))
            elif part == b"m":
                for task_id, text in client.hgetall(key).items():
                    client.hset(key, task_id, self._older(text, seconds))
            elif part.startswith(b"l:"):
                for task_id, text in client.hgetall(key).items():
                    slot, attempt, priority, due, flags = text.split(b" ")
                    words = [slot, attempt, priority, repr(float(due) - seconds).encode(), flags]
                    client.hset(key, task_id, b" ".join(words))

    def _older(self, text: bytes, seconds: float) -> bytes:
        entry = Entry.read(text)
        rest = list(entry.rest)
        if rest[11] is not None:
            rest[11] -= seconds
        written = write(entry.flags, entry.attempt, entry.priority, entry.name, rest)
        return repr(entry.published - seconds).encode() + b" " + written

    def close(self) -> None:
        super().close()
        client = self.redis.server.client()
        for key in client.scan_iter(f"{self.redis.server.address.prefix}:*"):
            client.delete(key)
        self.redis.close()


@contextmanager
def redis_bench(alias: str, url: str) -> Iterator[RedisBench]:
    """Give a Redis in front of a database, as that of the site."""
    with override_settings(DJANGO_TASKS={**settings.DJANGO_TASKS, "BROKER_URL": url}):
        bench = RedisBench(alias, url)
        yield bench
        bench.close()


class Forgetful(RedisBroker):
    """Sends everything without a row."""

    def publish(self, messages: Sequence[Message]) -> None:
        super().publish([replace(one, durable=False) for one in messages])
