"""Celery's names for what runs by a schedule: ``ScheduleEntry``, ``Scheduler``, ``DatabaseScheduler``, ``Service``.

Meanings are those of https://docs.celeryq.dev/en/stable/reference/celery.beat.html. What runs here is
:class:`DatabaseScheduler`, which is :class:`~django_tasks.beat.engine.Engine` under these names.
"""

from __future__ import annotations

import heapq
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

from .. import __version__, schedules, signals
from ..conf import settings
from ..exceptions import OperationalError
from ..models import PeriodicTask
from ..task import send_task
from . import sync
from .engine import UNAVAILABLE, Engine, close_connection
from .presence import ANSWER_EVERY, Presence

__all__ = ["DatabaseScheduler", "ModelEntry", "ScheduleEntry", "Scheduler", "Service", "beat_nodename"]

logger = logging.getLogger("django_tasks.beat")

#: Seconds between two looks for changed rows, at most: a change takes effect within five.
LOOK_EVERY = 4.0
#: Seconds before what is due is looked at again, if somebody holds it: another beat, or who edits it.
HELD_PAUSE = 0.2
#: Seconds before what failed is tried again, at first and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0


def beat_nodename(hostname: str | None = None) -> str:
    """Return the node name of a beat: ``beat@host``."""
    return hostname or f"beat@{socket.gethostname()}"


class ScheduleEntry:
    """One task of an in-memory :class:`Scheduler`, and when it ran."""

    def __init__(
        self,
        name: str | None = None,
        task: str | None = None,
        last_run_at: datetime | None = None,
        total_run_count: int | None = None,
        schedule: Any = None,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        relative: bool = False,
        app: Any = None,
    ) -> None:
        self.name = name
        self.task = task
        self.args = args or ()
        self.kwargs = dict(kwargs or {})
        self.options = dict(options or {})
        self.schedule: Any = schedules.maybe_schedule(schedule, relative)
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0

    def default_now(self) -> datetime:
        """Return the present moment by the schedule's clock."""
        found: datetime = self.schedule.now() if self.schedule is not None else datetime.now(UTC)
        return found

    def is_due(self) -> schedules.schedstate:
        """Return whether it should run now, and in how many seconds to ask again."""
        found: schedules.schedstate = self.schedule.is_due(self.last_run_at)
        return found

    def next(self, last_run_at: datetime | None = None) -> ScheduleEntry:
        """Return the entry as it is after a run."""
        fields = {**vars(self), "last_run_at": last_run_at or self.default_now()}
        return type(self)(**{**fields, "total_run_count": self.total_run_count + 1})

    __next__ = next

    def update(self, other: ScheduleEntry) -> None:
        """Take over what ``other`` says of task, schedule and arguments."""
        for name in ("task", "schedule", "args", "kwargs", "options"):
            setattr(self, name, getattr(other, name))

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def __lt__(self, other: object) -> bool:
        return isinstance(other, ScheduleEntry) and str(self.name) < str(other.name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.name} {self.task}(*{self.args!r}, **{self.kwargs!r}) {self.schedule}>"


class Scheduler:
    """Entries in the memory of one process; :class:`DatabaseScheduler` is what runs."""

    Entry: type[ScheduleEntry] = ScheduleEntry
    #: Seconds that :meth:`tick` says to sleep at most.
    max_interval: float

    def __init__(
        self,
        app: Any = None,
        schedule: dict[str, Any] | None = None,
        max_interval: float | None = None,
        lazy: bool = False,
    ) -> None:
        self.app = app
        self.max_interval = max_interval or settings.BEAT_MAX_LOOP_INTERVAL
        self.data: dict[str, Any] = {} if schedule is None else schedule
        if not lazy:
            self.setup_schedule()

    @property
    def schedule(self) -> Mapping[str, Any]:
        """The entries by name."""
        return self.data

    def setup_schedule(self) -> None:
        """Take over ``BEAT_SCHEDULE``."""
        for name, given in settings.BEAT_SCHEDULE.items():
            self.add(name=name, **given)

    def add(self, **fields: Any) -> Any:
        """Add an entry, or replace that of its name; return it."""
        entry = self.Entry(app=self.app, **fields)
        self.data[str(entry.name)] = entry
        return entry

    def tick(self) -> float:
        """Send one task if one is due; return seconds to sleep, 0 right after a dispatch."""
        ahead = [(*reversed(entry.is_due()), entry) for entry in self.data.values()]
        heapq.heapify(ahead)
        due = [entry for _, is_due, entry in ahead if is_due]
        if due:
            entry = due[0]
            self.apply_async(entry)
            self.data[str(entry.name)] = next(entry)
            return 0
        return min(self.max_interval, ahead[0][0]) if ahead else self.max_interval

    def apply_async(self, entry: ScheduleEntry) -> Any:
        """Send an entry's task; return its result's handle."""
        return send_task(str(entry.task), entry.args, entry.kwargs, **entry.options)

    def sync(self) -> None:
        """Nothing is kept outside of memory."""

    def close(self) -> None:
        """The scheduler stops."""
        self.sync()


