"""The tables: ``Task``, the to-do list; ``TaskResult``, the ledger; ``Worker``, who is at work; ``Limit``, what may
start.

A task is a row of ``Task`` until it is done, then one line of ``TaskResult``, inserted once and never updated.
Finishing *moves* it: one guarded statement deletes the row, if this attempt still owns it, and inserts the line.
The hot path does so in batches, in the broker's own SQL (:mod:`django_tasks.backends.database`).
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from . import clash

clash.ensure_ours()

from django.core.exceptions import ValidationError  # noqa: E402 - PyPI's django-tasks must be found out before this
from django.db import models  # noqa: E402
from django.utils.translation import gettext_lazy as _  # noqa: E402

from . import rates, states  # noqa: E402
from .bulk_rows import BulkOperation as BulkOperation  # noqa: E402 - models have one home, whatever file it is
from .failure_rows import FailureMark as FailureMark  # noqa: E402 - models have one home, whatever file it is in
from .fields import NameField, PartialIndex, PartialUnique, UTCDateTimeField  # noqa: E402
from .log_rows import TaskLog as TaskLog  # noqa: E402
from .metrics.rows import QueueSample as QueueSample  # noqa: E402 - models have one home, whatever file they are in
from .metrics.rows import Rollup as Rollup  # noqa: E402
from .periodic.rows import PeriodicTask as PeriodicTask  # noqa: E402
from .periodic.rows import PeriodicTasks as PeriodicTasks  # noqa: E402
from .periodic.runs import Beat as Beat  # noqa: E402
from .periodic.runs import PeriodicRun as PeriodicRun  # noqa: E402
from .periodic.timetables import DAYS as DAYS  # noqa: E402
from .periodic.timetables import HOURS as HOURS  # noqa: E402
from .periodic.timetables import MICROSECONDS as MICROSECONDS  # noqa: E402
from .periodic.timetables import MINUTES as MINUTES  # noqa: E402
from .periodic.timetables import PERIOD_CHOICES as PERIOD_CHOICES  # noqa: E402
from .periodic.timetables import SECONDS as SECONDS  # noqa: E402
from .periodic.timetables import SOLAR_SCHEDULES as SOLAR_SCHEDULES  # noqa: E402
from .periodic.timetables import ClockedSchedule as ClockedSchedule  # noqa: E402
from .periodic.timetables import CronSchedule as CronSchedule  # noqa: E402
from .periodic.timetables import CrontabSchedule as CrontabSchedule  # noqa: E402
from .periodic.timetables import IntervalSchedule as IntervalSchedule  # noqa: E402
from .periodic.timetables import SolarSchedule as SolarSchedule  # noqa: E402
from .querysets import TaskQuerySet, TaskResultQuerySet, WorkerQuerySet  # noqa: E402
from .routing import validate_queue  # noqa: E402
from .view_rows import SavedView as SavedView  # noqa: E402 - models have one home, whatever file they are in


class Call(models.Model):
    """What a task and its result have in common: who asked for what, when."""

    id = models.UUIDField(_("id"), primary_key=True)
    #: The caller's own id when it is no UUID; ``id`` is then its UUIDv5 (:func:`django_tasks.ids.key_of`).
    custom_id = models.CharField(_("own id"), max_length=255, null=True, blank=True)  # noqa: DJ001 - NULL costs nothing
    name = NameField(_("task"), max_length=255)
    queue = NameField(_("queue"), max_length=64)
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
    #: By which signal its running attempt is to be ended then; NULL: it is only asked to stop.
    terminate = models.CharField(_("terminate"), max_length=16, null=True, blank=True)  # noqa: DJ001
    #: Somebody waits for its result and wants to be woken.
    awaited = models.BooleanField(_("awaited"), default=False)
    #: What ``update_state`` told: shown in place of STARTED.
    custom_state = models.CharField(_("told state"), max_length=64, null=True, blank=True)  # noqa: DJ001
    meta = models.TextField(_("progress"), null=True, blank=True)  # noqa: DJ001
    #: What limits count it under: its key, empty if it has none. NULL: no limit counts it. A row that has one and is
    #: PENDING or STARTED was let through, and holds a place.
    limit_key = NameField(_("limit key"), max_length=255, null=True, blank=True)
    #: What no second task may have while this one is not done (``unique=``), as a hash; ``+`` in front: it is to run
    #: after the one without.
    unique_key = NameField(_("unique key"), max_length=40, null=True, blank=True)

    objects = TaskQuerySet.as_manager()

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        ordering = ("-id",)
        permissions = (
            ("cancel_task", "Can cancel a task"),
            ("terminate_task", "Can end a running task by a signal"),
            ("reschedule_task", "Can change when and in which queue a task runs"),
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
            # The admin's pages of what waits for others or for its next attempt; the index above has them on MySQL.
            PartialIndex(
                fields=["state", "id"],
                name="djt_task_aside",
                where=models.Q(state__in=["RETRY", "WAITING"]),
                instead=None,
            ),
            # What a limit holds back, by key, and what it has let through.
            PartialIndex(
                fields=["state", "limit_key", "queue", "name", "-priority", "due_at"],
                name="djt_task_limited",
                where=models.Q(limit_key__isnull=False),
            ),
            # A workflow, and what a task sent.
            PartialIndex(fields=["root_id", "parent_id"], name="djt_task_root", where=models.Q(root_id__isnull=False)),
        )
        constraints = (
            models.CheckConstraint(
                name="djt_task_state",
                condition=models.Q(state__in=["PENDING", "WAITING", "UNROUTABLE", "LIMITED", "STARTED", "RETRY"]),
            ),
            PartialUnique(fields=["unique_key"], name="djt_task_unique", where=models.Q(unique_key__isnull=False)),
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
            # A workflow, and what a task sent.
            PartialIndex(
                fields=["root_id", "parent_id"], name="djt_result_root", where=models.Q(root_id__isnull=False)
            ),
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
    #: Which tasks it knows: the id of the row of ``TaskNames``. NULL: it does not tell; earlier releases do not.
    task_names = NameField(_("task names"), max_length=32, null=True, blank=True)

    objects = WorkerQuerySet.as_manager()

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        ordering = ("-id",)
        permissions = (("control_worker", "Can stop workers and tell them what to do"),)

    def __str__(self) -> str:
        return self.name

    def status(self, now: datetime) -> str:
        """Return ``online``, ``draining``, ``stopped`` or ``lost`` at this moment of the database's clock."""
        if self.stopped_at is not None:
            return "stopped"
        if self.lost_at is not None or (now - self.beat_at).total_seconds() > self.lease:
            return "lost"
        return "draining" if self.draining else "online"

    def forget(self, now: datetime) -> bool:
        """Delete the row of one that stopped or is lost at this moment; False while it holds tasks, or if it was heard
        from meanwhile."""
        gone = models.Q(stopped_at__isnull=False) | models.Q(lost_at__isnull=False)
        gone |= models.Q(beat_at__lt=now - timedelta(seconds=self.lease))
        held = Task.objects.using(self._state.db).filter(worker_id=models.OuterRef("pk"))
        rows = Worker.objects.using(self._state.db).filter(gone, ~models.Exists(held), pk=self.pk)
        return bool(rows.delete()[0])


