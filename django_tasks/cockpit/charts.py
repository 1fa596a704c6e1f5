"""Charts as SVG, drawn here: no script, no style of their own, and a table of the same numbers beside each.

Colours are classes that the style sheet knows, so light and dark are its business. Coordinates are written by Python,
never by a template: no locale puts a comma into them. Values and names are escaped as on any page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Final

from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

#: Size of a chart in its own units; on a page it is as wide as there is room.
WIDTH, HEIGHT = 640, 200
#: Room for the numbers at the left, the top, and the times below.
_LEFT, _TOP, _BOTTOM = 62, 14, 24
_SPARK_WIDTH, _SPARK_HEIGHT = 120, 24

_EMPTY: Final = SafeString("")

#: Words at the beginnings of some labels, by their places.
Marks = Mapping[int, str]
NO_MARKS: Final[Marks] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Line:
    """One row of numbers, one for each label; ``None`` is a gap."""

    name: str
    #: The class that gives it its colour: one of ``ok``, ``bad``, ``again``, ``other``, ``first``, ``second``.
    kind: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart, and what its table shows."""

    title: str
    #: What it says, in a sentence, for those who do not see it.
    description: str
    svg: SafeString
    lines: Sequence[Line]
    #: Labels and values, newest first: the body of its table. A template would take as long as all the rest of a page.
    rows: SafeString


#: Turns a value into the text that people read.
Format = Callable[[float], str]


def bars(
    title: str,
    labels: Sequence[str],
    lines: Sequence[Line],
    *,
    form: Format,
    description: str,
    ident: str,
    marks: Marks = NO_MARKS,
) -> Chart:
    """Return a chart of stacked bars, one stack for each label."""
    form = cache(form)  # what is drawn stands in the table, too, and most of it several times
    stacks = list(zip(*(line.values for line in lines), strict=True))
    top = _top(max((sum(value or 0 for value in stack) for stack in stacks), default=0))
    width = (WIDTH - _LEFT) / max(1, len(labels))
    drawn = []
    for place, (label, stack) in enumerate(zip(labels, stacks, strict=True)):
        said = ", ".join(f"{line.name} {form(value or 0)}" for line, value in zip(lines, stack, strict=True))
        base, pieces = 0.0, []
        for line, value in zip(lines, stack, strict=True):
            if value:
                upper, lower = _y(base + value, top), _y(base, top)
                at = numbers(x=_LEFT + place * width + 0.1 * width, y=upper, width=0.8 * width, height=lower - upper)
                pieces.append(format_html('<rect class="djt-{}"{}/>', line.kind, at))
                base += value
        ground = numbers(x=_LEFT + place * width, y=_TOP, width=width, height=HEIGHT - _BOTTOM - _TOP)
        title_of = format_html("<title>{}: {}</title>", label, said)
        drawn.append(format_html('<g>{}<rect class="djt-hit"{}/>{}</g>', title_of, ground, joined(pieces)))
    return _chart(title, labels, lines, form, description, ident, joined(drawn), top, marks)


def curves(
    title: str,
    labels: Sequence[str],
    lines: Sequence[Line],
    *,
    form: Format,
    description: str,
    ident: str,
    marks: Marks = NO_MARKS,
) -> Chart:
    """Return a chart of lines, broken where a value is missing."""
    form = cache(form)
    top = _top(max((value for line in lines for value in line.values if value is not None), default=0))
    width = (WIDTH - _LEFT) / max(1, len(labels))
    drawn = [
        format_html('<path class="djt-curve djt-{}" d="{}"/>', line.kind, _path(line.values, width, top))
        for line in lines
    ]
    for place, label in enumerate(labels):
        told = [(line.name, line.values[place]) for line in lines]
        said = ", ".join(f"{name} {form(value)}" for name, value in told if value is not None)
        ground = numbers(x=_LEFT + place * width, y=_TOP, width=width, height=HEIGHT - _BOTTOM - _TOP)
        if said:
            drawn.append(format_html('<rect class="djt-hit"{}><title>{}: {}</title></rect>', ground, label, said))
    return _chart(title, labels, lines, form, description, ident, joined(drawn), top, marks)


def spark(values: Sequence[float | None], title: str) -> SafeString:
    """Return a small line without axes; nothing if there is nothing to draw."""
    top = max((value for value in values if value is not None), default=None)
    if top is None:
        return _EMPTY
    step = _SPARK_WIDTH / max(1, len(values) - 1)

    def at(place: int, value: float) -> tuple[float, float]:
        return place * step, _SPARK_HEIGHT - 2 - (_SPARK_HEIGHT - 4) * (value / top if top else 0.0)

    return format_html(
        '<svg class="djt-spark" viewBox="0 0 {} {}" role="img" aria-label="{}" preserveAspectRatio="none">'
        '<title>{}</title><path class="djt-curve djt-first" d="{}"/></svg>',
        _SPARK_WIDTH, _SPARK_HEIGHT, title, title, _steps(values, at),
    )  # fmt: skip


