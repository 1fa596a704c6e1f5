"""What the overview tells: gathered in a dozen queries, kept for a second for all who look at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Count, Max, Min, Q
from django.utils.translation import get_language, ngettext
from django.utils.translation import gettext as _

from .. import dashboard, looks
from ..dashboard import QueueNumbers, Taken
from ..doctor import OVERDUE, Problem, of_beats, of_broken, of_queues, of_workers
from ..failures import Failures, grouped
from ..looks import Look, look
from ..models import Beat, Limit, PeriodicTask, Task, TaskResult, Worker
from ..paging import COUNT_LIMIT
from ..replica import reads_from
from ..utils.log import escape
from . import numbers, words
from .numbers import Depth, Numbers, Span

#: Seconds for which what was gathered serves all who ask.
KEPT_FOR: Final = 1.0
#: Newest failures that are grouped, and most groups, rows and lines of a panel.
FAILURES, LINES = 500, 8
#: Starts of workers that are looked through for releases, the newest ones.
STARTS: Final = 500
#: Busy places of workers that are looked at.
HELD: Final = 2_000
#: From so many ends on, this part of failures is a word worth.
MANY_ENDS, MANY_FAILURES = 10, 0.5
#: How many seconds of samples tell whether a queue grows.
TREND: Final = 600


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue, what it holds, and how fast."""

    now: QueueNumbers
    #: Tasks in and out per minute over the span; ``None``: not known.
    arriving: float | None
    leaving: float
    done: Numbers
    #: What waited, by bucket.
    depth: Sequence[float | None]
    pause: Limit | None
    #: Tasks by which it grows per second, negative if it shrinks; ``None``: not known.
    growth: float | None
    #: What was not done when somebody looked last; ``None``: nobody did.
    sampled: int | None

    @property
    def held(self) -> int:
        """What is not done. What was only counted so far is as it was a minute ago."""
        counts = (self.now.waiting, self.now.scheduled, self.now.running)
        return sum(counts) if max(counts) <= COUNT_LIMIT else max(sum(counts), self.sampled or 0)

    @property
    def empty_in(self) -> float | None:
        """Seconds after which nothing is left at the present rate; ``None`` if it does not shrink."""
        return self.held / -self.growth if self.growth is not None and self.growth < 0 and self.held else None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker that did not stop, and what it is at."""

    row: Worker
    status: str
    #: Seconds since its last heartbeat.
    silent_for: float
    has: Taken
    #: Tasks that have run for more than about a second, longest first: the name, and for how many seconds.
    running: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Overview:
    """How everything is."""

    span: Span
    look: Look
    problems: Sequence[Problem]
    queues: Sequence[QueueRow]
    workers: Sequence[WorkerRow]
    buckets: Mapping[int, Numbers]
    total: Numbers
    #: Of all queues together, by bucket.
    depth: Mapping[int, Depth]
    tasks: Mapping[str, Numbers]
    #: The newest failures in the span.
    failures: Failures
    next_runs: Sequence[PeriodicTask]
    #: What the release is called that workers began to run in a bucket, by the number of the bucket.
    releases: Mapping[int, str]

    @property
    def now(self) -> datetime:
        """The moment, by the database's clock."""
        return self.look.now

    @property
    def slots(self) -> int:
        """How many tasks the workers that are online can run at a time."""
        return sum(worker.row.concurrency for worker in self.workers if worker.status == "online")

    @property
    def at_work(self) -> tuple[Taken, int]:
        """What workers run and have claimed that live, and how many places they have; some take nothing new."""
        alive = [worker for worker in self.workers if worker.status in ("online", "draining")]
        has = Taken(sum(worker.has.running for worker in alive), sum(worker.has.claimed for worker in alive))
        return has, sum(worker.row.concurrency for worker in alive)

    def slowest(self) -> list[tuple[str, Numbers]]:
        """Return the tasks with the longest 95th percentile of run times."""
        ran = [(name, each) for name, each in self.tasks.items() if each.run(0.95) is not None]
        return sorted(ran, key=lambda pair: pair[1].run(0.95) or 0.0, reverse=True)[:LINES]

    def busiest(self) -> list[tuple[str, Numbers]]:
        """Return the tasks that took most of the workers' time."""
        ran = [(name, each) for name, each in self.tasks.items() if each.run_seconds]
        return sorted(ran, key=lambda pair: pair[1].run_seconds, reverse=True)[:LINES]


_locks: dict[str, threading.Lock] = {}
_kept: dict[tuple[str, str, str], tuple[float, Overview]] = {}


