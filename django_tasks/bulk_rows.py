"""The table of bulk operations: actions on all that match, worked through in the background."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from .fields import UTCDateTimeField


class BulkOperation(models.Model):
    """An action on everything that a search found at a moment, and how far it is."""

    WAITING, RUNNING, DONE, ABORTED, FAILED = "waiting", "running", "done", "aborted", "failed"
    STATES = (
        (WAITING, _("waiting")),
        (RUNNING, _("running")),
        (DONE, _("done")),
        (ABORTED, _("aborted")),
        (FAILED, _("failed")),
    )

    #: The name of the action (:data:`django_tasks.actions.BY_NAME`).
    action = models.CharField(_("action"), max_length=32)
    #: What the action was told, as a JSON object.
    parameters = models.TextField(_("parameters"), default="{}")
    #: What was searched for, as typed, and the filters beside it, as a JSON object.
    search = models.TextField(_("search"), blank=True, default="")
    filters = models.TextField(_("filters"), default="{}")
    state = models.CharField(_("state"), max_length=8, choices=STATES, default=WAITING)
    #: The primary key and the name of the person who asked for it.
    user_id = models.CharField(_("person"), max_length=64)
    user_name = models.CharField(_("asked for by"), max_length=255)
    #: What came after this moment is not touched, and ages count from it.
    created_at = UTCDateTimeField(_("created"))
    started_at = UTCDateTimeField(_("started"), null=True, blank=True)
    finished_at = UTCDateTimeField(_("finished"), null=True, blank=True)
    #: Somebody wants it to stop after the present batch.
    abort_at = UTCDateTimeField(_("asked to stop"), null=True, blank=True)
    aborted_by = models.CharField(_("stopped by"), max_length=255, blank=True, default="")
    #: The last row that was worked on; empty at the beginning.
    after = models.CharField(_("position"), max_length=64, blank=True, default="")
    #: How many rows matched in the beginning; NULL: more than could be counted at once.
    total = models.BigIntegerField(_("rows"), null=True, blank=True)
    changed = models.BigIntegerField(_("changed"), default=0)
    #: Rows that were left alone, and how many of them for which reason, as a JSON object.
    left = models.BigIntegerField(_("left alone"), default=0)
    reasons = models.TextField(_("reasons"), default="{}")
    #: Why it cannot go on.
    error = models.TextField(_("error"), blank=True, default="")

    class Meta:
        verbose_name = _("bulk operation")
        verbose_name_plural = _("bulk operations")
        ordering = ("-id",)
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.action} {self.pk}"

    @property
    def is_active(self) -> bool:
        """Is there more to come?"""
        return self.state in (self.WAITING, self.RUNNING)

    @property
    def seen(self) -> int:
        """How many rows it has worked on."""
        return self.changed + self.left
