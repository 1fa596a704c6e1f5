"""How the same task did before: on the page of one of its runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from .. import access, paging, states
from ..cockpit import charts
from ..conf import settings
from ..models import Call, TaskResult
from .base import seconds

#: Runs that are looked at: the last ones.
LAST: Final = 20
#: Seconds that a page waits for them; it can do without.
PATIENCE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Likeness:
    """The last runs of a task."""

    spark: SafeString
    count: int
    failed: int
    #: Run times: half of them took no longer, and the longest one.
    half: str
    longest: str


def likeness(request: HttpRequest, call: Call) -> Likeness | None:
    """Return how the task of this name did lately, as far as this person may see that; ``None``: nothing is known. One
    query."""
    if not request.user.has_perm("django_tasks.view_taskresult"):
        return None
    rows: Any = TaskResult.objects.using(settings.DATABASE).filter(name=call.name)
    try:
        with paging.time_limit(settings.DATABASE, PATIENCE):
            last = access.visible(request, rows).order_by("-finished_at").values_list("state", "runtime")[:LAST]
            runs = list(last)[::-1]
    except paging.TooSlow:
        return None
    if not runs:
        return None
    failed = sum(state == states.FAILURE for state, _runtime in runs)
    times = sorted(runtime for _state, runtime in runs if runtime is not None)
    text = _("Run times of the last %(count)s runs, %(failed)s of them failed")
    return Likeness(
        charts.spark([runtime for _state, runtime in runs], text % {"count": len(runs), "failed": failed}),
        len(runs),
        failed,
        seconds(times[(len(times) - 1) // 2]) if times else "",
        seconds(times[-1]) if times else "",
    )
