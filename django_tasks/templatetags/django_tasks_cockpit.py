"""How the admin's pages write numbers and moments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import django
from django import template
from django.contrib.admin.utils import label_for_field
from django.forms import Media
from django.template import Context
from django.utils import timezone
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import capfirst

from .. import access
from ..cockpit import cures, words
from ..cockpit.numbers import Numbers
from ..display import moment
from ..doctor import Problem
from ..models import Task, TaskResult
from ..search import help_text
from ..task_admin import frames

register = template.Library()

#: A cell as Django's list draws it: the name of its column, other classes, and its end if there is no value in it.
_CELL: Final = re.compile(r'<td class="field-(\w+)([^"]*)">((?:-|&nbsp;)?</td>)?')

#: The key that follows ``g``, and the model to whose list they lead.
KEYS: Final = {"o": "Overview", "t": "Task", "p": "PeriodicTask", "q": "Queue", "w": "Worker"}


@register.filter
def djt_amount(number: float) -> str:
    """Write how many."""
    return words.amount(number)


@register.filter
def djt_duration(seconds: float | None) -> str:
    """Write how long."""
    return words.duration(seconds)


@register.filter
def djt_claimed(number: int) -> str:
    """Write how many tasks are claimed that have not begun."""
    return words.claimed(number)


@register.filter
def djt_status(name: str) -> str:
    """Write how a worker is."""
    return words.status(name)


@register.filter
def djt_moment(when: datetime | None) -> SafeString | str:
    """Write when."""
    return moment(when)


@register.filter
def djt_ahead(when: datetime) -> str:
    """Write how far away a moment to come is; nothing of one that is past."""
    seconds = (when - timezone.now()).total_seconds()
    return words.ahead(seconds) if seconds > 0 else ""


@register.filter
def djt_run(done: Numbers, part: float) -> str:
    """Write within how long this part of the runs ended."""
    return words.duration(done.run(part))


@register.filter
def djt_long(text: str) -> bool:
    """May a text be longer than its box is high? Then it is scrolled, and the keyboard has to get there."""
    text = str(text)
    return len(text) > 2_000 or text.count("\n") > 30


@register.filter
def djt_frames(traceback: str) -> list[frames.Part]:
    """Take a traceback apart: what is the project's, and what is to be folded."""
    return frames.parts(traceback)


@register.filter
def djt_cure(problem: Problem) -> cures.Cure | None:
    """Give the page that helps with what is wrong."""
    return cures.cure_of(problem)


@register.filter
def djt_alone(thing: object) -> list[object]:
    """Give one thing where several are expected."""
    return [thing]


@register.inclusion_tag("admin/django_tasks/keys.html", takes_context=True)
def djt_keys(context: Context) -> Mapping[str, Any]:
    """Write what the keyboard does on this page, and the script for it; only pages that this person may see."""
    seen = {
        model["object_name"]: model
        for app in context.get("available_apps") or ()
        for model in app["models"]
        if model["model"]._meta.app_label == "django_tasks" and model["admin_url"]
    }
    pages = [(key, seen[name]["name"], seen[name]["admin_url"]) for key, name in KEYS.items() if name in seen]
    found = {
        "pages": pages,
        "search": seen["Task"]["admin_url"] if "Task" in seen else "",
        "search_help": help_text(TaskResult if "TaskResult" in seen else Task),
    }
    return {**found, "csp_nonce": context.get("csp_nonce"), "request": context.get("request")}


@register.inclusion_tag("admin/django_tasks/read_only.html", takes_context=True)
def djt_read_only(context: Context) -> Mapping[str, Any]:
    """Say so where this person is only to look."""
    return {"read_only": access.is_read_only(context["request"])}


@register.simple_block_tag(takes_context=True)
def djt_labels(context: Context, content: str) -> SafeString:
    """Write the rows of a list with the heading of its column at each cell, for where a row is a card."""
    listed = context["cl"]
    labels = {name: str(label_for_field(name, listed.model, listed.model_admin)) for name in listed.list_display}
    quoted = {name: str(escape(capfirst(label))) for name, label in labels.items()}  # not anew for each cell

    def labelled(cell: re.Match[str]) -> str:
        name, classes, empty = cell.groups("")
        label = quoted.get(name)
        if label is None:
            return cell[0]
        return f'<td class="field-{name}{classes}{" djt-none" if empty else ""}" data-label="{label}">{empty}'

    return mark_safe(_CELL.sub(labelled, content))  # noqa: S308 - it was HTML before, and labels are escaped


@register.simple_tag(takes_context=True)
def djt_nonce(context: Context, media: Media | None = None) -> SafeString | str:
    """Write the attribute that a strict policy asks of scripts and styles, or media that have it; nothing where the
    site has none. It is Django 6.1's ``csp_nonce_attr`` for all releases; media of older ones are without, as in its
    admin.
    """
    nonce = context.get("csp_nonce")
    if nonce is None:
        nonce = getattr(context.get("request"), "csp_nonce", None)  # as the package django-csp leaves it
    if media is None:
        return "" if nonce is None else format_html('nonce="{}"', nonce)
    if nonce is None or django.VERSION < (6, 1):
        return media.render()
    return media.render(attrs={"nonce": nonce})
