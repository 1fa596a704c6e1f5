"""How the same task did before: on the page of one of its runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from .. import access, paging, states
from ..cockpit import numbers
from ..metrics.rows import DAY, HOUR
from ..models import Call, TaskResult
from ..replica import reads_from
from .base import seconds

#: Runs that are looked at: the last ones.
LAST: Final = 20
#: Seconds that a page waits for them; it can do without.
PATIENCE: Final = 0.5
#: A day by the hour: few rows, however many minutes had runs.
A_DAY: Final = numbers.Span("24h", DAY, HOUR, HOUR)

#: Size of the drawing, and of each of its bars.
_WIDTH, _HEIGHT, _STEP, _BAR = 120, 24, 6, 4


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a task."""

    id: UUID
    state: str
    #: Seconds; ``None`` if its body did not run.
    runtime: float | None
    finished_at: datetime

    @property
    def failed(self) -> bool:
        """Did it fail?"""
        return self.state == states.FAILURE


def last_runs(request: HttpRequest, call: Call) -> list[Run]:
    """Return the last runs of the task of this name, newest first, as far as this person may see them. One query."""
    if not request.user.has_perm("django_tasks.view_taskresult"):
        return []
    rows: Any = access.visible(request, TaskResult.objects.using(reads_from()).filter(name=call.name))
    columns = ("id", "state", "runtime", "finished_at")
    try:
        with paging.time_limit(reads_from(), PATIENCE):
            return [Run(*row) for row in rows.order_by("-finished_at").values_list(*columns)[:LAST]]
    except paging.TooSlow:
        return []


def of_a_day(request: HttpRequest, call: Call) -> dict[str, str | int] | None:
    """Return how the tasks of this name did in a day, all of them, to who may see task types; ``None`` if none ended.
    One query."""
    if not request.user.has_perm("django_tasks.view_tasktype"):
        return None
    try:
        with paging.time_limit(reads_from(), PATIENCE):
            done = numbers.total(numbers.by_bucket(A_DAY, time.time(), name=call.name).values())
    except paging.TooSlow:
        return None
    if not done.ended:
        return None
    percentiles = {"half": seconds(done.run(0.5)), "most": seconds(done.run(0.95))}
    return {"ended": done.ended, "failed": done.failed, "retried": done.retried, **percentiles}


def draw(runs: Sequence[Run]) -> SafeString:
    """Return runs as bars, the newest last, as high as they were long; a square on top marks one that failed."""
    longest = max((run.runtime for run in runs if run.runtime is not None), default=0.0)
    bars: list[tuple[str, ...]] = []
    for place, run in enumerate(reversed(runs)):
        height = 1 + (_HEIGHT - _BAR - 2) * (run.runtime or 0.0) / longest if longest else 1.0
        bars.append(_rect("bad" if run.failed else "ok", place, _HEIGHT - height, height))
        if run.failed:
            bars.append(_rect("bad", place, 0, _BAR))
    said = _("Run times of the last %(count)s runs, %(failed)s of them failed")
    return format_html(
        '<svg class="djt-spark" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>',
        _WIDTH,
        _HEIGHT,
        said % {"count": len(runs), "failed": sum(run.failed for run in runs)},
        format_html_join("", '<rect class="djt-span-{}" x="{}" y="{}" width="{}" height="{}"/>', bars),
    )


def _rect(kind: str, place: int, y: float, height: float) -> tuple[str, ...]:
    return kind, str(place * _STEP), f"{y:.2f}", str(_BAR), f"{height:.2f}"