def overview(span: Span) -> Overview:
    """Return how everything is, at most :data:`KEPT_FOR` seconds old; what is wrong is told in the active language."""
    key = (reads_from(), span.name, get_language() or "")
    with _lock():  # who comes while somebody gathers waits for that
        until, found = _kept.get(key, (0.0, None))
        if found is None or time.monotonic() >= until:
            found = gather(span)
            _kept[key] = (time.monotonic() + KEPT_FOR, found)
        return found


def forget() -> None:
    """Have the next one who asks see what is true now: somebody changed something."""
    with _lock():
        _kept.clear()


def _lock() -> threading.Lock:
    """Return the lock of the database that is read: one that does not answer keeps nobody from another."""
    return _locks.setdefault(reads_from(), threading.Lock())


def gather(span: Span) -> Overview:
    """Ask the database."""
    workers = dashboard.current_workers()
    seen = look(workers)
    now = seen.now.timestamp()
    buckets = numbers.by_bucket(span, now)
    parts = numbers.by_task(span, now)
    depths = numbers.depths(span, now)
    held = _held(workers)
    ended = TaskResult.objects.using(reads_from())
    failures = grouped(ended, seen.now - timedelta(seconds=span.seconds), seen.now, FAILURES)
    periodic = _periodic(seen.now)
    rows = [_worker(worker, seen.now, held.get(worker.pk, [])) for worker in workers]
    total = numbers.total(buckets.values())
    queues = queue_rows(span, seen, workers, numbers.grouped(parts, 0), depths)
    return Overview(
        span=span,
        look=seen,
        problems=[*_problems(seen, rows, queues, periodic), *_failing(total, failures, span)],
        queues=queues,
        workers=rows,
        buckets=buckets,
        total=total,
        depth=depths.get("", {}),
        tasks={name: each for name, each in numbers.grouped(parts, 1).items() if name},
        failures=failures,
        next_runs=periodic.soon,
        releases=releases(buckets, span),
    )


def queue_rows(
    span: Span,
    seen: Look,
    workers: Sequence[Worker],
    done: Mapping[str, Numbers],
    depths: Mapping[str, Mapping[int, Depth]],
    also: Iterable[str] = (),
    only: str | None = None,
) -> list[QueueRow]:
    """Return what there is to tell of every queue that holds something, did something, is paused, or named here; or of
    a single one. One query."""
    pauses = {limit.name: limit for limit in paused(Limit.QUEUE) if limit.is_paused(seen.now)}
    there = {queue.name: queue for queue in seen.queues}
    buckets = span.buckets(seen.now.timestamp())
    every = sorted({*there, *done, *pauses, *also} - {""})[: numbers.MOST]
    names = every if only is None else [only]
    found = []
    for name in names:
        each, depth = done.get(name, Numbers()), numbers.depth_of(depths, name)
        took = numbers.arrivals([each], depth, buckets)
        last = max(depth, default=None)
        found.append(
            QueueRow(
                now=there.get(name) or looks.empty(name, workers, seen.now),
                arriving=None if took is None else 60 * took / span.seconds,
                leaving=60 * each.ended / span.seconds,
                done=each,
                depth=[float(depth[bucket].waiting) if bucket in depth else None for bucket in buckets],
                pause=pauses.get(name),
                growth=_growth(depth, buckets, span),
                sampled=None if last is None else depth[last].held,
            )
        )
    return found


def paused(kind: str, name: str | None = None) -> list[Limit]:
    """Return the limits of a kind, or the one of that name, that somebody paused; the pause of some may be over."""
    found = Limit.objects.using(reads_from()).filter(kind=kind, paused_at__isnull=False)
    return list((found if name is None else found.filter(name=name))[: numbers.MOST])


# Inside --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Periodic:
    beats: Sequence[Beat]
    enabled: int
    overdue: int
    #: Those that could not be sent, with why.
    broken: Sequence[tuple[str, str]]
    soon: Sequence[PeriodicTask]


def _periodic(now: datetime) -> _Periodic:
    enabled = PeriodicTask.objects.filter(enabled=True).order_by("next_run_at")
    enabled = enabled.only("name", "next_run_at", "last_error")
    rows = list(enabled[: dashboard.MOST])
    timed = [row for row in rows if row.next_run_at is not None]
    overdue = sum(row.next_run_at < now - timedelta(seconds=OVERDUE) for row in timed)
    broken = sorted((row.name, row.last_error) for row in rows if row.last_error)
    return _Periodic(list(Beat.objects.filter(stopped_at=None)), len(rows), overdue, broken, timed[:LINES])


