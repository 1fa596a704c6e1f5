"""What the panels of pages show: charts, cards and lines, made of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import states
from ..dashboard import QueueNumbers
from ..failures import Kind
from ..metrics.histogram import BOUNDS
from ..search import words_for_failures
from . import charts, words
from .charts import NO_MARKS, Chart, Line, Marks
from .numbers import Depth, Numbers, Span
from .overview import LINES, Overview, QueueRow

#: How far back the page of failures is to look for what a span shows.
FAILURES: Final = {"1h": "?since=1h", "6h": "?since=1d", "24h": "?since=1d", "7d": "?since=7d", "30d": "?since=30d"}


@dataclass(frozen=True, slots=True)
class Card:
    """One number that matters."""

    label: str
    value: str
    note: str = ""
    spark: str = ""
    #: ``bad`` draws the eye.
    kind: str = ""
    #: The page that tells more: the end of its address's name, what it is of, and what is asked of it.
    page: str = ""
    key: str = ""
    query: str = ""


def of_overview(found: Overview) -> dict[str, Any]:
    """Return what the overview's template shows."""
    return {
        "found": found,
        "cards": _cards(found),
        "charts": [
            throughput(found.span, found.buckets, "throughput", found.releases),
            waiting(found.span, found.buckets, found.depth, "waiting", found.releases),
            waits(found.span, found.buckets, "waits", found.releases),
            runs(found.span, found.buckets, "runs", found.releases),
        ],
        "queues": [QueueLine.of(row) for row in found.queues],
        "failures": [(group, *_found_by(group.kind, found.span)) for group in found.failures.groups[:LINES]],
        "failures_query": FAILURES.get(found.span.name, ""),
        "workers": found.workers,
        "slowest": found.slowest(),
        "busiest": found.busiest(),
    }


def _found_by(kind: Kind, span: Span) -> tuple[str, bool]:
    """Return what the list of results is asked to show the failures of a group, and whether it shows no others."""
    asked = words_for_failures(kind)
    words_ = f"since:{span.name}" if asked is None else f"since:{span.name} {asked}"
    return urlencode({"state": states.FAILURE, "name": kind.name, "q": words_}), asked is not None


def _cards(found: Overview) -> list[Card]:
    values = list(found.buckets.values())
    waiting_ = _depth_line(found.buckets, found.depth)
    oldest = max((queue for queue in found.look.queues if queue.oldest_wait is not None), key=_wait, default=None)
    online = sum(worker.status == "online" for worker in found.workers)
    lost = sum(worker.status == "lost" for worker in found.workers)
    failed = found.total.failed
    has, places = found.at_work
    of_places = _("of %s places") % words.count(places)
    return [
        Card(
            _("Waiting"),
            words.count(found.look.waiting),
            spark=charts.spark(waiting_, _("Waiting tasks over time")),
            page="queue_changelist",
        ),
        Card(
            _("Running"),
            words.count(has.running),
            f"{of_places}, {words.claimed(has.claimed)}" if has.claimed else of_places,
            page="task_changelist",
            query="?state=STARTED",
        ),
        Card(
            _("Scheduled"),
            words.count(found.look.scheduled),
            _("due later"),
            page="task_changelist",
            query="?state=PENDING",
        ),
        Card(
            _("Failed"),
            words.amount(failed),
            words.part(found.total.failure_rate),
            charts.spark([float(each.failed) for each in values], _("Failures over time")),
            "bad" if failed else "",
            page="taskresult_failures",
            query=FAILURES.get(found.span.name, ""),
        ),
        Card(
            _("Oldest wait"),
            words.duration(oldest.oldest_wait if oldest else None),
            oldest.name if oldest else "",
            page="queue_change" if oldest else "",
            key=oldest.name if oldest else "",
        ),
        Card(
            _("Workers"),
            words.amount(online),
            ngettext("%s lost", "%s lost", lost) % lost if lost else _("online"),
            kind="bad" if lost or not online else "",
            page="worker_changelist",
        ),
    ]


def _wait(queue: QueueNumbers) -> float:
    return queue.oldest_wait or 0.0


