"""What rollups and samples say about a stretch of time; a few queries, whatever the site has done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import connections
from django.db.models import F, Max

from ..metrics.histogram import SIZE, quantile
from ..metrics.rows import DAY, EVER, HOUR, MINUTE, OUTCOMES, RUNS, SECONDS, WAITS
from ..models import QueueSample, Rollup
from ..replica import reads_from

#: Most queues or tasks of one page.
MOST: Final = 200


@dataclass(frozen=True, slots=True)
class Span:
    """A choice of how far back a page looks; times in seconds."""

    #: As it stands in an address.
    name: str
    seconds: int
    #: The width of a bucket of the charts.
    step: int
    #: The length of the rollups that are read.
    length: int

    def buckets(self, now: float) -> range:
        """Return the beginnings of the buckets up to this moment, oldest first."""
        last = int(now) // self.step * self.step
        return range(last - self.seconds + self.step, last + self.step, self.step)


SPANS: Final[dict[str, Span]] = {
    span.name: span
    for span in (
        Span("1h", HOUR, MINUTE, MINUTE),
        Span("6h", 6 * HOUR, 5 * MINUTE, MINUTE),
        Span("24h", DAY, 30 * MINUTE, MINUTE),
        Span("7d", 7 * DAY, 3 * HOUR, HOUR),
        Span("30d", 30 * DAY, DAY, HOUR),
    )
}


def span_called(name: str) -> Span:
    """Return the span of this name; an hour for what is none."""
    return SPANS.get(name, SPANS["1h"])


@dataclass(slots=True)
class Numbers:
    """What became of tasks."""

    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    #: REVOKED, IGNORED, REJECTED.
    other: int = 0
    wait_seconds: float = 0.0
    run_seconds: float = 0.0
    #: Buckets of :mod:`django_tasks.metrics.histogram`.
    waits: list[int] = field(default_factory=lambda: [0] * SIZE)
    runs: list[int] = field(default_factory=lambda: [0] * SIZE)

    @property
    def ended(self) -> int:
        """How many tasks were done with."""
        return self.succeeded + self.failed + self.other

    @property
    def failure_rate(self) -> float | None:
        """The part that failed of what succeeded or failed; ``None`` if nothing did."""
        return self.failed / both if (both := self.succeeded + self.failed) else None

    def wait(self, part: float) -> float | None:
        """Return a percentile of the seconds between becoming due and starting."""
        return quantile(self.waits, part)

    def run(self, part: float) -> float | None:
        """Return a percentile of the seconds that bodies ran."""
        return quantile(self.runs, part)

    def add(self, more: Numbers) -> None:
        """Add other numbers to these."""
        for name in (*OUTCOMES, *SECONDS):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.waits = [a + b for a, b in zip(self.waits, more.waits, strict=True)]
        self.runs = [a + b for a, b in zip(self.runs, more.runs, strict=True)]


def total(parts: Iterable[Numbers]) -> Numbers:
    """Return the sum of numbers."""
    found = Numbers()
    for part in parts:
        found.add(part)
    return found


def by_bucket(span: Span, now: float, *, queue: str | None = None, name: str | None = None) -> dict[int, Numbers]:
    """Return the numbers of each bucket of a span, oldest first. One query."""
    rows = _sums([f"moment - moment %% {span.step}"], **_within(span, now), queue=queue, name=name)
    found = {bucket: _numbers(sums) for (bucket,), sums in rows}
    return {bucket: found.get(bucket) or Numbers() for bucket in span.buckets(now)}


def by_task(span: Span, now: float, *, queue: str | None = None) -> dict[tuple[str, str], Numbers]:
    """Return the numbers of each queue and task in a span. One query."""
    rows = _sums(["queue", "name"], **_within(span, now), queue=queue)
    return {(queue_, name): _numbers(sums) for (queue_, name), sums in rows}


def ever() -> dict[tuple[str, str], Numbers]:
    """Return the numbers of each queue and task since the first worker. One query."""
    return {(queue, name): _numbers(sums) for (queue, name), sums in _sums(["queue", "name"], length=EVER)}


def grouped(numbers: Mapping[tuple[str, str], Numbers], place: int) -> dict[str, Numbers]:
    """Add up what :func:`by_task` found, by queue (``place`` 0) or by task (1)."""
    found: dict[str, Numbers] = {}
    for key, each in numbers.items():
        found.setdefault(key[place], Numbers()).add(each)
    return found


@dataclass(frozen=True, slots=True)
class Depth:
    """What a queue held in a bucket, at most: tasks, and seconds for the oldest."""

    waiting: int
    scheduled: int
    running: int
    oldest: float

    @property
    def held(self) -> int:
        """All that was not done."""
        return self.waiting + self.scheduled + self.running


#: Of a queue that was looked for, and was not there.
NOTHING: Final = Depth(0, 0, 0, 0.0)


def depths(span: Span, now: float, *, queue: str | None = None) -> dict[str, dict[int, Depth]]:
    """Return what queues held in the buckets in which somebody looked, by name; ``""`` is all together, which is there
    in any case. What held nothing is left out. One query."""
    buckets = span.buckets(now)
    rows = QueueSample.objects.using(reads_from()).filter(moment__gte=buckets[0], moment__lt=buckets[-1] + span.step)
    if queue is not None:
        rows = rows.filter(queue__in=["", queue])
    found: dict[str, dict[int, Depth]] = {"": {}}
    cells = rows.order_by().annotate(bucket=F("moment") - F("moment") % span.step).values_list("queue", "bucket")
    most = [Max(name) for name in ("waiting", "scheduled", "running", "oldest")]
    for queue_, bucket, *values in cells.annotate(*most):
        found.setdefault(queue_, {})[bucket] = Depth(int(values[0]), int(values[1]), int(values[2]), float(values[3]))
    return found


def depth_of(depths: Mapping[str, Mapping[int, Depth]], queue: str) -> dict[int, Depth]:
    """Return what a queue held in each bucket in which somebody looked, oldest first: nothing, where it is left out."""
    found = {**dict.fromkeys(depths.get("", ()), NOTHING), **depths.get(queue, {})}
    return {bucket: found[bucket] for bucket in sorted(found)}


def arrivals(numbers: Sequence[Numbers], depth: Mapping[int, Depth], buckets: Sequence[int]) -> float | None:
    """Return how many tasks a queue took in over the buckets: what ended, and by how much it grew; ``None`` if nobody
    looked twice. An estimate: the looks and the counts are not of the same moments."""
    looked = [depth[bucket].held for bucket in buckets if bucket in depth]
    if len(looked) < 2:
        return None
    return max(0.0, sum(each.ended for each in numbers) + looked[-1] - looked[0])


def _within(span: Span, now: float) -> dict[str, int]:
    """Return which rollups a span is made of."""
    buckets = span.buckets(now)
    return {"length": span.length, "since": buckets[0], "until": buckets[-1] + span.step}


def _sums(keys: Sequence[str], **only: int | str | None) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
    """Yield the values of the expressions ``keys``, and the sums of all numbers of the rollups that have them.

    In SQL of our own: to write down, and to convert, some sixty sums takes the ORM longer than the database takes to
    add them up.
    """
    given = {name: value for name, value in only.items() if value is not None}
    order = ", ".join(str(place) for place in range(1, len(keys) + 1))
    with connections[reads_from()].cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(keys)}, {_SUMMED} FROM {Rollup._meta.db_table}"  # noqa: S608 - our own SQL
            f" WHERE {' AND '.join(_ONLY[name] for name in given)} GROUP BY {order} ORDER BY {order}",
            list(given.values()),
        )
        for row in cursor.fetchall():
            yield row[: len(keys)], row[len(keys) :]


_ONLY: Final = {
    "length": "length = %s",
    "since": "moment >= %s",
    "until": "moment < %s",
    "queue": "queue = %s",
    "name": "name = %s",
}
_SUMMED: Final = ", ".join(f"SUM({name})" for name in (*OUTCOMES, *SECONDS, *WAITS, *RUNS))


def _numbers(sums: Sequence[Any]) -> Numbers:
    """Return sums in the order of :data:`_SUMMED`; some databases give them as decimals."""
    counts = dict(zip(OUTCOMES, map(int, sums), strict=False))
    wait, run = sums[len(OUTCOMES) : len(OUTCOMES) + len(SECONDS)]
    spread = [int(number) for number in sums[-len(WAITS) - len(RUNS) :]]
    return Numbers(
        **counts,
        wait_seconds=float(wait),
        run_seconds=float(run),
        waits=spread[: len(WAITS)],
        runs=spread[len(WAITS) :],
    )
