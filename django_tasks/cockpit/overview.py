"""What the overview tells: gathered in a dozen queries, kept for a second for all who look at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from .. import dashboard
from ..conf import settings
from ..dashboard import QueueNumbers
from ..doctor import OVERDUE, Problem, of_beats, of_queues, of_workers
from ..models import Beat, Limit, PeriodicTask, Task, TaskResult, Worker
from ..utils.log import escape
from . import looks, numbers
from .looks import Look, look
from .numbers import Depth, Numbers, Span

#: Seconds for which what was gathered serves all who ask.
KEPT_FOR: Final = 1.0
#: Newest failures that are grouped, and most groups, rows and lines of a panel.
FAILURES, LINES = 500, 8
#: Starts of workers that are looked through for releases, the newest ones.
STARTS: Final = 500
#: Tasks that workers hold, as many as are shown.
HELD: Final = 500
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

    @property
    def empty_in(self) -> float | None:
        """Seconds after which nothing is left at the present rate; ``None`` if it does not shrink."""
        held = self.now.waiting + self.now.scheduled + self.now.running
        return held / -self.growth if self.growth is not None and self.growth < 0 and held else None


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures of one task with one kind of exception."""

    name: str
    exception: str
    count: int
    last: datetime


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker that did not stop, and the tasks that it holds."""

    row: Worker
    status: str
    #: Seconds since its last heartbeat.
    silent_for: float
    held: Sequence[Task]


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
    failures: Sequence[FailureGroup]
    #: Are there more failures in the span than were grouped?
    more_failures: bool
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

    def slowest(self) -> list[tuple[str, Numbers]]:
        """Return the tasks with the longest 95th percentile of run times."""
        ran = [(name, each) for name, each in self.tasks.items() if each.run(0.95) is not None]
        return sorted(ran, key=lambda pair: pair[1].run(0.95) or 0.0, reverse=True)[:LINES]

    def busiest(self) -> list[tuple[str, Numbers]]:
        """Return the tasks that took most of the workers' time."""
        ran = [(name, each) for name, each in self.tasks.items() if each.run_seconds]
        return sorted(ran, key=lambda pair: pair[1].run_seconds, reverse=True)[:LINES]


_lock = threading.Lock()
_kept: dict[tuple[str, str], tuple[float, Overview]] = {}


def overview(span: Span) -> Overview:
    """Return how everything is, at most :data:`KEPT_FOR` seconds old."""
    key = (settings.DATABASE, span.name)
    with _lock:  # who comes while somebody gathers waits for that
        until, found = _kept.get(key, (0.0, None))
        if found is None or time.monotonic() >= until:
            found = gather(span)
            _kept[key] = (time.monotonic() + KEPT_FOR, found)
        return found


def forget() -> None:
    """Have the next one who asks see what is true now: somebody changed something."""
    with _lock:
        _kept.clear()


