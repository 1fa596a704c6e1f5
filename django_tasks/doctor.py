"""What is wrong with a site, each problem in a sentence with the command that cures it (``manage.py tasks doctor``).

Sentences are in the language that is active where they are made: pages show them in the reader's, and commands and JSON
make them in English, by which people search. What servers and exceptions say is repeated as it is, and so is which
values a setting may have.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from django.conf import settings as django_settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, Error, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Max
from django.db.models.functions import Length
from django.utils import formats
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from . import backends, dashboard, paging, task_names
from .checks import TAG
from .conf import check_settings, settings
from .exceptions import OperationalError
from .looks import look
from .models import Beat, PeriodicTask, Task, TaskResult, Worker
from .querysets import TaskQuerySet
from .registry import tasks
from .replica import LAG, replica
from .sentences import told
from .utils.log import escape

#: Seconds by which the clocks of this machine and of the database may differ.
SKEW: Final = 2.0
#: Seconds that the oldest task of a queue may wait although workers consume it.
LONG_WAIT: Final = 300.0
#: Seconds after which a periodic task that was not sent is overdue.
OVERDUE: Final = 60.0
#: Seconds for which it is counted how many more wait behind those that are set aside; no index tells.
COUNTING: Final = 0.1
#: Newest rows whose sizes are looked at, and the part of ``PAYLOAD_LIMIT`` from which one is worth a word.
SAMPLE: Final = 1_000
LARGE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong."""

    #: Which look found it: ``settings``, ``broker``, ``database``, ``migrations``, ``sqlite``, ``clock``, ``workers``,
    #: ``beats``, ``rescue``, ``queues``, ``names``, ``payloads`` or ``replica``.
    check: str
    #: ``error``: tasks do not run as they should; ``warning``: they may not tomorrow.
    level: str
    #: In one sentence or two, in the language that was active.
    problem: str
    #: What to do, a command wherever one does it, in that language.
    cure: str
    #: The name of the queue or of the periodic task, the key of the worker or of the task, or since when, as ``1h``;
    #: ``""`` if it is about nothing of that.
    about: str = ""


def examine(*, full: bool = True) -> list[Problem]:
    """Look at everything and return what is wrong, ``[]`` when nothing is. What needs the database is left out when it
    cannot be reached or lacks its tables.

    ``full=False`` leaves out what errors say, which may quote arguments, and tells their classes only. Sentences are in
    the active language.
    """
    found = list(_settings())
    if check_settings() or settings.DATABASE not in connections:
        return found
    of_rows = (_clock, _workers, partial(_beats, full), _scheduled_names, _rescue, _queues, _names, _payloads, _replica)
    found += list(_broker())
    steps: tuple[tuple[Callable[[], Iterator[Problem]], ...], ...] = ((_database,), (_migrations, _sqlite), of_rows)
    for looks in steps:
        found += [problem for look in looks for problem in _look(look)]
        if any(problem.check in ("database", "migrations") for problem in found):
            break
    return found


def _look(look: Callable[[], Iterator[Problem]]) -> list[Problem]:
    try:
        return list(look())
    except DatabaseError as error:
        return [_unreachable(error)]


def _unreachable(error: DatabaseError) -> Problem:
    return Problem(
        "database",
        "error",
        _("The database %(database)s cannot be used: %(error)s")
        % {"database": repr(settings.DATABASE), "error": escape(str(error).strip())},
        _("See to the server and to DATABASES[%(database)s]; manage.py dbshell%(option)s fails the same way.")
        % {"database": repr(settings.DATABASE), "option": _option()},
    )


def _settings() -> Iterator[Problem]:
    for message in checks.run_checks(tags=[TAG], include_deployment_checks=True):
        level = "error" if message.is_serious() else "warning"
        text = told(message.msg) if not message.id else f"{told(message.msg)} ({message.id})"
        hint = told(message.hint) if message.hint else ""
        cure = hint or _("Correct the setting; manage.py check --deploy tells whether all is well.")
        yield Problem("settings", level, text, cure)


def _broker() -> Iterator[Problem]:
    """What the server lacks is found by a check; this finds that it is away."""
    try:
        backends.unfit(settings.BROKER_URL)
    except OperationalError as error:
        cure = _(
            "Start it, or correct DJANGO_TASKS['BROKER_URL']; what was sent meanwhile is published once it is back."
        )
        yield Problem("broker", "error", escape(str(error)), cure)
    except ImproperlyConfigured:
        pass


def _database() -> Iterator[Problem]:
    with connections[settings.DATABASE].cursor() as cursor:
        cursor.execute("SELECT 1")
    yield from ()


