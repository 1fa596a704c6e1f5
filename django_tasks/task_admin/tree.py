"""Arguments and results as trees that are unfolded step by step, drawn here: no script is needed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from .. import display

#: Parts that are drawn: of all arguments or of a result, and of one dict or list. The text beside a tree has the rest.
MOST: Final = 500
MOST_OF_ONE: Final = 100
#: How far down a tree goes.
DEEPEST: Final = 20


class Trees:
    """Draws values that stand together, no more than :data:`MOST` parts of them."""

    def __init__(self) -> None:
        self._left = MOST

    def draw(self, data: dict[str, Any] | list[Any] | None, depth: int = 1) -> SafeString:
        """Return plain data with its first level unfolded; ``""`` where there is nothing to unfold."""
        if not data:
            return SafeString("")
        pairs: Iterable[tuple[Any, Any]] = data.items() if isinstance(data, dict) else enumerate(data)
        count = min(len(data), MOST_OF_ONE, self._left)
        self._left -= count  # its own parts come before theirs
        drawn = [self._part(name, value, depth) for (name, value), _place in zip(pairs, range(count), strict=False)]
        if count < len(data):
            drawn.append(format_html("<li>{}</li>", _("… %s more") % f"{len(data) - count:,}"))
        return format_html('<ul class="djt-tree">{}</ul>', format_html_join("", "{}", ((each,) for each in drawn)))

    def _part(self, name: Any, value: Any, depth: int) -> SafeString:
        is_inner = isinstance(value, dict | list) and bool(value)
        said = display.describe(value) if is_inner else display.short(json.dumps(value, ensure_ascii=False))
        line = format_html('<span class="djt-part">{}</span> <code>{}</code>', display.short(name), said)
        if not is_inner or depth == DEEPEST or not self._left:
            return format_html("<li>{}</li>", line)
        return format_html("<li><details><summary>{}</summary>{}</details></li>", line, self.draw(value, depth + 1))
