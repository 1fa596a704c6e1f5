"""How the admin's pages write numbers and moments."""

from __future__ import annotations

from datetime import datetime

from django import template
from django.utils.safestring import SafeString

from ..cockpit import words
from ..cockpit.numbers import Numbers
from ..display import moment

register = template.Library()


@register.filter
def djt_amount(number: float) -> str:
    """Write how many."""
    return words.amount(number)


@register.filter
def djt_duration(seconds: float | None) -> str:
    """Write how long."""
    return words.duration(seconds)


@register.filter
def djt_moment(when: datetime | None) -> SafeString | str:
    """Write when."""
    return moment(when)


@register.filter
def djt_run(done: Numbers, part: float) -> str:
    """Write within how long this part of the runs ended."""
    return words.duration(done.run(part))


@register.filter
def djt_alone(thing: object) -> list[object]:
    """Give one thing where several are expected."""
    return [thing]
