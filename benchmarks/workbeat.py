"""Our own side: the real ``manage.py runworker -c 2`` on a small Django project."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import django
from django.core.management import call_command

from benchmarks import rows
from benchmarks.contestant import Contestant


class Workbeat(Contestant):
    """As it comes."""

    distribution = "django-workbeat"

    def __init__(self, url: str) -> None:
        super().__init__(url)
        os.environ["DATABASE_URL"] = url
        os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.project.settings"
        django.setup()
        from benchmarks.project import tasks

        self.task = tasks.noop
        self.stamp = tasks.stamp
        #: Results up to here are not counted.
        self.began = datetime(2000, 1, 1, tzinfo=UTC)

    def prepare(self) -> None:
        call_command("migrate", verbosity=0)

    def workers(self) -> list[list[str]]:
        return [[sys.executable, "-m", "benchmarks.project.manage", "runworker", "-c", "2"]]

    def send(self) -> Any:
        return self.task.delay().id

    def send_many(self, count: int) -> Sequence[Any]:
        return [result.id for result in self.task.enqueue_many([()] * count)]

    def is_done(self, task: Any) -> bool:
        return bool(self._results.filter(pk=task).exists())

    def count_done(self) -> int:
        return int(self._results.filter(state="SUCCESS", finished_at__gt=self.began).count())

    def send_stamp(self) -> Any:
        return self.stamp.delay()

    def wait_for_stamp(self, sent: Any) -> float:
        return float(sent.get(timeout=30))

    def fill_results(self, count: int) -> None:
        """Add ``count`` copies of the newest result, each a second older than the one before."""
        from django_tasks.models import TaskResult

        self.began = self._results.latest("finished_at").finished_at
        rows.copy(TaskResult, count, "finished_at", "-n")

    def fill_tasks(self, count: int) -> None:
        """Add ``count`` copies of the newest waiting task, due in the second after it."""
        from django_tasks.models import Task

        rows.copy(Task, count, "due_at", f"n * 1.0 / {max(count, 1)}")

    def settle(self) -> None:
        """Let the database put its tables in order."""
        rows.settle()

    @property
    def _results(self) -> Any:
        from django_tasks.models import TaskResult

        return TaskResult.objects


class WorkbeatIgnored(Workbeat):
    """With ``ignore_result=True``: a finished task leaves no line in the ledger."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        from benchmarks.project import tasks

        self.task = tasks.noop_ignored
        self.sent = 0

    def send(self) -> Any:
        self.sent += 1
        return super().send()

    def send_many(self, count: int) -> Sequence[Any]:
        self.sent += count
        return super().send_many(count)

    def is_done(self, task: Any) -> bool:
        return not self._tasks.filter(pk=task).exists()

    def count_done(self) -> int:
        return self.sent - int(self._tasks.count())

    @property
    def _tasks(self) -> Any:
        from django_tasks.models import Task

        return Task.objects
