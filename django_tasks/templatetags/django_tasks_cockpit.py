"""How the admin's pages write numbers and moments."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import django
from django import template
from django.forms import Media
from django.template import Context
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ..cockpit import words
from ..cockpit.numbers import Numbers
from ..display import moment

register = template.Library()

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
def djt_moment(when: datetime | None) -> SafeString | str:
    """Write when."""
    return moment(when)


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
    found = {"pages": pages, "search": seen["Task"]["admin_url"] if "Task" in seen else ""}
    return {**found, "csp_nonce": context.get("csp_nonce"), "request": context.get("request")}


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
