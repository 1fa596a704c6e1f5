"""Which page of the admin helps with what is wrong."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlencode

from django.utils.translation import gettext as _

from ..doctor import Problem
from .panels import FAILURES


class Cure(NamedTuple):
    """A page: what its link says, the end of its address's name, what it is of, and what is asked of it."""

    label: str
    page: str
    key: str = ""
    query: str = ""


def cure_of(problem: Problem) -> Cure | None:
    """Return the page that helps; ``None`` if only a shell does."""
    match problem.check:
        case "queues":
            return Cure(_("Queue"), "queue_change", problem.about)
        case "workers":
            return Cure(_("Workers"), "worker_changelist")
        case "rescue" if problem.about:
            return Cure(_("Worker"), "worker_change", problem.about)
        case "beats":
            query = f"?{urlencode({'q': problem.about})}" if problem.about else ""
            return Cure(_("Periodic tasks"), "periodictask_changelist", query=query)
        case "names":
            return Cure(_("Tasks"), "task_changelist", query="?state=UNROUTABLE")
        case "payloads":
            return Cure(_("Task"), "task_change", problem.about)
        case "failures":
            return Cure(_("Failures"), "taskresult_failures", query=FAILURES.get(problem.about, ""))
    return None
