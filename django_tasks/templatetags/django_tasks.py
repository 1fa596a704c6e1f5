"""``{% load django_tasks %}``: what a site's own pages show of tasks."""

from __future__ import annotations

from typing import Any

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from ..views import progress_of, progress_url

register = template.Library()


@register.simple_tag
def task_progress(task: Any) -> SafeString:
    """Show how far a task is, as a bar that moves while somebody looks; ``task`` is an id, or an ``AsyncResult``.

    Without JavaScript it is as of the loading of the page. When the task is done, the element gets the event
    ``django-tasks:finished``, whose ``detail`` is what the address told.
    """
    task_id = str(getattr(task, "id", task))
    told = progress_of(task_id)
    percent = "" if told["percent"] is None else format_html(' value="{}"', f"{told['percent']:.1f}")
    return format_html(
        '<span class="djt-task-progress" data-djt-progress="{}" data-djt-state="{}">'
        '<progress max="100"{} aria-label="{}"></progress> <span role="status">{}</span></span>',
        progress_url(task_id),
        told["state"],
        percent,
        _("Progress"),
        told["state"],
    )


@register.simple_tag
def task_progress_script() -> SafeString:
    """Load what makes the bars move; once on a page."""
    return format_html('<script src="{}" defer></script>', static("django_tasks/progress.js"))
