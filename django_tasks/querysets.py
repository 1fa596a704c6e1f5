"""Questions to the to-do list, the ledger and the workers, by name."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from django.db import models
from django.db.models.functions import Now

from . import states

if TYPE_CHECKING:
    from .models import Task, TaskResult, Worker  # noqa: F401 - for the type parameters only


class TaskQuerySet(models.QuerySet["Task"]):
    """The to-do list."""

    def claimable(self) -> Self:
        """Free to be claimed once due."""
        return self.filter(state__in=sorted(states.CLAIMABLE))

    def due(self) -> Self:
        """Claimable now, by the database's clock."""
        return self.claimable().filter(due_at__lte=Now())

    def scheduled(self) -> Self:
        """Claimable later."""
        return self.claimable().filter(due_at__gt=Now())

    def running(self) -> Self:
        """Claimed by a worker."""
        return self.filter(state=states.STARTED)

    def of_worker(self, worker: int) -> Self:
        """Claimed by this worker."""
        return self.filter(worker_id=worker)

    def unroutable(self) -> Self:
        """Set aside, because no running worker knows the name."""
        return self.filter(state=states.UNROUTABLE)


class TaskResultQuerySet(models.QuerySet["TaskResult"]):
    """The ledger."""

    def finished_before(self, moment: datetime) -> Self:
        return self.filter(finished_at__lt=moment)

    def failed(self) -> Self:
        return self.filter(state=states.FAILURE)

    def with_state(self, state: str) -> Self:
        return self.filter(state=state)


class WorkerQuerySet(models.QuerySet["Worker"]):
    """The worker processes."""

    def online(self, lease: timedelta) -> Self:
        """Neither stopped nor lost: renewed within its lease."""
        return self.filter(stopped_at=None, lost_at=None, beat_at__gte=Now() - lease)
