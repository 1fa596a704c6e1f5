"""Questions to the to-do list, the ledger and the workers, by name."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final, Self, TypeVar

from django.db import models
from django.db.models import F, Lookup, Q
from django.db.models.expressions import Func

from . import states

M = TypeVar("M", bound=models.Model)


class SpelledIn(Lookup):
    """Is it one of these words of ours? They are written out: SQLite takes a partial index only if what it is of is
    asked for word for word."""

    prepare_rhs = False

    def as_sql(self, compiler: Any, connection: Any, template: str = "{} IN ({})") -> Any:
        left, params = self.process_lhs(compiler, connection)
        return template.format(left, ", ".join(f"'{word}'" for word in self.rhs)), params

    def as_mysql(self, compiler: Any, connection: Any) -> Any:
        """Keep it from choosing an index: MariaDB and MySQL have no partial ones, and would walk past the tasks of all
        other queues in one that begins with the state, rather than look up those of a queue."""
        return self.as_sql(compiler, connection, template="COALESCE({}) IN ({})")


def one_of(*names: str) -> Q:
    """Return the condition that the state is one of these."""
    return Q(SpelledIn(F("state"), names))


#: What a state of the to-do list says of other columns, or of itself: the partial indexes serve only who asks for both.
IMPLIED: Final = {
    # SQLite prefers an index that a bound narrows.
    states.STARTED: Q(worker_id__isnull=False, worker_id__gt=0),
    states.LIMITED: Q(limit_key__isnull=False),
    states.UNROUTABLE: one_of(states.UNROUTABLE) & Q(name__gt=""),
    **dict.fromkeys((states.RETRY, states.WAITING), one_of(states.RETRY, states.WAITING)),
}
#: The condition of the claim index.
FREE: Final = one_of(states.PENDING, states.RETRY)


class DatabaseNow(Func):
    """The database's own clock, by which all moments of this package are compared; UTC where columns have no zone."""

    output_field = models.DateTimeField()
    template = "%(function)s"

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="statement_timestamp()", **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(
            compiler, connection, template="strftime('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f', 'now')", **context
        )

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **context)


class TaskQuerySet(models.QuerySet[M]):
    """The to-do list."""

    def with_state(self, state: str) -> Self:
        """In this state, along the index of those in it if there is one."""
        return self.filter(IMPLIED.get(state, Q()), state=state)

    def claimable(self) -> Self:
        """Free to be claimed once due."""
        return self.filter(state__in=sorted(states.CLAIMABLE))

    def purgeable(self) -> Self:
        """Claimable once due, held back by a limit, or set aside: what emptying a queue deletes."""
        return self.filter(state__in=sorted(states.CLAIMABLE | {states.UNROUTABLE, states.LIMITED}))

    def limited(self) -> Self:
        """Held back by a limit or a pause."""
        return self.with_state(states.LIMITED)

    def due(self) -> Self:
        """Claimable now, by the database's clock."""
        return self.claimable().filter(due_at__lte=DatabaseNow())

    def scheduled(self) -> Self:
        """Claimable later."""
        return self.claimable().filter(due_at__gt=DatabaseNow())

    def running(self) -> Self:
        """Claimed by a worker."""
        return self.with_state(states.STARTED)

    def of_worker(self, worker: int) -> Self:
        """Claimed by this worker."""
        return self.filter(worker_id=worker)

    def unroutable(self) -> Self:
        """Set aside, because no running worker knows the name."""
        return self.filter(state=states.UNROUTABLE)


class TaskResultQuerySet(models.QuerySet[M]):
    """The ledger."""

    def finished_before(self, moment: datetime) -> Self:
        """Older than this."""
        return self.filter(finished_at__lt=moment)

    def failed(self) -> Self:
        """Ended as FAILURE."""
        return self.filter(state=states.FAILURE)

    def with_state(self, state: str) -> Self:
        """Ended in this state."""
        return self.filter(state=state)


class WorkerQuerySet(models.QuerySet[M]):
    """The worker processes."""

    def online(self, lease: timedelta) -> Self:
        """Neither stopped nor lost: renewed within its lease."""
        return self.filter(stopped_at=None, lost_at=None, beat_at__gte=DatabaseNow() - lease)
