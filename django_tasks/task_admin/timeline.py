"""The life of a task as a drawing: when it waited, and when which attempt ran; with a table of the same beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from .. import display, states
from ..models import Call, Task, TaskResult

#: Size of the drawing in its own units; on a page it is as wide as there is room.
_WIDTH, _HEIGHT, _BAR = 640.0, 34.0, 20.0
#: No bar is narrower: one could not see it.
_LEAST: Final = 2.0
#: Attempts that are drawn: the last ones.
_DRAWN: Final = 50


@dataclass(frozen=True, slots=True)
class Span:
    """Some time in the life of a task."""

    #: The class that gives it its colour: ``wait``, ``run``, ``ok`` or ``bad``.
    kind: str
    label: str
    began: datetime
    ended: datetime

    @property
    def seconds(self) -> float:
        """How long it was."""
        return max(0.0, (self.ended - self.began).total_seconds())


def spans(call: Call, now: datetime, *, full: bool) -> list[Span]:
    """Return what happened to a task, in order: it waits, is tried, waits again; until ``now`` if it is not done."""
    runs: list[Span] = []
    for attempt in display.attempts(call, full=full)[-_DRAWN:]:
        if attempt.at is not None:
            began = attempt.at - timedelta(seconds=attempt.runtime or 0.0)
            runs.append(Span("bad", _("Attempt %s") % attempt.number, began, attempt.at))
    runs += _last(call, now)
    found: list[Span] = []
    at = call.created_at
    for run in runs:
        if run.began > at:
            found.append(Span("wait", _("Waiting"), at, run.began))
        found.append(run)
        at = max(at, run.ended)
    if isinstance(call, Task) and call.state != states.STARTED and now > at:
        found.append(Span("wait", _("Waiting"), at, now))
    return found


def _last(call: Call, now: datetime) -> list[Span]:
    label = _("Attempt %s") % call.attempt
    if isinstance(call, TaskResult):
        if call.started_at is None:
            return []
        return [Span("ok" if call.state == states.SUCCESS else "bad", label, call.started_at, call.finished_at)]
    if isinstance(call, Task) and call.started_at is not None and call.state == states.STARTED:
        return [Span("run", label, call.started_at, now)]
    return []


def draw(parts: Sequence[Span]) -> SafeString:
    """Return the spans side by side, as SVG; ``""`` when there is nothing that took any time."""
    total = sum(part.seconds for part in parts)
    if not total:
        return SafeString("")
    room = _WIDTH - _LEAST * len(parts)
    bars: list[Any] = []
    x = 0.0
    for part in parts:
        width = _LEAST + room * part.seconds / total
        title = f"{part.label}: {display.span(part.seconds)}"
        bars.append((part.kind, f"{x:.2f}", f"{(_HEIGHT - _BAR) / 2:.2f}", f"{width:.2f}", f"{_BAR:.2f}", title))
        x += width
    drawn = format_html_join(
        "", '<rect class="djt-span-{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>', bars
    )
    said = _("Timeline: %(count)s spans of time, %(total)s together") % {
        "count": len(parts),
        "total": display.span(total),
    }
    return format_html(
        '<svg class="djt-timeline" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>',
        said,
        f"{_WIDTH:.0f}",
        f"{_HEIGHT:.0f}",
        drawn,
    )


def table(parts: Sequence[Span]) -> list[tuple[str, SafeString | str, str]]:
    """Return the same as rows: what, from when, how long."""
    return [(part.label, display.moment(part.began), display.span(part.seconds)) for part in parts]
