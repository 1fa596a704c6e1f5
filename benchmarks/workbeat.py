"""Our own side: the real ``manage.py runworker -c 2`` on a small Django project."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
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

        self.task: Any = tasks.noop
        self.stamp = tasks.stamp
        self.pass_on, self.count = tasks.pass_on, tasks.count
        #: The task of ``benchmarks.project.limited`` to measure; empty: one without any flow control.
        self.control = ""
        #: Results up to here are not counted.
        self.began = datetime(2000, 1, 1, tzinfo=UTC)

    def prepare(self) -> None:
        from django_tasks.backends import close_all, get_broker

        call_command("migrate", verbosity=0)
        if self.control:
            os.environ["BENCHMARK_IMPORTS"] = "benchmarks.project.limited"  # for workers: these declare its limits
        get_broker().now()  # as a worker's connection, it leaves SQLite in write-ahead mode
        close_all()

    def workers(self) -> list[list[str]]:
        return [[sys.executable, "-m", "benchmarks.project.manage", "runworker", "--pool", self.pool or "prefork=2"]]

    def configure(self, **settings: Any) -> None:
        """Give workers that start from now on more of our settings."""
        given = json.loads(os.environ.get("BENCHMARK_TASKS", "{}"))
        os.environ["BENCHMARK_TASKS"] = json.dumps({**given, **settings})

    def send(self) -> Any:
        return self.task.delay().id

    def send_many(self, count: int, **options: Any) -> Sequence[Any]:
        if not self.control:
            return [result.id for result in self.task.enqueue_many([()] * count, **options)]
        from benchmarks.project import limited

        keys = 20 if self.control == "fair" else count
        calls = [(number % keys,) for number in range(count)]
        sent = getattr(limited, self.control).enqueue_many(calls, **options)
        return [result.id for result in sent]

    def is_done(self, task: Any) -> bool:
        return bool(self._results.filter(pk=task).exists())

    def count_done(self) -> int:
        return int(self._results.filter(state="SUCCESS", finished_at__gt=self.began).count())

    def send_stamp(self) -> Any:
        return self.stamp.delay()

    def wait_for_stamp(self, sent: Any) -> float:
        return float(sent.get(timeout=30))

    def run_chain(self, length: int) -> float:
        from django_tasks import chain

        began = time.monotonic()
        chain(self.pass_on.s(0), *(self.pass_on.s() for _ in range(length - 1))).apply_async().get(timeout=300)
        return time.monotonic() - began

    def run_chord(self, members: int) -> float:
        from django_tasks import chord

        began = time.monotonic()
        done = chord([self.pass_on.s(number) for number in range(members)])(self.count.s()).get(timeout=300)
        if done != members:
            raise AssertionError(f"The body got {done} results of {members}")
        return time.monotonic() - began

    def send_chords(self, chords: int, members: int) -> tuple[float, int]:
        from django.db.models import Max
        from django.db.models.functions import Length

        from django_tasks import chain, chord
        from django_tasks.models import Task

        began = time.monotonic()
        headers = ([self.pass_on.s() for _ in range(members)] for _ in range(chords))
        sent = chain(self.pass_on.s(0), *(chord(header, self.pass_on.s()) for header in headers)).apply_async()
        taken = time.monotonic() - began
        # That of a body, which names what it takes in.
        sizes = Task.objects.filter(root_id=sent.root_id).aggregate(size=Max(Length("body") + Length("options")))
        return taken, int(sizes["size"])

    def send_group(self, members: int) -> float:
        from django_tasks import group

        began = time.monotonic()
        group(self.pass_on.s(number) for number in range(members)).apply_async()
        return time.monotonic() - began

    def begin(self) -> None:
        """Count results from now on."""
        from django_tasks.dashboard import database_now

        self.began = database_now()

    def limit_others(self, limited: bool) -> None:
        """Let there be limits of tasks which are not sent, or none at all."""
        from benchmarks.project.limited import concurrency, fair, rate
        from django_tasks import limits
        from django_tasks.models import Limit

        Limit.objects.all().delete()
        if limited:
            limits.declare([concurrency, rate, fair])

    def send_lingering(self, file: Path, numbers: Sequence[int], seconds: float, **options: Any) -> None:
        """Send tasks that each write their number into ``file`` and then take so long."""
        from benchmarks.project import tasks

        tasks.linger.enqueue_many([(str(file), number, seconds) for number in numbers], **options)

    def count_lost_workers(self) -> int:
        """Return how many workers were given up because their lease ran out."""
        from django_tasks.models import Worker

        return int(Worker.objects.exclude(lost_at=None).count())

    def count_ended(self) -> int:
        """Return how many tasks are done, in whatever way."""
        return int(self._results.count())

    def fill_results(self, count: int) -> None:
        """Add ``count`` copies of the newest result, each a second older than the one before."""
        from django_tasks.models import TaskResult

        self.began = self._results.latest("finished_at").finished_at
        rows.copy(TaskResult, count, {"finished_at": rows.moved("finished_at", "-n")})

    def fill_tasks(self, count: int) -> None:
        """Add ``count`` copies of the newest waiting task, due in the second after it."""
        from django_tasks.models import Task

        rows.copy(Task, count, {"due_at": rows.moved("due_at", f"n * 1.0 / {max(count, 1)}")})

    def settle(self) -> None:
        """Let the database put its tables in order."""
        rows.settle()

    @property
    def _results(self) -> Any:
        from django_tasks.models import TaskResult

        return TaskResult.objects

    def count_waiting(self) -> int:
        """Return how many tasks are not done."""
        from django_tasks.models import Task

        return int(Task.objects.count())

    def send_failing(self, count: int) -> None:
        """Send so many tasks that fail."""
        from benchmarks.project import tasks

        tasks.fail.enqueue_many([()] * count)


class WorkbeatCoroutines(Workbeat):
    """With an ``async def`` task."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        from benchmarks.project import tasks

        self.task = tasks.noop_async


