"""The tables: ``Task``, the to-do list; ``TaskResult``, the ledger; ``Worker``, who is at work.

A task is a row of ``Task`` until it is done, then one line of ``TaskResult``, inserted once and never updated.
Finishing *moves* it: one guarded statement deletes the row, if this attempt still owns it, and inserts the line.
The hot path does so in batches, in the broker's own SQL (:mod:`django_tasks.backends.database`).
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from . import clash

clash.ensure_ours()

from django.db import models  # noqa: E402 - PyPI's django-tasks must be found out before anything else fails
from django.utils.translation import gettext_lazy as _  # noqa: E402

from . import states  # noqa: E402
from .fields import PartialIndex, UTCDateTimeField  # noqa: E402
from .querysets import TaskQuerySet, TaskResultQuerySet, WorkerQuerySet  # noqa: E402


class Call(models.Model):
    """What a task and its result have in common: who asked for what, when."""

    id = models.UUIDField(_("id"), primary_key=True)
    #: The caller's own id when it is no UUID; ``id`` is then its UUIDv5 (:func:`django_tasks.ids.key_of`).
    custom_id = models.CharField(_("own id"), max_length=255, null=True, blank=True)  # noqa: DJ001 - NULL costs nothing
    name = models.CharField(_("task"), max_length=255)
    queue = models.CharField(_("queue"), max_length=64)
    #: −100 to 100; higher runs first.
    priority = models.SmallIntegerField(_("priority"), default=0)
    created_at = UTCDateTimeField(_("created"))
    #: Never run after this moment.
    expires_at = UTCDateTimeField(_("expires"), null=True, blank=True)
    #: How often a worker took it. Also the fencing token: grows at each claim, and every later move names it.
    attempt = models.IntegerField(_("attempt"), default=0)
    #: How often the task itself asked to be run again.
    retries = models.IntegerField(_("retries"), default=0)
    #: Arguments as serialized text: ``[args, kwargs]``.
    body = models.TextField(_("arguments"))
    #: How ``body`` is written: empty for plain JSON, else e.g. ``msgpack`` or ``json+gzip``.
    encoding = models.CharField(_("encoding"), max_length=64, default="", blank=True)
    #: The rest of the message as JSON: headers, time limits, shadow name, what the sender said of itself.
    options = models.TextField(_("options"), null=True, blank=True)  # noqa: DJ001 - NULL is "none", and free
    #: Earlier attempts that did not end it, as a JSON list: attempt, outcome, times, worker, error.
    history = models.TextField(_("earlier attempts"), null=True, blank=True)  # noqa: DJ001
    root_id = models.UUIDField(_("root"), null=True, blank=True)
    parent_id = models.UUIDField(_("parent"), null=True, blank=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.name} {self.task_id}"

    @property
    def task_id(self) -> str:
        """The id by which the caller knows it."""
        return self.custom_id or str(self.id)

    @property
    def option_values(self) -> dict[str, Any]:
        """``options`` as a dict."""
        return json.loads(self.options) if self.options else {}

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The earlier attempts, oldest first."""
        return json.loads(self.history) if self.history else []


class Task(Call):
    """A call that is not done yet."""

    state = models.CharField(_("state"), max_length=16, default=states.PENDING)
    #: When it may run: the moment of the call, its ETA, or of the next attempt.
    due_at = UTCDateTimeField(_("due"))
    #: Who has it: ``Worker.id`` and the worker's slot.
    worker_id = models.BigIntegerField(_("worker"), null=True, blank=True)
    slot = models.IntegerField(_("slot"), null=True, blank=True)
    #: When the running attempt began, once it is worth telling: after about a second, or at once with
    #: ``track_started``.
    started_at = UTCDateTimeField(_("started"), null=True, blank=True)
    #: How many workers died over it.
    losses = models.SmallIntegerField(_("losses"), default=0)
    #: Run at most once: when its worker dies it fails, instead of running again (``acks_late=False``).
    at_most_once = models.BooleanField(_("at most once"), default=False)
    #: Somebody asked to cancel it while it ran.
    revoked_at = UTCDateTimeField(_("revoked"), null=True, blank=True)
    #: Somebody waits for its result and wants to be woken.
    awaited = models.BooleanField(_("awaited"), default=False)
    #: What ``update_state`` told: shown in place of STARTED.
    custom_state = models.CharField(_("told state"), max_length=64, null=True, blank=True)  # noqa: DJ001
    meta = models.TextField(_("progress"), null=True, blank=True)  # noqa: DJ001

    objects = TaskQuerySet.as_manager()

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        ordering = ("-id",)
        permissions = (
            ("cancel_task", "Can cancel a task"),
            ("view_payload", "Can see arguments and results of tasks"),
        )
        indexes = (
            # The claim: the best of a queue, without walking over what runs or is blocked.
            PartialIndex(
                fields=["queue", "-priority", "due_at"],
                name="djt_task_claim",
                where=models.Q(state__in=["PENDING", "RETRY"]),
            ),
            # What a worker holds: rescue, reconnect, give-back.
            PartialIndex(fields=["worker_id"], name="djt_task_worker", where=models.Q(worker_id__isnull=False)),
            # What is set aside until a worker knows its name.
            PartialIndex(
                fields=["name"],
                name="djt_task_unroutable",
                where=models.Q(state="UNROUTABLE"),
                instead=["state", "name"],
            ),
        )
        constraints = (
            models.CheckConstraint(
                name="djt_task_state",
                condition=models.Q(state__in=["PENDING", "WAITING", "UNROUTABLE", "STARTED", "RETRY"]),
            ),
        )

    @property
    def shown_state(self) -> str:
        """The state as people are told it: what the task last said of itself while it runs."""
        if self.state == states.STARTED and self.custom_state:
            return self.custom_state
        return self.state