@dataclass(frozen=True, slots=True)
class QueueLine:
    """A queue as a line of a table."""

    name: str
    waiting: str
    scheduled: str
    running: str
    set_aside: str
    oldest: str
    arriving: str
    leaving: str
    workers: int
    wait: str
    failures: str
    trend: str
    spark: str
    paused: bool
    #: Nobody consumes what waits.
    stuck: bool

    @classmethod
    def of(cls, row: QueueRow) -> QueueLine:
        """Return a queue's line."""
        now = row.now
        return cls(
            name=now.name,
            waiting=words.count(now.waiting),
            scheduled=words.count(now.scheduled),
            running=words.count(now.running),
            set_aside=words.count(now.limited + now.unroutable),
            oldest=words.duration(now.oldest_wait),
            arriving="–" if row.arriving is None else words.amount(row.arriving),
            leaving=words.amount(row.leaving),
            workers=now.workers,
            wait=words.duration(row.done.wait(0.95)),
            failures=words.part(row.done.failure_rate),
            trend=trend(row),
            spark=charts.spark(row.depth, _("Waiting tasks in %s over time") % now.name),
            paused=row.pause is not None,
            stuck=bool(now.waiting and not now.workers),
        )


def trend(row: QueueRow) -> str:
    """Say whether a queue grows, or when it will be empty."""
    if row.empty_in is not None:
        return _("empty in about %s") % words.duration(row.empty_in)
    if row.growth and row.growth > 0 and row.held:
        return _("growing by %s per minute") % words.amount(60 * row.growth)
    return ""


# Charts --------------------------------------------------------------------------------------------------------------


def labels(span: Span, buckets: Mapping[int, Any]) -> list[str]:
    """Return the beginnings of buckets as text."""
    return [words.clock(bucket, day=span.step >= 3_600) for bucket in buckets]


def throughput(span: Span, buckets: Mapping[int, Numbers], ident: str, marks: Marks = NO_MARKS) -> Chart:
    """Draw how many attempts ended how."""
    values = list(buckets.values())
    lines = [
        Line(_("succeeded"), "ok", [each.succeeded for each in values]),
        Line(_("failed"), "bad", [each.failed for each in values]),
        Line(_("retried"), "again", [each.retried for each in values]),
        Line(_("other"), "other", [each.other for each in values]),
    ]
    said = ", ".join(f"{words.amount(sum(value or 0 for value in line.values))} {line.name}" for line in lines)
    title = _("Tasks per %s") % words.stretch(span.step)
    return charts.bars(
        title, labels(span, buckets), lines, form=words.amount, description=said, ident=ident, marks=marks
    )


def waiting(
    span: Span, buckets: Mapping[int, Numbers], depth: Mapping[int, Depth], ident: str, marks: Marks = NO_MARKS
) -> Chart:
    """Draw how many tasks waited."""
    values = _depth_line(buckets, depth)
    most = max((value for value in values if value is not None), default=None)
    said = _("At most %s.") % words.amount(most) if most is not None else _("No worker has looked.")
    line = Line(_("waiting"), "first", values)
    return charts.curves(
        _("Waiting tasks"), labels(span, buckets), [line], form=words.amount, description=said, ident=ident, marks=marks
    )


def waits(span: Span, buckets: Mapping[int, Numbers], ident: str, marks: Marks = NO_MARKS) -> Chart:
    """Draw how long tasks waited once they were due."""
    values = list(buckets.values())
    return _percentiles(
        _("Wait time"),
        span,
        buckets,
        [each.wait(0.5) for each in values],
        [each.wait(0.95) for each in values],
        ident,
        marks,
    )


def runs(span: Span, buckets: Mapping[int, Numbers], ident: str, marks: Marks = NO_MARKS) -> Chart:
    """Draw how long tasks ran."""
    values = list(buckets.values())
    return _percentiles(
        _("Run time"),
        span,
        buckets,
        [each.run(0.5) for each in values],
        [each.run(0.95) for each in values],
        ident,
        marks,
    )


def run_histogram(done: Numbers, ident: str) -> Chart:
    """Draw how many runs took how long."""
    ends = [f"≤ {words.duration(bound)}" for bound in BOUNDS] + [f"> {words.duration(BOUNDS[-1])}"]
    title = _("Runs by duration")
    said = _("%s runs") % words.amount(sum(done.runs))
    return charts.histogram(title, ends, done.runs, form=words.amount, description=said, ident=ident)


def _percentiles(
    title: str,
    span: Span,
    buckets: Mapping[int, Numbers],
    median: Sequence[float | None],
    high: Sequence[float | None],
    ident: str,
    marks: Marks,
) -> Chart:
    lines = [
        Line(_("half of them within"), "first", median),
        Line(_("95 % within"), "second", high),
    ]
    worst = max((value for value in high if value is not None), default=None)
    said = _("95 %% within %s at worst.") % words.duration(worst) if worst is not None else _("Nothing ran.")
    return charts.curves(
        title, labels(span, buckets), lines, form=words.duration, description=said, ident=ident, marks=marks
    )


def _depth_line(buckets: Mapping[int, Numbers], depth: Mapping[int, Depth]) -> list[float | None]:
    return [float(depth[bucket].waiting) if bucket in depth else None for bucket in buckets]
