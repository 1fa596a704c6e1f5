"""What was sent by a schedule, and who sends."""

from __future__ import annotations

from datetime import datetime

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..fields import UTCDateTimeField
from . import BEAT_LOST_AFTER
from .timetables import TaskDatabaseManager

__all__ = ["Beat", "PeriodicRun"]


class PeriodicRun(models.Model):
    """One run of a periodic task: for which moment, and what became of it."""

    OVERLAP, ERROR = "overlap", "error"

    periodic_task = models.ForeignKey("PeriodicTask", models.CASCADE, related_name="runs", db_index=False)
    #: The moment by the schedule; of a run by hand, that of the click.
    scheduled_for = UTCDateTimeField(_("scheduled for"))
    created_at = UTCDateTimeField(_("sent"))
    #: The id of its row in the to-do list or in the ledger; NULL: nothing was sent.
    task_id = models.UUIDField(_("task"), null=True, blank=True)
    #: Why nothing was sent: ``overlap`` or ``error``.
    skipped = models.CharField(_("skipped"), max_length=8, blank=True, default="")
    #: Somebody asked for it; the schedule goes on as if not.
    by_hand = models.BooleanField(_("by hand"), default=False)

    objects = TaskDatabaseManager()

    class Meta:
        verbose_name = _("run of a periodic task")
        verbose_name_plural = _("runs of periodic tasks")
        ordering = ("-pk",)
        indexes = (
            # The last runs of one.
            models.Index(fields=["periodic_task", "-id"], name="djt_run_latest"),
            # Which schedule sent a task.
            models.Index(fields=["task_id"], name="djt_run_task"),
            # Retention.
            models.Index(fields=["created_at"], name="djt_run_created"),
        )

    def __str__(self) -> str:
        return f"{self.periodic_task_id} {self.scheduled_for}"


class Beat(models.Model):
    """One start of a beat process, and when it was seen last."""

    #: Node name.
    name = models.CharField(_("name"), max_length=255)
    hostname = models.CharField(_("host"), max_length=255)
    pid = models.IntegerField(_("process id"))
    version = models.CharField(_("version"), max_length=64)
    started_at = UTCDateTimeField(_("started"))
    #: The last sign of life, by the database's clock.
    seen_at = UTCDateTimeField(_("last seen"))
    stopped_at = UTCDateTimeField(_("stopped"), null=True, blank=True)
    #: How many runs it has sent.
    sent = models.BigIntegerField(_("sent"), default=0)
    #: Seconds by which the latest of the runs that it sent last was late.
    late = models.FloatField(_("late"), default=0.0)

    objects = TaskDatabaseManager()

    class Meta:
        verbose_name = _("beat")
        verbose_name_plural = _("beats")
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name

    def status(self, now: datetime) -> str:
        """Return ``online``, ``stopped`` or ``lost`` at this moment of the database's clock."""
        if self.stopped_at is not None:
            return "stopped"
        return "lost" if (now - self.seen_at).total_seconds() > BEAT_LOST_AFTER else "online"