def _migrations() -> Iterator[Problem]:
    executor = MigrationExecutor(connections[settings.DATABASE])
    plan = executor.migration_plan([leaf for leaf in executor.loader.graph.leaf_nodes() if leaf[0] == "django_tasks"])
    if plan:
        names = ", ".join(migration.name for migration, _backwards in plan if migration.app_label == "django_tasks")
        yield Problem(
            "migrations",
            "error",
            _("The tables of django_tasks are not up to date: %(migrations)s not applied.") % {"migrations": names},
            f"manage.py migrate django_tasks{_option()}",
        )


def _sqlite() -> Iterator[Problem]:
    connection = connections[settings.DATABASE]
    if connection.vendor != "sqlite":
        return
    if connection.is_in_memory_db():  # type: ignore[attr-defined]
        yield Problem(
            "sqlite",
            "error",
            _("DATABASES[%(database)s] is in the memory of this process: no worker can see its tasks.")
            % {"database": repr(settings.DATABASE)},
            _("Give DATABASES['NAME'] the path of a file."),
        )
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        mode = cursor.fetchone()[0]
    if mode != "wal":
        yield Problem(
            "sqlite",
            "warning",
            _("The database file is in journal mode %(mode)s: while one process reads, no other can write.")
            % {"mode": mode},
            _("manage.py runworker: the first worker switches the file to write-ahead mode, for good."),
        )


def _clock() -> Iterator[Problem]:
    before = time.time()
    there = dashboard.database_now().timestamp()
    after = time.time()
    skew = there - (before + after) / 2
    if abs(skew) > SKEW + (after - before) / 2:
        ahead = _(
            "The database's clock is %(seconds)s s ahead of this machine's: a time given as eta or expires by the "
            "clock here comes at another moment there."
        )
        behind = _(
            "The database's clock is %(seconds)s s behind this machine's: a time given as eta or expires by the "
            "clock here comes at another moment there."
        )
        yield Problem(
            "clock",
            "warning",
            (ahead if skew > 0 else behind) % {"seconds": _number(abs(skew), 1)},
            _("Let both machines follow a time server, e.g. timedatectl set-ntp true."),
        )


def _workers() -> Iterator[Problem]:
    now = dashboard.database_now()
    yield from of_workers(worker.status(now) for worker in dashboard.current_workers())


def of_workers(statuses: Iterable[str]) -> Iterator[Problem]:
    """Judge the workers that did not stop, by what each of them is."""
    if "online" not in statuses:
        yield Problem("workers", "error", _("No worker is online: nothing runs."), "manage.py runworker")


def _beats(full: bool) -> Iterator[Problem]:
    now = dashboard.database_now()
    enabled = PeriodicTask.objects.filter(enabled=True)
    broken = enabled.exclude(last_error="").order_by("name")
    yield from of_broken(broken.values_list("name", "last_error")[: dashboard.MOST], full=full)
    overdue = enabled.filter(next_run_at__lt=now - timedelta(seconds=OVERDUE)).count()
    yield from of_beats(Beat.objects.filter(stopped_at=None), now, enabled=enabled.count(), overdue=overdue)


def of_broken(broken: Iterable[tuple[str, str]], *, full: bool) -> Iterator[Problem]:
    """Judge the enabled periodic tasks that could not be sent, by their names and errors; what an error says may quote
    arguments, so ``full=False`` leaves it out."""
    for name, error in broken:
        why = escape(error if full else error.partition(":")[0])
        text = _("Periodic task %(name)s cannot be sent: %(error)s") % {"name": escape(name), "error": why}
        yield Problem("beats", "error", text, _("Correct it in the admin."), name)


def of_beats(beats: Iterable[Beat], now: datetime, *, enabled: int, overdue: int) -> Iterator[Problem]:
    """Judge the beats that did not stop, when so many periodic tasks are enabled, and so many of them overdue."""
    beats = list(beats)
    if not any(beat.status(now) == "online" for beat in beats):
        if enabled:
            text = ngettext(
                "No beat is online: %(count)s periodic task will not run.",
                "No beat is online: %(count)s periodic tasks will not run.",
                enabled,
            ) % {"count": _number(enabled)}
            if beats:
                last = max(beats, key=lambda beat: beat.seen_at)
                seen = _("%(beat)s was last seen %(seconds)s s ago: it stands still, or was killed.")
                ago = _number((now - last.seen_at).total_seconds())
                text = f"{text} {seen % {'beat': escape(last.name), 'seconds': ago}}"
            yield Problem("beats", "error", text, _("manage.py runbeat, or manage.py runworker --beat"))
    elif overdue:
        text = ngettext(
            "%(count)s periodic task is overdue although a beat is online.",
            "%(count)s periodic tasks are overdue although a beat is online.",
            overdue,
        ) % {"count": _number(overdue)}
        yield Problem("beats", "error", text, _("The log of runbeat tells why; restart it."))


