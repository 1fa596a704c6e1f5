"""The overview as it is put together: panels of ours and of the project, in the order of ``ADMIN_PANELS``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping
from itertools import groupby
from typing import Any, Final, NamedTuple

from django.http import HttpRequest
from django.urls import get_script_prefix
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from .. import extensions
from ..conf import PANELS, settings

logger = logging.getLogger("django_tasks.admin")

#: Panels that take the whole width; the others stand side by side.
WIDE: Final = frozenset({"problems", "cards", "charts", "queues"})


class Drawn(NamedTuple):
    """A panel as the template shows it; what has no title brings its own frame."""

    title: Any
    html: str
    is_narrow: bool


#: What own panels showed, by their paths, the site, the person and how that reads, with the version that it had.
_kept: dict[tuple[Hashable, ...], tuple[Hashable, str]] = {}
#: Of so many.
MOST_KEPT: Final = 500


def versions(request: HttpRequest) -> dict[str, Hashable]:
    """Return what changes when the project's own panels change, by their paths."""
    return {path: _version(path) for path in settings.ADMIN_PANELS if path not in PANELS}


def rows(request: HttpRequest, render: Callable[[str], str], own: Mapping[str, Hashable]) -> Mapping[str, Any]:
    """Return the rows of panels for the template; ``render`` gives the HTML of one of ours, and ``own`` are the
    versions of the project's."""
    drawn = [
        _own(request, name, own[name]) if name in own else Drawn("", render(name), name not in WIDE)
        for name in settings.ADMIN_PANELS
    ]
    return {"rows": [(list(panels), is_narrow) for is_narrow, panels in groupby(drawn, lambda one: one.is_narrow)]}


def _own(request: HttpRequest, path: str, version: Hashable) -> Drawn:
    panel = extensions.panel(path)
    site = request.current_app  # its links lead into this one
    key = (path, site, request.user.pk, get_language(), timezone.get_current_timezone_name(), get_script_prefix())
    made_of, html = _kept.get(key, (None, ""))
    if made_of != version:
        try:
            html = panel.render(request)
        except Exception as error:  # the rest of the page is as good as ever
            logger.exception("The panel %s failed", path)
            html = _("This panel failed: %s. The log has the rest.") % type(error).__name__
        if len(_kept) >= MOST_KEPT:
            _kept.clear()
        _kept[key] = (version, html)
    return Drawn(panel.title, html, not getattr(panel, "wide", False))


def _version(path: str) -> Hashable:
    """Return the version of a panel; one that is never seen again if it has none, or none that can be kept."""
    try:
        found = extensions.panel(path).version()
        hash(found)
    except Exception:
        logger.exception("The panel %s failed", path)
        found = None
    return object() if found is None else found