class WorkbeatRedis(Workbeat):
    """With Redis in front of SQLite, and no row before the end."""

    durable = False

    def __init__(self, url: str) -> None:
        os.environ["BENCHMARK_TASKS"] = json.dumps({"BROKER_URL": url, "TASK_DURABLE": self.durable})
        super().__init__(f"sqlite:///{os.environ['BENCHMARK_DIRECTORY']}/benchmark.sqlite3")
        import redis

        self.redis = redis.Redis.from_url(url)

    def count_waiting(self) -> int:
        return sum(int(self.redis.hlen(key)) for key in self.redis.scan_iter("djt:{*}:m"))

    def fill(self, count: int, **options: Any) -> None:
        """Send so many tasks, and keep nothing of them here."""
        for start in range(0, count, 10_000):
            self.send_many(min(10_000, count - start), **options)

    def used_bytes(self) -> int:
        """Return the memory that Redis uses."""
        return int(self.redis.info("memory")["used_memory"])

    def count_keys(self) -> int:
        """Return how many keys there are in Redis."""
        return int(self.redis.dbsize())

    def count_channels(self) -> int:
        """Return how many channels of Redis somebody listens to."""
        return len(self.redis.pubsub_channels())


class WorkbeatRedisDurable(WorkbeatRedis):
    """With a row until the end, as it comes."""

    durable = True


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

    def send_many(self, count: int, **options: Any) -> Sequence[Any]:
        self.sent += count
        return super().send_many(count, **options)

    def is_done(self, task: Any) -> bool:
        return not self._tasks.filter(pk=task).exists()

    def count_done(self) -> int:
        return self.sent - int(self._tasks.count())

    @property
    def _tasks(self) -> Any:
        from django_tasks.models import Task

        return Task.objects