def releases(buckets: Iterable[int], span: Span) -> dict[int, str]:
    """Return where workers began to run another version of this package or of the project."""
    places = {bucket: place for place, bucket in enumerate(buckets)}
    starts = Worker.objects.using(reads_from()).exclude(version="").order_by("-pk")
    found: dict[int, str] = {}
    before = ""
    for started, version in list(starts.values_list("started_at", "version")[:STARTS])[::-1]:
        bucket = int(started.timestamp()) // span.step * span.step
        if before and version != before and bucket in places:
            found[places[bucket]] = version.partition(" ")[2] or version
        before = version
    return found


def _held(workers: Sequence[Worker]) -> dict[int, list[tuple[str, datetime | None, int]]]:
    """Return for each process of a worker that has tasks the name of one that runs there, since when, if that is told,
    and how many it has."""
    claimed = Task.objects.using(reads_from()).filter(worker_id__in=[worker.pk for worker in workers])
    begun = Max("name", filter=Q(started_at__isnull=False))
    by_place = claimed.order_by("worker_id").values("worker_id", "slot")
    places = by_place.annotate(begun=begun, since=Min("started_at"), count=Count("pk"))
    found: dict[int, list[tuple[str, datetime | None, int]]] = {}
    for worker, name, started, count in places.values_list("worker_id", "begun", "since", "count")[:HELD]:
        if worker is not None:
            found.setdefault(worker, []).append((name, started, count))
    return found


def _worker(row: Worker, now: datetime, held: Sequence[tuple[str, datetime | None, int]]) -> WorkerRow:
    begun = [(name, max(0.0, (now - at).total_seconds())) for name, at, _count in held if at is not None]
    running = sorted(begun, key=lambda pair: pair[1], reverse=True)
    has = dashboard.taken(row, (count for *_, count in held))
    return WorkerRow(row, row.status(now), max(0.0, (now - row.beat_at).total_seconds()), has, running)


def _problems(
    seen: Look, workers: Sequence[WorkerRow], queues: Sequence[QueueRow], periodic: _Periodic
) -> list[Problem]:
    online = any(worker.status == "online" for worker in workers)
    found = list(of_workers(worker.status for worker in workers))
    found += of_queues([row.now for row in queues if row.pause is None], online=online)
    found += of_broken(periodic.broken[:LINES], full=False)  # all see this who may see the overview
    if len(periodic.broken) > LINES:
        more = len(periodic.broken) - LINES
        text = ngettext(
            "%(count)s more periodic task cannot be sent.", "%(count)s more periodic tasks cannot be sent.", more
        ) % {"count": words.amount(more)}
        cure = _("manage.py tasks doctor names them; correct them in the admin.")
        found.append(Problem("beats", "error", text, cure))
    found += of_beats(periodic.beats, seen.now, enabled=periodic.enabled, overdue=periodic.overdue)
    if seen.unroutable:
        text = ngettext(
            "%(count)s task is set aside: no running worker has a task of its name.",
            "%(count)s tasks are set aside: no running worker has a task of their name.",
            seen.unroutable,
        ) % {"count": words.count(seen.unroutable)}
        cure = _("manage.py tasks doctor names them; start a worker of a release that declares them.")
        found.append(Problem("names", "error", text, cure))
    return found


def _failing(total: Numbers, newest: Failures, span: Span) -> list[Problem]:
    looked_at = sum(group.count for group in (*newest.groups, *newest.aside))
    quiet = sum(group.count for group in newest.aside) / looked_at if looked_at else 0.0
    failed = round(total.failed * (1 - quiet))
    ended = total.succeeded + failed
    if ended < MANY_ENDS or failed < MANY_FAILURES * ended:
        return []
    text = _("%(part)s of the tasks that ran within %(span)s failed: %(count)s.") % {
        "part": words.part(round(failed / ended, 2)),
        "span": escape(span.name),
        "count": words.amount(failed),
    }
    cure = _(
        "manage.py tasks list --state FAILURE shows them; what was put right is run again by manage.py tasks retry."
    )
    return [Problem("failures", "warning", text, cure, span.name)]


def _growth(depth: Mapping[int, Depth], buckets: Sequence[int], span: Span) -> float | None:
    some = buckets[-max(2, TREND // span.step + 1) :]
    looked = [(bucket, depth[bucket].held) for bucket in some if bucket in depth]
    if len(looked) < 2:
        return None
    (first, before), (last, after) = looked[0], looked[-1]
    return (after - before) / (last - first)