def histogram(
    title: str, bounds: Sequence[str], counts: Sequence[int], *, form: Format, description: str, ident: str
) -> Chart:
    """Return bars of counts, one for each bucket, without the empty ones at both ends."""
    filled = [place for place, count in enumerate(counts) if count]
    first, last = (filled[0], filled[-1] + 1) if filled else (0, 0)
    line = Line(title, "first", counts[first:last])
    return bars(title, bounds[first:last], [line], form=form, description=description, ident=ident)


# Inside --------------------------------------------------------------------------------------------------------------


def _chart(
    title: str,
    labels: Sequence[str],
    lines: Sequence[Line],
    form: Format,
    description: str,
    ident: str,
    drawn: SafeString,
    top: float,
    marks: Marks,
) -> Chart:
    grid = [
        format_html(
            '<path class="djt-grid" d="M{} {}H{}"/><text class="djt-label" text-anchor="end"{}>{}</text>',
            number(_LEFT), number(y := _y(top * part, top)), number(WIDTH),
            numbers(x=_LEFT - 6, y=y + 4), form(top * part),
        )
        for part in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    named = [
        format_html(
            '<text class="djt-label" text-anchor="{}"{}>{}</text>',
            anchor, numbers(x=_LEFT + (WIDTH - _LEFT) * part, y=HEIGHT - 6), labels[place],
        )
        for anchor, part, place in (("start", 0.0, 0), ("middle", 0.5, len(labels) // 2), ("end", 1.0, -1))
        if labels
    ]  # fmt: skip
    if not any(value for line in lines for value in line.values):
        at = numbers(x=_LEFT + (WIDTH - _LEFT) / 2, y=HEIGHT / 2)
        named.append(format_html('<text class="djt-label" text-anchor="middle"{}>{}</text>', at, _("nothing")))
    named += [_mark(text, _LEFT + (WIDTH - _LEFT) * place / len(labels)) for place, text in marks.items()]
    svg = format_html(
        '<svg class="djt-chart" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d">'
        '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>{}{}{}</svg>',
        WIDTH, HEIGHT, ident, ident, ident, title, ident, description, joined(grid), drawn, joined(named),
    )  # fmt: skip
    rows = [
        format_html(
            '<tr><th scope="row">{}</th>{}</tr>',
            f"{label} ({marks[place]})" if place in marks else label,
            joined(
                [
                    format_html("<td>{}</td>", "" if (value := line.values[place]) is None else form(value))
                    for line in lines
                ]
            ),
        )
        for place, label in enumerate(labels)
    ]
    return Chart(title, description, svg, lines, joined(rows[::-1]))


def _mark(text: str, x: float) -> SafeString:
    """Return a line from top to bottom with a word beside it."""
    anchor, beside = ("end", x - 4) if x > WIDTH * 0.75 else ("start", x + 4)
    return format_html(
        '<g class="djt-mark"><title>{}</title><path d="M{} {}V{}"/>'
        '<text class="djt-label" text-anchor="{}"{}>{}</text></g>',
        text, number(x), number(_TOP - 10), number(HEIGHT - _BOTTOM), anchor, numbers(x=beside, y=_TOP - 3), text,
    )  # fmt: skip


def _path(values: Sequence[float | None], width: float, top: float) -> str:
    return _steps(values, lambda place, value: (_LEFT + (place + 0.5) * width, _y(value, top)))


def _steps(values: Sequence[float | None], at: Callable[[int, float], tuple[float, float]]) -> str:
    """Return the path through these values; one that stands alone is drawn as a dot."""
    parts, drawing = [], False
    for place, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        x, y = at(place, value)
        parts.append(f"{'L' if drawing else 'M'}{number(x)} {number(y)}")
        alone = not drawing and (place + 1 == len(values) or values[place + 1] is None)
        if alone:
            parts.append("h0.01")
        drawing = True
    return "".join(parts)


def _y(value: float, top: float) -> float:
    return _TOP + (HEIGHT - _BOTTOM - _TOP) * (1 - value / top)


def _top(most: float) -> float:
    """Return the end of the scale: not below ``most``, and a number whose half is easily read, too."""
    if most < 1e-300 or not math.isfinite(most):  # the smallest floats have too few digits for a scale
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next((factor * power for factor in (1, 1.6, 2, 3, 4, 5, 6, 8, 10) if factor * power >= most), 10 * power)


def number(value: float) -> str:
    """Return a coordinate as SVG takes it, whatever the locale."""
    return format(value, ".2f")


def numbers(**values: float) -> SafeString:
    """Return attributes of an element."""
    written = "".join(f' {name}="{number(value)}"' for name, value in values.items())
    return mark_safe(written)  # noqa: S308 - names are ours, and values are digits


def joined(parts: Sequence[SafeString]) -> SafeString:
    """Return pieces of SVG as one."""
    return mark_safe("".join(parts))  # noqa: S308 - every part was made by format_html
