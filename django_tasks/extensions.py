"""What a project adds to the admin's pages: panels of the overview, and links from the page of a task
(``ADMIN_PANELS``, ``ADMIN_LINKS``, ``ADMIN_OBJECT_LINK``)."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Hashable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured

from . import access
from .conf import LINK_NAMES, PANELS, settings
from .redaction import HIDDEN

if TYPE_CHECKING:
    from django.http import HttpRequest

    from .models import Call

logger = logging.getLogger("django_tasks.admin")

#: ``traceparent`` of W3C, ``sentry-trace``: the trace is what 32 digits say.
_TRACE: Final = re.compile(r"(?:^|-)([0-9a-f]{32})(?:-|$)")
_TRACE_HEADERS: Final = ("traceparent", "sentry-trace", "trace_id")


class Panel(Protocol):
    """A part of the overview that a project adds (``ADMIN_PANELS``); one instance serves all requests of a process."""

    #: Its headline.
    title: str

    def render(self, request: HttpRequest) -> str:
        """Return what it shows to this person: HTML if it is marked as safe, else text."""

    def version(self) -> Hashable:
        """Return what changes when that changes: as long as it is the same, what was rendered for a person is shown
        again. ``None``: it is rendered each time."""


@cache
def panel(path: str) -> Panel:
    """Return the panel of a class. Raises ``ImproperlyConfigured`` for what is none."""
    if "." not in path:
        raise ImproperlyConfigured(
            f"DJANGO_TASKS['ADMIN_PANELS'] has {path!r}; allowed: {', '.join(PANELS)}, and dotted paths of classes."
        )
    made: Any = access.imported("ADMIN_PANELS", path)
    missing = [name for name in ("render", "version") if not callable(getattr(made, name, None))]
    if not isinstance(made, type) or missing or not hasattr(made, "title"):
        raise ImproperlyConfigured(
            f"DJANGO_TASKS['ADMIN_PANELS'] has {path!r}; allowed: a class with a title, render(request) and version()."
        )
    return made()  # type: ignore[no-any-return]


def links_of(call: Call, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return labels and addresses of the links from the page of a task to other systems."""
    values = {
        "id": call.task_id,
        "name": call.name,
        "queue": call.queue,
        "root_id": str(call.root_id or ""),
        "trace_id": trace_of(options),
        "worker": str(getattr(call, "worker", "") or ""),
    }
    quoted = {name: quote(values[name], safe="") for name in LINK_NAMES}
    found = []
    for label, address in settings.ADMIN_LINKS.items():
        if all(quoted[name] for name in LINK_NAMES if f"{{{name}}}" in address):
            found.append((label, address.format_map(quoted)))
    return found


def trace_of(options: Mapping[str, Any]) -> str:
    """Return the id of the trace that the headers of a call name, ``""`` for none."""
    headers = options.get("headers")
    if not isinstance(headers, Mapping):
        return ""
    for name in _TRACE_HEADERS:
        found = _TRACE.search(str(headers.get(name, "")))
        if found is not None:
            return found[1]
    return ""


def object_link(task: str, argument: str, text: str) -> str:
    """Return the address to which an argument leads, as it is shown; ``""`` for none, and for what is hidden."""
    path = settings.ADMIN_OBJECT_LINK
    if path is None or text == HIDDEN:
        return ""
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    if value == HIDDEN:
        return ""
    try:
        found = access.imported("ADMIN_OBJECT_LINK", path)(task, argument, value)
    except ImproperlyConfigured:
        raise
    except Exception:
        logger.exception("ADMIN_OBJECT_LINK failed for %s of %s", argument, task)
        return ""
    return found if isinstance(found, str) and found.startswith(("https://", "http://", "/")) else ""


def check() -> list[str]:
    """Return what is wrong with the settings, a sentence each."""
    problems = []
    for path in settings.ADMIN_PANELS:
        try:
            if path not in PANELS:
                panel(path)
        except ImproperlyConfigured as error:
            problems.append(str(error))
    twice = sorted({path for path in settings.ADMIN_PANELS if settings.ADMIN_PANELS.count(path) > 1})
    if twice:
        problems.append(f"DJANGO_TASKS['ADMIN_PANELS'] has {twice[0]!r} twice; allowed: each once.")
    if settings.ADMIN_OBJECT_LINK is not None:
        try:
            access.imported("ADMIN_OBJECT_LINK", settings.ADMIN_OBJECT_LINK)
        except ImproperlyConfigured as error:
            problems.append(str(error))
    return problems
