"""What tasks said to the log, beside the tasks: most of them say nothing, and their own rows stay narrow."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class TaskLog(models.Model):
    """Some records of one attempt, in the order of their keys. It goes when the task's line goes."""

    #: The id of the row in the to-do list or in the ledger.
    task_id = models.UUIDField(_("task"))
    attempt = models.IntegerField(_("attempt"))
    #: How many records these are.
    count = models.IntegerField(_("records"))
    #: The records as a JSON list: seconds since 1970, level, logger and text of each; level 0 tells how many are left
    #: out.
    records = models.TextField(_("contents"))

    class Meta:
        verbose_name = _("log of a task")
        verbose_name_plural = _("logs of tasks")
        indexes = (models.Index(fields=["task_id", "attempt"], name="djt_log_task"),)

    def __str__(self) -> str:
        return f"{self.task_id} {self.attempt}"
