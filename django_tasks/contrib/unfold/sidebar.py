"""Entries of Unfold's sidebar, for projects that write their own navigation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from django.http import HttpRequest
from django.urls import reverse_lazy
from django.utils.translation import gettext_lazy as _

#: The page, what it is called, and its sign among Material Symbols.
ENTRIES: Final = (
    ("overview", _("Overview"), "monitoring"),
    ("task", _("Tasks"), "checklist"),
    ("taskresult", _("Results"), "done_all"),
    ("periodictask", _("Periodic tasks"), "schedule"),
    ("tasktype", _("Task types"), "code"),
    ("queue", _("Queues"), "stacks"),
    ("workflow", _("Workflows"), "account_tree"),
    ("worker", _("Workers"), "memory"),
    ("limit", _("Limits"), "speed"),
    ("bulkoperation", _("Bulk operations"), "library_add_check"),
    ("health", _("Health"), "ecg_heart"),
)


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """Return ``UNFOLD["SIDEBAR"]["navigation"]`` with one group: our pages that this person may see."""
    return [group()]


def group() -> dict[str, Any]:
    """Return the group of our pages, to stand among others in ``UNFOLD["SIDEBAR"]["navigation"]``."""
    return {
        "title": _("Background tasks"),
        "separator": True,
        "items": [
            {
                "title": title,
                "icon": icon,
                "link": reverse_lazy(f"admin:django_tasks_{page}_changelist"),
                "permission": _may_see(page),
            }
            for page, title, icon in ENTRIES
        ],
    }


def _may_see(page: str) -> Callable[[HttpRequest], bool]:
    return lambda request: request.user.has_perm(f"django_tasks.view_{page}")