class ModelEntry:
    """A row of :class:`~django_tasks.models.PeriodicTask` as an entry."""

    def __init__(self, model: PeriodicTask, app: Any = None) -> None:
        self.model = model
        self.name, self.task, self.schedule = model.name, model.task, model.schedule
        self.args, self.kwargs = model.arguments()
        names = ("queue", "exchange", "routing_key", "priority", "time_limit", "soft_time_limit")
        options = {name: getattr(model, name) for name in names} | {"expires": model.expires_}
        self.options = {name: value for name, value in options.items() if value is not None}
        self.total_run_count, self.last_run_at = model.total_run_count, model.last_run_at

    @classmethod
    def from_entry(cls, name: str, app: Any = None, **entry: Any) -> ModelEntry:
        """Make the row of an entry as in ``BEAT_SCHEDULE``, or bring it up to it; return it.

        Raises ``ValueError`` or ``TypeError`` for an entry that cannot be kept.
        """
        return cls(sync.store(name, entry), app)

    def is_due(self) -> schedules.schedstate:
        """Return whether the row is due, and the seconds until its next run."""
        row, now = self.model, datetime.now(UTC)
        if not row.enabled or row.next_run_at is None:
            return schedules.schedstate(False, schedules.NEVER_CHECK_TIMEOUT)
        left = (row.next_run_at - now).total_seconds()
        return schedules.schedstate(left <= 0, max(0.0, left))

    def __repr__(self) -> str:
        return f"<ModelEntry: {self.name} {self.task}(*{self.args!r}, **{self.kwargs!r}) {self.schedule}>"


class DatabaseScheduler(Scheduler):
    """Sends what the rows of ``PeriodicTask`` say, beside any number of others that do the same."""

    def __init__(
        self, app: Any = None, max_interval: float | None = None, lazy: bool = False, engine: Engine | None = None
    ) -> None:
        self.engine = engine or Engine()
        self._synced = False
        self._looked = float("-inf")
        super().__init__(app, max_interval=max_interval, lazy=lazy)

    @property
    def schedule(self) -> Mapping[str, Any]:
        """The rows that are switched on, by name, read now; those that are broken are left out."""
        found = {}
        for row in PeriodicTask.objects.enabled():
            try:
                found[row.name] = ModelEntry(row, self.app)
            except (TypeError, ValueError) as error:
                logger.error("Periodic task %s cannot be read: %s", row.name, error)
        return found

    def setup_schedule(self) -> None:
        """Bring the rows up to what the code declares."""
        try:
            sync.sync()
        except (TypeError, ValueError) as error:  # what stands in the rows already goes on
            logger.error("What the code declares to run by a schedule cannot be kept: %s", error)
        self._synced = True

    def add(self, **fields: Any) -> ModelEntry:
        """Make the row of an entry as in ``BEAT_SCHEDULE``, or bring it up to it; return it."""
        fields.pop("app", None)
        return ModelEntry.from_entry(fields.pop("name"), self.app, **fields)

    def tick(self) -> float:
        """Plan what changed, if it is time to look, and send what is due; return seconds to sleep, 0 after a dispatch.

        Raises what the database raises when it is away.
        """
        if not self._synced:
            self.setup_schedule()
        if time.monotonic() - self._looked >= min(LOOK_EVERY, self.max_interval):
            self.engine.plan()
            self._looked = time.monotonic()
        due = self.engine.next_due()
        if due is not None and self.engine.seconds_until(due) <= 0 and self.engine.fire():
            return 0
        look = self._looked + min(LOOK_EVERY, self.max_interval) - time.monotonic()
        ahead = look if due is None else self.engine.seconds_until(due)
        if ahead <= 0:
            ahead = HELD_PAUSE
        return max(0.0, min(self.max_interval, look, ahead))