def _scheduled_names() -> Iterator[Problem]:
    """Judge the names of enabled periodic tasks; without a worker that tells what it knows nothing can be said."""
    rows = PeriodicTask.objects.filter(enabled=True).order_by("name").values_list("name", "task")
    unknown = [row for row in rows if row[1] not in tasks]
    known = task_names.of_workers() if unknown else None
    if known is None or not known.certain:
        return
    lost = [row for row in unknown if row[1] not in known.workers][: dashboard.MOST]
    meant = {task: task_names.close_to(task, known) for task in {task for _name, task in lost}}
    for name, task in lost:
        text = _(
            "Periodic task %(name)s names the task %(task)s, which neither this site nor a running worker knows: what "
            "it sends waits."
        ) % {"name": escape(name), "task": escape(task)}
        if close := meant[task]:
            hint = _("Did you mean %s?") % escape(close)
            text = f"{text} {hint}"
        cure = _("Correct the name, or start a worker of a release that declares it: manage.py runworker")
        yield Problem("beats", "warning", text, cure, name)


def _rescue() -> Iterator[Problem]:
    """Tasks held by a worker that is gone go back to their queues within a lease and a look; any longer is a defect."""
    now = dashboard.database_now()
    held = dict(_to_do().running().order_by().values_list("worker_id").annotate(Count("pk")))
    workers = {row.pk: row for row in Worker.objects.using(settings.DATABASE).filter(pk__in=[pk for pk in held if pk])}
    online = any(worker.status(now) == "online" for worker in dashboard.current_workers())
    for pk, count in held.items():
        worker = workers.get(pk) if pk else None
        if worker is not None and not _is_overdue(worker, now):
            continue
        yield Problem(
            "rescue",
            "error",
            _held(count, worker, online=online),
            _("Restart the workers; their logs tell why the rescue fails.") if online else "manage.py runworker",
            str(pk) if worker is not None else "",
        )


def _held(count: int, worker: Worker | None, *, online: bool) -> str:
    if worker is None:
        holder = _("by no worker that is known")
    else:
        holder = _("by worker %(worker)s, which is gone") % {"worker": escape(worker.name)}
    if online:
        text = ngettext(
            "%(count)s task held %(holder)s, and nobody takes it back, although workers are online.",
            "%(count)s tasks held %(holder)s, and nobody takes them back, although workers are online.",
            count,
        )
    else:
        text = ngettext(
            "%(count)s task held %(holder)s, and nobody takes it back.",
            "%(count)s tasks held %(holder)s, and nobody takes them back.",
            count,
        )
    return text % {"count": _counted(count), "holder": holder}


def _is_overdue(worker: Worker, now: datetime) -> bool:
    if worker.status(now) in ("online", "draining"):
        return False
    since = worker.stopped_at or worker.lost_at or worker.beat_at
    grace = max(worker.lease, settings.WORKER_LEASE) + 3 * settings.WORKER_RESCUE_INTERVAL
    return bool((now - since).total_seconds() > grace)


def _queues() -> Iterator[Problem]:
    workers = dashboard.current_workers()
    seen = look(workers)
    online = any(worker.status(seen.now) == "online" for worker in workers)
    yield from of_queues(seen.queues, online=online)


def of_queues(queues: Iterable[dashboard.QueueNumbers], *, online: bool) -> Iterator[Problem]:
    """Judge what waits in queues; without any worker ``online`` that is told elsewhere."""
    for queue in queues:
        wait = queue.oldest_wait or 0
        facts = {
            "queue": escape(queue.name),
            "count": _counted(queue.waiting),
            "minutes": _number(wait / 60),
        }
        if queue.waiting and not queue.workers and online:
            yield Problem(
                "queues",
                "error",
                ngettext(
                    "Queue %(queue)s has %(count)s task waiting, and no online worker consumes it.",
                    "Queue %(queue)s has %(count)s tasks waiting, and no online worker consumes it.",
                    queue.waiting,
                )
                % facts,
                f"manage.py runworker -Q {escape(queue.name)}",
                queue.name,
            )
        elif queue.waiting and queue.workers and wait > LONG_WAIT:
            yield Problem(
                "queues",
                "warning",
                ngettext(
                    "Queue %(queue)s has %(count)s task waiting, the oldest for %(minutes)s min: its workers do not "
                    "keep up.",
                    "Queue %(queue)s has %(count)s tasks waiting, the oldest for %(minutes)s min: its workers do not "
                    "keep up.",
                    queue.waiting,
                )
                % facts,
                _("manage.py runworker -Q %(queue)s on one more machine, or with a higher --concurrency.") % facts,
                queue.name,
            )