class TaskNames(models.Model):
    """The names of the tasks that a worker knows: one row for all workers that know the same, written when they start.

    They are not in the worker's own row, which each heartbeat writes anew.
    """

    #: A hash of the names.
    id = NameField(_("id"), max_length=32, primary_key=True)
    #: A JSON list.
    names = models.TextField(_("names"))
    #: When a worker that knows them started last; a day later the row may be deleted, if no worker is of it.
    told_at = UTCDateTimeField(_("told"))

    class Meta:
        verbose_name = _("names of tasks")
        verbose_name_plural = _("names of tasks")
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.id)


class Limit(models.Model):
    """What may start of a queue or of a task, cluster-wide: how often, how many at a time, or nothing for now.

    Rows come from declarations (``rate_limit=``, ``concurrency=``, ``fair=``), written when a worker starts, or from
    people. Workers obey a change within about a second.
    """

    QUEUE, TASK = "queue", "task"

    #: ``queue`` or ``task``.
    kind = models.CharField(_("kind"), max_length=8, choices=((QUEUE, _("queue")), (TASK, _("task"))))
    #: The queue's or the task's name.
    name = NameField(_("name"), max_length=255)
    #: Most starts in a time, as in Celery: ``10/s``, ``100/m``, ``5/h``, or a number per second. Empty: no limit.
    rate = models.CharField(_("rate"), max_length=32, blank=True, default="")
    #: The rate is that of each running worker, which is Celery's meaning.
    per_worker = models.BooleanField(_("per worker"), default=False)
    #: Most that run at the same time. NULL: no limit.
    concurrency = models.IntegerField(_("concurrency"), null=True, blank=True)
    #: Rate and concurrency hold for each key by itself.
    per_key = models.BooleanField(_("per key"), default=False)
    #: The keys take turns.
    fair = models.BooleanField(_("fair"), default=False)
    #: People decided: what the code declares is noted only.
    overridden = models.BooleanField(_("overridden"), default=False)
    #: What the code declares, as JSON; empty if it declares nothing.
    declared = models.TextField(_("declared"), blank=True, default="")
    paused_at = UTCDateTimeField(_("paused"), null=True, blank=True)
    #: When the pause ends by itself; NULL: never.
    paused_until = UTCDateTimeField(_("paused until"), null=True, blank=True)
    paused_by = models.CharField(_("paused by"), max_length=255, blank=True, default="")
    pause_reason = models.CharField(_("reason"), max_length=255, blank=True, default="")

    class Meta:
        verbose_name = _("limit")
        verbose_name_plural = _("limits")
        ordering = ("kind", "name")
        permissions = (("pause_limit", "Can pause and resume queues and tasks"),)
        constraints = (models.UniqueConstraint(fields=["kind", "name"], name="djt_limit_name"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def clean(self) -> None:
        """Raises ``ValidationError`` for a rate or a concurrency that nothing could keep, and a queue that cannot
        exist."""
        if self._state.adding and self.kind == self.QUEUE:
            try:
                validate_queue(self.name)
            except ValueError as error:
                raise ValidationError({"name": str(error)}) from error
        for field, check in (("rate", rates.parse), ("concurrency", rates.validate_concurrency)):
            try:
                check(getattr(self, field))
            except (TypeError, ValueError) as error:
                raise ValidationError({field: str(error)}) from error

    def is_paused(self, now: datetime) -> bool:
        """Does nothing of it start at this moment of the database's clock?"""
        return self.paused_at is not None and (self.paused_until is None or self.paused_until > now)


class LimitState(models.Model):
    """What a limit remembers between two looks; rows that say nothing any more are deleted."""

    kind = models.CharField(_("kind"), max_length=8)
    name = NameField(_("name"), max_length=255)
    limit_key = NameField(_("limit key"), max_length=255)
    #: Of a rate: from when on the next may start. Of a fair queue: the last look. Seconds since 1970 by the database's
    #: clock.
    moment = models.FloatField(_("moment"))
    #: Of a fair queue: how many had been let through and had not started at the last look.
    ahead = models.IntegerField(_("ahead"), default=0)
    #: Of a fair queue: how many start per second.
    pace = models.FloatField(_("pace"), default=0.0)
    #: Of a fair queue: the key whose turn was last.
    turn = NameField(_("turn"), max_length=255, blank=True, default="")

    class Meta:
        verbose_name = _("state of a limit")
        verbose_name_plural = _("states of limits")
        constraints = (models.UniqueConstraint(fields=["kind", "name", "limit_key"], name="djt_limitstate_key"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.name} {self.limit_key}"


class UniquePeriod(models.Model):
    """A call that keeps others like it away for a time (``unique_for=``), also after it is done."""

    #: The hash of what must not repeat.
    unique_key = NameField(_("unique key"), max_length=40, primary_key=True)
    task_id = models.UUIDField(_("task"))
    custom_id = models.CharField(_("own id"), max_length=255, null=True, blank=True)  # noqa: DJ001
    until_at = UTCDateTimeField(_("until"))

    class Meta:
        verbose_name = _("unique period")
        verbose_name_plural = _("unique periods")
        indexes = (models.Index(fields=["until_at"], name="djt_unique_until"),)

    def __str__(self) -> str:
        return str(self.unique_key)


class TaskTag(models.Model):
    """A word by which a task is found; it is kept as long as the task is, done or not."""

    tag = NameField(_("tag"), max_length=64)
    #: The id of the row in the to-do list or in the ledger.
    task_id = models.UUIDField(_("task"))

    class Meta:
        verbose_name = _("tag")
        verbose_name_plural = _("tags")
        constraints = (models.UniqueConstraint(fields=["tag", "task_id"], name="djt_tag"),)
        indexes = (models.Index(fields=["task_id"], name="djt_tag_task"),)

    def __str__(self) -> str:
        return str(self.tag)


class Edge(models.Model):
    """One task of a workflow waits for another one. It is kept until the waiting one is done: so long its input is."""

    OK, FAILED, SKIPPED = "ok", "failed", "skipped"

    before_id = models.UUIDField(_("before"))
    after_id = models.UUIDField(_("after"))
    #: How the second depends on the first: ``after``, ``chord``, ``join`` or ``any``
    #: (:mod:`django_tasks.backends.message`).
    kind = models.CharField(_("kind"), max_length=8)
    #: What became of the first: ``ok``, ``failed``, or ``skipped`` if one before it failed; NULL while it is not done.
    outcome = models.CharField(_("outcome"), max_length=8, null=True, blank=True)  # noqa: DJ001

    class Meta:
        verbose_name = _("edge")
        verbose_name_plural = _("edges")
        indexes = (
            # What waits for a task, and whether its result is needed.
            models.Index(fields=["before_id"], name="djt_edge_before"),
            # What a task waited for.
            models.Index(fields=["after_id"], name="djt_edge_after"),
            # What it still waits for.
            PartialIndex(
                fields=["after_id"],
                name="djt_edge_open",
                where=models.Q(outcome__isnull=True),
                instead=["after_id", "outcome"],
            ),
        )

    def __str__(self) -> str:
        return f"{self.before_id} {self.kind} {self.after_id}"


class SavedGroup(models.Model):
    """The members of a group, by ``GroupResult.save()``."""

    #: The group's id, or the UUID that stands for it.
    id = models.UUIDField(_("id"), primary_key=True)
    #: ``GroupResult.as_tuple()`` as JSON.
    members = models.TextField(_("members"))
    created_at = UTCDateTimeField(_("created"))

    class Meta:
        verbose_name = _("saved group")
        verbose_name_plural = _("saved groups")
        indexes = (models.Index(fields=["created_at"], name="djt_group_created"),)

    def __str__(self) -> str:
        return str(self.id)


class Command(models.Model):
    """An order to workers (:mod:`django_tasks.control`), kept until it expires."""

    #: What to do: the name of a built-in command, or of one that a tasks module registers.
    name = models.CharField(_("name"), max_length=255)
    #: Its arguments as a JSON object.
    arguments = models.TextField(_("arguments"), default="{}")
    #: The node names that it is for, as a JSON list; NULL: all workers that were there when it was sent.
    destination = models.TextField(_("destination"), null=True, blank=True)  # noqa: DJ001 - NULL is "all"
    #: Is somebody waiting for answers?
    wants_replies = models.BooleanField(_("wants replies"), default=False)
    created_at = UTCDateTimeField(_("created"))
    #: A worker that did not see it until then never obeys it; it is deleted with its replies.
    expires_at = UTCDateTimeField(_("expires"))

    class Meta:
        verbose_name = _("command")
        verbose_name_plural = _("commands")
        ordering = ("-id",)
        indexes = (models.Index(fields=["expires_at"], name="djt_command_expires"),)

    def __str__(self) -> str:
        return self.name


class Reply(models.Model):
    """What one worker answered to a command."""

    command_id = models.BigIntegerField(_("command"))
    #: ``Worker.id``: one start of a worker answers once.
    worker_id = models.BigIntegerField(_("worker"))
    #: Its node name.
    worker = models.CharField(_("node name"), max_length=255)
    #: The answer as JSON: ``{"ok": …}``, ``{"error": "…"}``, or what the command tells.
    body = models.TextField(_("answer"))
    created_at = UTCDateTimeField(_("created"))

    class Meta:
        verbose_name = _("reply")
        verbose_name_plural = _("replies")
        constraints = (models.UniqueConstraint(fields=["command_id", "worker_id"], name="djt_reply_once"),)

    def __str__(self) -> str:
        return f"{self.worker}: {self.body[:100]}"


# Pages of the admin that are no lists of rows: each has its entry and its permissions --------------------------------


class Overview(Rollup):
    """The page that says how everything is."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("overview")
        verbose_name_plural = _("overview")


class Queue(Limit):
    """The pages of queues."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        permissions = (
            ("purge_queue", "Can delete what waits in a queue"),
            ("move_queue", "Can move what waits to another queue"),
        )


class TaskType(Rollup):
    """The pages of tasks as they are declared."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("task type")
        verbose_name_plural = _("task types")
        permissions = (("enqueue_task", "Can send a task"),)

    def __str__(self) -> str:
        return str(self.name)


class Workflow(Task):
    """The pages of workflows."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("workflow")
        verbose_name_plural = _("workflows")


class Health(Rollup):
    """The page of what is wrong."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = _("health")
        verbose_name_plural = _("health")
