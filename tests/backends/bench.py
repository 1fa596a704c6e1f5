"""What the contract needs besides a broker's own methods: more processes, time that passes, a look at the records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections, transaction

from django_tasks.backends import get_results
from django_tasks.backends.base import Broker
from django_tasks.backends.database import DatabaseBroker
from django_tasks.backends.results import Record
from django_tasks.models import Task, TaskResult, Worker

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
}


class Bench(ABC):
    """One server, and all that a test may do with it."""

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

    def record(self, task_id: str) -> Record | None:
        return get_results(self.alias).read(task_id)

    def worker(self, worker: int) -> Worker | None:
        return Worker.objects.using(self.alias).filter(pk=worker).first()

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