class Service:
    """The loop of a beat: ticks until it is stopped, whatever becomes of the database."""

    scheduler_cls: type[Scheduler] = DatabaseScheduler

    def __init__(
        self,
        app: Any = None,
        max_interval: float | None = None,
        scheduler_cls: type[Scheduler] | None = None,
        *,
        name: str | None = None,
    ) -> None:
        self.app = app
        self.max_interval = max_interval
        self.scheduler_cls = scheduler_cls or self.scheduler_cls
        self._scheduler: Scheduler | None = None
        self._stopped = threading.Event()
        self.presence = Presence(beat_nodename(name), socket.gethostname(), os.getpid(), __version__)
        #: How many tasks a scheduler has sent that does not count them itself.
        self._sent = 0
        #: When the loop turned last, by ``time.monotonic()``.
        self.turned = time.monotonic()
        #: Why the database cannot be worked with; empty if it can.
        self.trouble = "starting: nothing was looked at yet"
        #: It was told to stop.
        self.draining = False

    @property
    def scheduler(self) -> Scheduler:
        """What knows the schedule."""
        if self._scheduler is None:
            lazy = issubclass(self.scheduler_cls, DatabaseScheduler)  # the first tick needs its database soon enough
            self._scheduler = self.scheduler_cls(self.app, max_interval=self.max_interval, lazy=lazy)
        return self._scheduler

    def start(self, embedded_process: bool = False) -> None:
        """Tick until :meth:`stop`."""
        signals.beat_init.emit(self)
        if embedded_process:
            signals.beat_embedded_init.emit(self)
        logger.info("beat: Starting...")
        pause, due = 0.0, time.monotonic()
        while not self._stopped.is_set():
            self.turned = time.monotonic()
            try:
                if self.turned >= due:
                    wait = self.turn()
                    due = time.monotonic() + wait
                    self.trouble, pause = "", 0.0
                if not self.trouble:
                    self.answer()
            except Exception as error:
                pause = min(pause * 2 or FIRST_PAUSE, LONGEST_PAUSE)
                wait = pause * random.uniform(0.5, 1.0)
                due = time.monotonic() + wait
                self.trouble = f"{type(error).__name__}: {error}".strip()
                if isinstance(error, (*UNAVAILABLE, OperationalError)):
                    logger.error("%s. Trying again in %.1f s.", self.trouble, wait)
                else:
                    logger.exception("The beat met an error of its own")
                close_connection()
            self._stopped.wait(min(max(0.0, due - time.monotonic()), ANSWER_EVERY))
        self.close()

    def turn(self) -> float:
        """Do once what there is to do; return seconds to sleep."""
        engine: Engine | None = getattr(self.scheduler, "engine", None)
        with nullcontext() if engine else self._counted():
            wait = self.scheduler.tick()
        with engine.footprints.of_no_account() if engine else nullcontext():
            self.presence.tell(sent=engine.sent if engine else self._sent, late=engine.late if engine else 0.0)
            self.presence.tidy()
        return wait

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count what this thread sends within, by whatever way."""
        own = threading.get_ident()

        def count(**about: Any) -> None:
            self._sent += threading.get_ident() == own

        signals.after_task_publish.connect(count)
        try:
            yield
        finally:
            signals.after_task_publish.disconnect(count)

    def answer(self) -> None:
        """Answer who asks whether this loop turns: ``manage.py tasks ping``."""
        self.presence.answer()

    def sync(self) -> None:
        """Have the scheduler store what it has not yet."""
        self.scheduler.sync()

    def stop(self, wait: bool = False) -> None:
        """End after this turn. Safe in a signal handler and from any thread."""
        self.draining = True
        self._stopped.set()

    def close(self) -> None:
        """Say goodbye."""
        try:
            self.scheduler.close()
            self.presence.leave()
        except UNAVAILABLE as error:
            logger.warning("The beat could not say that it stops: %s", error)
        close_connection()
        logger.info("beat: Stopped.")
