"""Numbers as people read them, in their language."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext_lazy

from ..paging import COUNT_LIMIT

_STATUSES: Final = {
    "online": pgettext_lazy("worker", "online"),
    "draining": pgettext_lazy("worker", "draining"),
    "lost": pgettext_lazy("worker", "lost"),
    "stopped": pgettext_lazy("worker", "stopped"),
}


def count(number: float) -> str:
    """Return a number of things; what was only counted so far says so."""
    if number > COUNT_LIMIT:
        return f"{_whole(COUNT_LIMIT)}+"
    return _whole(number)


def amount(number: float) -> str:
    """Return a number of things that was not counted but added up, or measured: whole from ten on."""
    return _whole(round(number)) if number >= 10 or number == int(number) else _decimal(number, 1)


def part(fraction: float | None) -> str:
    """Return a fraction in percent; a dash for none."""
    return "–" if fraction is None else f"{_decimal(100 * fraction, 1)} %"


def duration(seconds: float | None) -> str:
    """Return a time in the unit that suits it, as ``3 ms``, ``2.1 s``, ``14 min``, ``1 h 5 min``; a dash for none."""
    if seconds is None:
        return "–"
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995:
        return f"{_decimal(seconds * 1000, 1 if seconds < 0.00995 else 0)} ms"
    if seconds < 9.95:
        return f"{_decimal(seconds, 1)} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    return _("%(days)s days") % {"days": _whole(minutes // (24 * 60))}


def claimed(number: int) -> str:
    """Return how many tasks a worker has taken that have not begun."""
    return _("%(count)s claimed") % {"count": _whole(number)}


def ahead(seconds: float) -> str:
    """Return how far away a moment to come is, in the largest unit of which there is one."""
    if seconds < 60:
        return _("in less than a minute")
    if seconds < 3_600:
        text = ngettext("in %(count)s minute", "in %(count)s minutes", whole := int(seconds // 60))
    elif seconds < 86_400:
        text = ngettext("in %(count)s hour", "in %(count)s hours", whole := int(seconds // 3_600))
    else:
        text = ngettext("in %(count)s day", "in %(count)s days", whole := int(seconds // 86_400))
    return text % {"count": _whole(whole)}


def status(name: str) -> str:
    """Return how a worker or a beat is, in a word."""
    return str(_STATUSES.get(name, name))


def stretch(seconds: int) -> str:
    """Return the width of a bucket: whole minutes, hours or days."""
    if seconds % 86_400 == 0:
        return _("day") if seconds == 86_400 else _("%(days)s days") % {"days": seconds // 86_400}
    if seconds % 3_600 == 0:
        return _("hour") if seconds == 3_600 else f"{seconds // 3_600} h"
    return _("minute") if seconds == 60 else f"{seconds // 60} min"


def clock(seconds: float, *, day: bool) -> str:
    """Return a moment for the axis of a chart, in the reader's time zone; ``day``: with the date."""
    local = timezone.localtime(datetime.fromtimestamp(seconds, UTC))
    time = f"{local:%H:%M}"
    return f"{formats.date_format(local, 'SHORT_DATE_FORMAT')} {time}" if day else time


def _whole(number: float) -> str:
    return formats.number_format(int(number), use_l10n=True, force_grouping=True)


def _decimal(number: float, places: int) -> str:
    text = formats.number_format(f"{number:.{places}f}", use_l10n=True)
    point = formats.get_format("DECIMAL_SEPARATOR", use_l10n=True)
    return text.rstrip("0").rstrip(point) if point in text else text