def gather(span: Span) -> Overview:
    """Ask the database."""
    workers = dashboard.current_workers()
    seen = look(workers)
    now = seen.now.timestamp()
    buckets = numbers.by_bucket(span, now)
    parts = numbers.by_task(span, now)
    depths = numbers.depths(span, now)
    held = _held(workers)
    failures, more = _failures(seen.now - timedelta(seconds=span.seconds))
    periodic = _periodic(seen.now)
    rows = [_worker(worker, seen.now, held.get(worker.pk, [])) for worker in workers]
    total = numbers.total(buckets.values())
    queues = queue_rows(span, seen, workers, numbers.grouped(parts, 0), depths)
    return Overview(
        span=span,
        look=seen,
        problems=[*_problems(seen, rows, queues, periodic), *_failing(total, span)],
        queues=queues,
        workers=rows,
        buckets=buckets,
        total=total,
        depth=depths.get("", {}),
        tasks={name: each for name, each in numbers.grouped(parts, 1).items() if name},
        failures=failures,
        more_failures=more,
        next_runs=periodic.soon,
        releases=_releases(buckets, span),
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
        each, depth = done.get(name, Numbers()), depths.get(name, {})
        took = numbers.arrivals([each], depth, buckets)
        found.append(
            QueueRow(
                now=there.get(name) or looks.empty(name, workers, seen.now),
                arriving=None if took is None else 60 * took / span.seconds,
                leaving=60 * each.ended / span.seconds,
                done=each,
                depth=_drawn(depth, depths.get("", {}), buckets),
                pause=pauses.get(name),
                growth=_growth(depth, buckets, span),
            )
        )
    return found


def paused(kind: str) -> list[Limit]:
    """Return the limits of a kind that somebody paused; the pause of some may be over."""
    return list(Limit.objects.using(settings.DATABASE).filter(kind=kind, paused_at__isnull=False)[: numbers.MOST])


# Inside --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Periodic:
    beats: Sequence[Beat]
    enabled: int
    overdue: int
    soon: Sequence[PeriodicTask]


def _periodic(now: datetime) -> _Periodic:
    enabled = PeriodicTask.objects.filter(enabled=True).order_by("next_run_at").only("name", "next_run_at")
    rows = list(enabled[: dashboard.MOST])
    timed = [row for row in rows if row.next_run_at is not None]
    overdue = sum(row.next_run_at < now - timedelta(seconds=OVERDUE) for row in timed)
    return _Periodic(list(Beat.objects.filter(stopped_at=None)), len(rows), overdue, timed[:LINES])


def _releases(buckets: Iterable[int], span: Span) -> dict[int, str]:
    """Return where workers began to run another version of this package or of the project."""
    places = {bucket: place for place, bucket in enumerate(buckets)}
    starts = Worker.objects.using(settings.DATABASE).exclude(version="").order_by("-pk")
    found: dict[int, str] = {}
    before = ""
    for started, version in list(starts.values_list("started_at", "version")[:STARTS])[::-1]:
        bucket = int(started.timestamp()) // span.step * span.step
        if before and version != before and bucket in places:
            found[places[bucket]] = version.partition(" ")[2] or version
        before = version
    return found


def _held(workers: Sequence[Worker]) -> dict[int, list[Task]]:
    claimed = Task.objects.using(settings.DATABASE).filter(worker_id__in=[worker.pk for worker in workers])
    begun = claimed.filter(started_at__isnull=False).order_by("started_at")
    found: dict[int, list[Task]] = {}
    for task in begun.only("name", "custom_id", "worker_id", "slot", "started_at", "custom_state")[:HELD]:
        if task.worker_id is not None:
            found.setdefault(task.worker_id, []).append(task)
    return found


def _worker(row: Worker, now: datetime, held: Sequence[Task]) -> WorkerRow:
    return WorkerRow(row, row.status(now), max(0.0, (now - row.beat_at).total_seconds()), held)


def _failures(since: datetime) -> tuple[list[FailureGroup], bool]:
    newest = TaskResult.objects.using(settings.DATABASE).failed().filter(finished_at__gte=since)
    rows = list(newest.order_by("-finished_at").values_list("name", "exception", "finished_at")[:FAILURES])
    groups: dict[tuple[str, str], FailureGroup] = {}
    for name, exception, at in rows:
        key = (name, exception.partition(":")[0])
        there = groups.get(key)
        groups[key] = FailureGroup(*key, 1 + (there.count if there else 0), there.last if there else at)
    ordered = sorted(groups.values(), key=lambda group: group.count, reverse=True)
    return ordered[:LINES], len(rows) == FAILURES


def _problems(
    seen: Look, workers: Sequence[WorkerRow], queues: Sequence[QueueRow], periodic: _Periodic
) -> list[Problem]:
    online = any(worker.status == "online" for worker in workers)
    found = list(of_workers(worker.status for worker in workers))
    found += of_queues([row.now for row in queues if row.pause is None], online=online)
    found += of_beats(periodic.beats, seen.now, enabled=periodic.enabled, overdue=periodic.overdue)
    if seen.unroutable:
        found.append(
            Problem(
                "names",
                "error",
                f"{seen.unroutable:,} tasks are set aside: no running worker has a task of their name.",
                "manage.py tasks doctor names them; start a worker of a release that declares them.",
            )
        )
    return found


def _failing(total: Numbers, span: Span) -> list[Problem]:
    rate = total.failure_rate
    if rate is None or rate < MANY_FAILURES or total.succeeded + total.failed < MANY_ENDS:
        return []
    text = f"{100 * rate:.0f} % of the tasks that ran within {escape(span.name)} failed: {total.failed:,}."
    cure = "manage.py tasks list --state FAILURE shows them; what was put right is run again by manage.py tasks retry."
    return [Problem("failures", "warning", text, cure)]


def _drawn(depth: Mapping[int, Depth], whole: Mapping[int, Depth], buckets: Sequence[int]) -> list[float | None]:
    """Return what waited; nothing, in buckets in which somebody looked and found the queue empty."""
    return [
        float(depth[bucket].waiting) if bucket in depth else (0.0 if bucket in whole else None) for bucket in buckets
    ]


def _growth(depth: Mapping[int, Depth], buckets: Sequence[int], span: Span) -> float | None:
    some = buckets[-max(2, TREND // span.step + 1) :]
    looked = [(bucket, depth[bucket].held) for bucket in some if bucket in depth]
    if len(looked) < 2:
        return None
    (first, before), (last, after) = looked[0], looked[-1]
    return (after - before) / (last - first)
