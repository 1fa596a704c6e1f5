"""The tables behind charts: :class:`Rollup`, what became of tasks in a time, and :class:`QueueSample`, what waited."""

from __future__ import annotations

from typing import ClassVar, Final

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..fields import NameField
from .histogram import SIZE

#: What may become of an attempt that ran or was to run; ``other`` is REVOKED, IGNORED and REJECTED.
OUTCOMES: Final = ("succeeded", "failed", "retried", "other")
#: Columns that count durations, shortest first: from due to start, and from start to end.
WAITS: Final = tuple(f"wait_{place:02d}" for place in range(SIZE))
RUNS: Final = tuple(f"run_{place:02d}" for place in range(SIZE))
#: Sums of the same durations.
SECONDS: Final = ("wait_seconds", "run_seconds")
#: Every number of a rollup; all of them are added up.
NUMBERS: Final = (*OUTCOMES, *WAITS, *RUNS, *SECONDS)

MINUTE, HOUR, DAY = 60, 3_600, 86_400
#: The length of the one row that is never begun anew: what happened since the first worker.
EVER: Final = 0
#: Rows of each length in seconds are kept for so many seconds; ``None`` for ever.
KEPT: Final[dict[int, int | None]] = {MINUTE: 2 * DAY, HOUR: 60 * DAY, DAY: 730 * DAY, EVER: None}
#: Samples of queues are kept for so many seconds.
SAMPLES_KEPT: Final = 7 * DAY


class Rollup(models.Model):
    """What became of one task's calls in one queue within a minute, an hour, a day, or ever.

    Workers add to the rows of the present minute, hour and day. Attempts of one kind are counted by how they ended.
    Both names are empty for what did not fit into a worker's memory any more.
    """

    #: Seconds that it is about: 60, 3600, 86400, or 0 for ever.
    length = models.IntegerField(_("length"))
    #: When it begins, in seconds since 1970 by the database's clock.
    moment = models.BigIntegerField(_("moment"))
    queue = NameField(_("queue"), max_length=64)
    name = NameField(_("task"), max_length=255)
    succeeded = models.BigIntegerField(_("succeeded"), default=0)
    failed = models.BigIntegerField(_("failed"), default=0)
    retried = models.BigIntegerField(_("retried"), default=0)
    other = models.BigIntegerField(_("other"), default=0)
    #: Seconds between becoming due and starting, all together.
    wait_seconds = models.FloatField(_("wait time"), default=0.0)
    #: Seconds that bodies ran, all together.
    run_seconds = models.FloatField(_("run time"), default=0.0)

    objects: ClassVar[models.Manager[Rollup]] = models.Manager()

    class Meta:
        verbose_name = _("rollup")
        verbose_name_plural = _("rollups")
        constraints = (models.UniqueConstraint(fields=["length", "moment", "queue", "name"], name="djt_rollup_key"),)

    def __str__(self) -> str:
        return f"{self.name} in {self.queue}, {self.length} s from {self.moment}"


for _column in (*WAITS, *RUNS):
    Rollup.add_to_class(_column, models.BigIntegerField(default=0))


class QueueSample(models.Model):
    """What a queue held at one moment of a minute."""

    #: The beginning of the minute, in seconds since 1970 by the database's clock.
    moment = models.BigIntegerField(_("moment"))
    #: Empty for all queues together, which is there even if nothing waits.
    queue = NameField(_("queue"), max_length=64)
    #: Due, and not begun.
    waiting = models.BigIntegerField(_("waiting"))
    #: Due later.
    scheduled = models.BigIntegerField(_("scheduled"))
    running = models.BigIntegerField(_("running"))
    #: Seconds since the first of those waiting became due; 0 if none waits.
    oldest = models.FloatField(_("oldest"))

    objects: ClassVar[models.Manager[QueueSample]] = models.Manager()

    class Meta:
        verbose_name = _("sample of a queue")
        verbose_name_plural = _("samples of queues")
        constraints = (models.UniqueConstraint(fields=["moment", "queue"], name="djt_sample_key"),)

    def __str__(self) -> str:
        return f"{self.queue} at {self.moment}"