class TaskResult(Call):
    """A call that is done: one line of the ledger, inserted once, complete, never updated."""

    state = models.CharField(_("state"), max_length=16)
    due_at = UTCDateTimeField(_("due"))
    #: When the last attempt began; ``None`` if it never ran.
    started_at = UTCDateTimeField(_("started"), null=True, blank=True)
    finished_at = UTCDateTimeField(_("finished"))
    #: Seconds the last attempt ran, by a monotonic clock.
    runtime = models.FloatField(_("run time"), null=True, blank=True)
    #: Name of the worker that ended it.
    worker = models.CharField(_("worker"), max_length=255, default="", blank=True)
    #: The return value, or the exception as data, serialized as ``result_encoding`` tells.
    result = models.TextField(_("result"), null=True, blank=True)  # noqa: DJ001
    result_encoding = models.CharField(_("result encoding"), max_length=64, default="", blank=True)
    #: Class and message of the exception in one line, for lists.
    exception = models.CharField(_("exception"), max_length=255, default="", blank=True)
    traceback = models.TextField(_("traceback"), null=True, blank=True)  # noqa: DJ001

    objects = TaskResultQuerySet.as_manager()

    class Meta:
        verbose_name = _("task result")
        verbose_name_plural = _("task results")
        ordering = ("-finished_at",)
        permissions = (("retry_taskresult", "Can run a finished task again"),)
        indexes = (
            # Retention, and the admin's pages by state.
            models.Index(fields=["state", "finished_at"], name="djt_result_state"),
            # The admin's pages by task.
            models.Index(fields=["name", "finished_at"], name="djt_result_name"),
        )


class Worker(models.Model):
    """One start of a worker process: its lease, and what it is. A worker that lost its lease never comes back as this
    row."""

    name = models.CharField(_("name"), max_length=255)
    hostname = models.CharField(_("host"), max_length=255)
    pid = models.IntegerField(_("process id"))
    pool = models.CharField(_("pool"), max_length=16)
    concurrency = models.IntegerField(_("concurrency"))
    #: What it consumes: queue names in order, separated by commas; ``*`` for all.
    queues = models.TextField(_("queues"))
    version = models.CharField(_("version"), max_length=64)
    started_at = UTCDateTimeField(_("started"))
    #: The last renewal of its lease, by the database's clock.
    beat_at = UTCDateTimeField(_("last heartbeat"))
    #: Seconds for which one renewal holds.
    lease = models.FloatField(_("lease"))
    #: A child is free: enqueueing sends a wake-up.
    idle = models.BooleanField(_("idle"), default=False)
    #: Takes nothing new any more.
    draining = models.BooleanField(_("draining"), default=False)
    stopped_at = UTCDateTimeField(_("stopped"), null=True, blank=True)
    #: When its lease ran out and its tasks were taken from it.
    lost_at = UTCDateTimeField(_("lost"), null=True, blank=True)
    processed = models.BigIntegerField(_("processed"), default=0)

    objects = WorkerQuerySet.as_manager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name

    def status(self, now: datetime) -> str:
        """Return ``online``, ``draining``, ``stopped`` or ``lost`` at this moment of the database's clock."""
        if self.stopped_at is not None:
            return "stopped"
        if self.lost_at is not None or (now - self.beat_at).total_seconds() > self.lease:
            return "lost"
        return "draining" if self.draining else "online"
