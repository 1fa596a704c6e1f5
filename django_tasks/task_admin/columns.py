"""The columns that the lists of tasks and of results have in common: what a call was given, and how long it took."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from django.contrib import admin
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import display, states
from ..changelists import ARGUMENTS
from ..models import Call, Task, TaskResult
from ..redaction import HIDDEN, REDACTED
from ..registry import tasks
from .base import line, seconds
from .calls import CallAdmin
from .live_lists import LiveList

#: Most characters of the arguments.
LINE: Final = 160
#: The encodings that a list reads: the others are slow to read, or become much larger.
READ: Final = ("", REDACTED, "json", "msgpack")
#: What waits for no more than a worker, or to be let through.
_READY: Final = states.CLAIMABLE | {states.LIMITED, states.UNROUTABLE}


class ListedCallAdmin(LiveList, CallAdmin):
    """A list of calls."""

    if_chosen = frozenset({"workflow", "shown_id"})

    def all_columns(self, request: HttpRequest) -> Any:
        found = super().all_columns(request)
        return found if self.sees_payload(request) else [one for one in found if one != ARGUMENTS]

    @admin.display(description=gettext_lazy("arguments"))
    def arguments(self, row: Any) -> SafeString | str:
        if row.small_body is None or row.encoding not in READ:
            return filesizeformat(row.body_bytes)
        return line(preview(row))

    @admin.display(description=gettext_lazy("wait"))
    def wait(self, row: Any) -> str:
        return seconds(waited(row, getattr(row, "seen_at", None)))

    @admin.display(description=gettext_lazy("tries"))
    def tries(self, row: Call) -> str:
        return tries(row)


def preview(call: Call) -> str:
    """Return the arguments of a call in one line, as in Python: ``(1543, 'welcome', urgent=True)``. What is hidden on
    its page is hidden here."""
    try:
        value = display.call_of(call)
    except display.Unreadable as reason:
        return display.short(reason, LINE)
    match value:
        case {"args": list() | str() as args, "kwargs": dict() | str() as kwargs}:
            given = [args] if isinstance(args, str) else [_literal(one) for one in display.plain(args)]
            if isinstance(kwargs, str):
                given.append(kwargs)
            else:
                given += [f"{name}={_literal(one)}" for name, one in display.plain(kwargs).items()]
            return display.short(f"({', '.join(given)})", LINE)
    return display.short(repr(display.plain(value)), LINE)


def _literal(value: Any) -> str:
    return HIDDEN if value == HIDDEN else repr(value)


def waited(call: Call, now: datetime | None) -> float | None:
    """Return for how many seconds a call waited after it was due, or has so far; ``None`` for one that waits for other
    tasks, never began, or of which that is not known yet."""
    assert isinstance(call, Task | TaskResult)  # noqa: S101 - for the type checker
    began = call.started_at
    if isinstance(call, Task) and call.state != states.STARTED:
        began = now if call.state in _READY else None
    return None if began is None else max(0.0, (began - call.due_at).total_seconds())


def tries(call: Call) -> str:
    """Return how often a worker took a call, and of how many times at most if this process knows its task: those that
    the task asks for, and those which a worker lost."""
    most = getattr(tasks.get(call.name), "max_retries", None)
    if most is None or call.retries > most:
        return str(call.attempt)
    lost = max(0, call.attempt - call.retries - 1)
    return _("%(tries)s of %(most)s") % {"tries": call.attempt, "most": 1 + most + lost}
