"""A worker without processes: it claims, runs and stores by the real broker, in the thread of the test.

It does what a worker's child does with one task at a time, so a test can look at every step in between.
"""

from __future__ import annotations

import os
import socket

from django_tasks import signals
from django_tasks.backends import get_broker
from django_tasks.backends.base import Queues, WorkerInfo
from django_tasks.backends.message import Delivery, Holder, Return
from django_tasks.conf import settings
from django_tasks.executor import Execution, execute
from django_tasks.models import Task
from django_tasks.registry import tasks

#: Seconds; no test takes as long.
LEASE = 3600.0


class Worker:
    """Runs tasks of the given queues (default: all) when told to."""

    def __init__(self, *queues: str, name: str = "here@test") -> None:
        self._broker = get_broker()
        self._queues = Queues(queues)
        info = WorkerInfo(name, socket.gethostname(), os.getpid(), "solo", 1, self._queues, "test", LEASE)
        self.holder = Holder(self._broker.register(info), 0, name)
        self._unknown: set[str] = set()

    def drain(self, *, hurry: bool = True) -> int:
        """Run until nothing is due; return how many times something ran.

        With ``hurry``, what waits for its ETA or its next attempt becomes due instead of being waited for.
        """
        count = 0
        while True:
            if self.step() is not None:
                count += 1
            elif not hurry:
                return count
            elif not self.hurry():  # some of it may have become due by itself, just before that
                if self.step() is None:
                    return count
                count += 1

    def step(self) -> Execution | None:
        """Run the one task that is due first and store what became of it; ``None`` when nothing is due."""
        delivery = self.claim()
        return None if delivery is None else self.run(delivery)

    def claim(self) -> Delivery | None:
        """Take the one task that is due first."""
        # What was sent a moment ago may be in a queue that nobody has seen yet, or wait to be let through.
        if self._broker.survey(self._queues).limited:
            self._broker.admit(self._queues)
        unknown = sorted(self._unknown)
        stepped = self._broker.step([], holder=self.holder, queues=self._queues, limit=1, unknown=unknown)
        return stepped.deliveries[0] if stepped.deliveries else None

    def run(self, delivery: Delivery) -> Execution:
        """Run a claimed task and store what became of it."""
        track = getattr(tasks.get(delivery.name), "track_started", None)
        if settings.TASK_TRACK_STARTED if track is None else track:
            self._broker.mark_started({(delivery.id, delivery.attempt): 0.0})
        signals.task_received.emit(self.holder.name, request=delivery)
        execution = execute(delivery, worker=self.holder.name)
        if isinstance(execution.done, Return) and delivery.name not in tasks:
            self._unknown.add(delivery.name)
        if not execution.stored and self._broker.step([execution.done], holder=self.holder).refused:
            return execution
        if execution.after is not None:
            execution.after()
        return execution

    def hurry(self) -> int:
        """Make everything due that waits for its time; return how many tasks that was."""
        later = [str(key) for key in Task.objects.using(self._broker.alias).scheduled().values_list("pk", flat=True)]
        # A second ago: the database's clock may have a coarser tick than its answer.
        return len(self._broker.reschedule(later, delay=-1.0))