def _names() -> Iterator[Problem]:
    found = _to_do().unroutable().order_by("name").values_list("name").annotate(Count("pk"))
    set_aside = list(found[: dashboard.MOST])
    # Who has met a name that it does not know leaves the others of that name where they are.
    others = _to_do().claimable().filter(name__in=[name for name, _count in set_aside]).order_by()
    behind: dict[str, int] = {}
    with contextlib.suppress(paging.TooSlow), paging.time_limit(settings.DATABASE, COUNTING):
        behind = dict(others.values_list("name").annotate(Count("pk")))
    for name, count in set_aside:
        cure = _(
            "Start a worker of a release that declares it (manage.py runworker), or cancel: manage.py tasks revoke "
            "--unroutable %(name)s"
        )
        yield Problem("names", "error", _set_aside(name, count, behind.get(name)), cure % {"name": escape(name)})


def _set_aside(name: str, count: int, behind: int | None) -> str:
    if behind is None:
        text = ngettext(
            "%(count)s task named %(name)s is set aside: no running worker has a task of that name.",
            "%(count)s tasks named %(name)s are set aside: no running worker has a task of that name.",
            count,
        )
    else:
        text = ngettext(
            "%(count)s task named %(name)s is set aside, and %(more)s more wait: no running worker has a task of that "
            "name.",
            "%(count)s tasks named %(name)s are set aside, and %(more)s more wait: no running worker has a task of "
            "that name.",
            count,
        )
    return text % {"count": _counted(count), "name": repr(escape(name)), "more": _number(behind or 0)}


def _payloads() -> Iterator[Problem]:
    sizes: dict[str, tuple[int, str]] = {}
    for rows in (_to_do(), TaskResult.objects.using(settings.DATABASE)):
        newest = rows.order_by("-pk").annotate(size=Length("body")).values_list("name", "size", "pk")[:SAMPLE]
        for name, size, pk in newest:
            sizes[name] = max(sizes.get(name, (0, "")), (size, str(pk)))
    for name, (size, example) in sorted(sizes.items()):
        if size > LARGE * settings.PAYLOAD_LIMIT:
            yield Problem(
                "payloads",
                "warning",
                _(
                    "Task %(name)s was sent with %(size)s characters of arguments; DJANGO_TASKS['PAYLOAD_LIMIT'] "
                    "allows %(limit)s bytes."
                )
                % {"name": escape(name), "size": _number(size), "limit": _number(settings.PAYLOAD_LIMIT)},
                _("Store the data and send their key. See manage.py tasks show %(task)s") % {"task": example},
                example,
            )


def _counted(count: int) -> str:
    """Return how many; what was only counted so far says so."""
    if count > paging.COUNT_LIMIT:
        return _("more than %(count)s") % {"count": _number(paging.COUNT_LIMIT)}
    return _number(count)


def _number(value: float, places: int = 0) -> str:
    if not django_settings.USE_I18N:  # sentences are English then, and get_format() would go by LANGUAGE_CODE
        return f"{value:,.{places}f}"
    return formats.number_format(f"{value:.{places}f}", use_l10n=True, force_grouping=True)


def of_replica(error: Exception | str) -> Problem:
    """Say that pages cannot read from the replica."""
    facts = {"database": repr(settings.ADMIN_READ_DB), "error": escape(str(error).strip())}
    text = _("The database %(database)s, from which pages of the admin read (ADMIN_READ_DB), cannot be used: %(error)s")
    cure = _("See to its server; without DJANGO_TASKS['ADMIN_READ_DB'] they read from %(database)s.")
    return Problem("replica", "error", text % facts, cure % {"database": repr(settings.DATABASE)})


def _replica() -> Iterator[Problem]:
    """Whoever replicates, heartbeats arrive there as often as workers send them."""
    alias = replica()
    if alias is None:
        return
    newest = _newest_heartbeat(settings.DATABASE)
    try:
        copied = _newest_heartbeat(alias)
    except Error as error:
        yield of_replica(error)
        return
    fair = timedelta(seconds=LAG + 2 * settings.WORKER_HEARTBEAT_INTERVAL)
    if newest is None or (copied is not None and newest - copied <= fair):
        return
    facts = {"replica": repr(alias), "database": repr(settings.DATABASE)}
    if copied is None:
        text = _("The database %(replica)s (ADMIN_READ_DB) has no worker of those in %(database)s.") % facts
    else:
        text = _("The database %(replica)s (ADMIN_READ_DB) is %(seconds)s s behind %(database)s.") % {
            **facts,
            "seconds": _number((newest - copied).total_seconds()),
        }
    yield Problem("replica", "warning", text, _("See to the replication: pages of the admin show what was."))


def _newest_heartbeat(alias: str) -> datetime | None:
    return Worker.objects.using(alias).aggregate(newest=Max("beat_at"))["newest"]  # type: ignore[no-any-return]


def _option() -> str:
    return "" if settings.DATABASE == "default" else f" --database {settings.DATABASE}"


def _to_do() -> TaskQuerySet[Task]:
    return Task.objects.using(settings.DATABASE)
