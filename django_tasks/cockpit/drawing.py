"""A workflow as SVG: what comes after what, and what ran when. As with charts, there is no script and no style."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import get_language_bidi
from django.utils.translation import gettext as _

from .. import states
from ..display import short
from . import words
from .charts import joined, number, numbers
from .dag import Node, Place, Shape
from .members import Members

#: Size of a node, and of the gaps beside and below it, in the drawing's own units, which are pixels.
WIDTH, HEIGHT, GAP, ROW = 176, 46, 56, 12
#: Of a node that only stands between many and many, and of the room for a line that passes a layer.
JOIN, LANE = 14, 10
#: Characters of a name that a node, or a line of the waterfall, has room for.
LETTERS, LABEL = 23, 30
#: Lines of the waterfall, their height, and the room for their names.
MOST_BARS, BAR, NAMES, WATERFALL = 100, 20, 220, 900

#: Of each state: the class that gives it its colour, and the sign that tells it without any.
LOOKS: Final[Mapping[str, tuple[str, str]]] = {
    states.SUCCESS: ("ok", "✔"),
    states.FAILURE: ("bad", "✖"),
    states.REVOKED: ("other", "⊘"),
    states.REJECTED: ("bad", "⊘"),
    states.IGNORED: ("other", "–"),
    states.STARTED: ("first", "◐"),
    states.RETRY: ("again", "↻"),
    states.PENDING: ("other", "○"),
    states.WAITING: ("other", "…"),
    states.LIMITED: ("again", "‖"),
    states.UNROUTABLE: ("again", "?"),
}
#: The states by how much each says of a stack.
_TELLING: Final = (
    *(states.FAILURE, states.REJECTED, states.STARTED, states.RETRY, states.UNROUTABLE, states.LIMITED),
    *(states.PENDING, states.WAITING, states.REVOKED, states.IGNORED, states.SUCCESS),
)

#: Gives the address of a node's page, or of the list of a stack.
Address = Callable[[Node], str]


class Spot(NamedTuple):
    """Where something is drawn."""

    x: float
    y: float
    width: float
    height: float


def look_of(node: Node) -> tuple[str, str]:
    """Return the class and the sign of a node: of a stack, those of the state that says most."""
    there = node.counts()
    return next((LOOKS[state] for state in _TELLING if state in there), ("other", "○"))


def said_of(node: Node, found: Members) -> str:
    """Return what there is to say of a node besides its name, in a few words."""
    first = node.first
    if node.is_stack:
        counts = node.counts()
        ordered = [state for state in LOOKS if state in counts]
        return " ".join(f"{LOOKS[state][1]}{words.amount(counts[state])}" for state in ordered)
    if waits := found.waits.get(node.key):
        return _("waits for %(open)s of %(all)s") % {"open": words.count(waits.open), "all": words.count(waits.all)}
    if first.ended is not None and first.started is None and first.state == states.FAILURE:
        return _("not run")
    if first.started is not None and first.ended is not None:
        return f"{first.shown} {words.duration(max(0.0, (first.ended - first.started).total_seconds()))}"
    return short(first.shown, LETTERS)


def name_of(node: Node, found: Members, limit: int = LETTERS) -> str:
    """Return the end of a node's name, which says most, and of a stack how many it holds."""
    name = node.first.name
    number_ = f" ×{words.amount(len(node.members))}{'+' if found.is_cut else ''}" if node.is_stack else ""
    room = limit - len(number_)
    return (name if len(name) <= room else f"…{name[1 - room :]}") + number_


def graph(shape: Shape, found: Members, address: Address, *, down: bool, title: str) -> SafeString:
    """Return the drawing of what comes after what, in the direction of reading, or from the top ``down``."""
    spots, width, height = _spots(shape, down=down)
    if not down and get_language_bidi():
        spots = {place: spot._replace(x=width - spot.x - spot.width) for place, spot in spots.items()}
    lines = [
        format_html('<path class="djt-line" d="{}"/>', _way([spots[place] for place in way], down=down))
        for way in shape.lines()
    ]
    nodes = [_node(node, spots[node.key], found, address, down=down) for node in shape.nodes.values()]
    return format_html(
        '<svg class="djt-dag{}" viewBox="0 0 {} {}"{} role="group" aria-label="{}">{}{}</svg>',
        " djt-dag-down" if down else "", number(width), number(height), numbers(width=width, height=height), title,
        joined(lines), joined(nodes),
    )  # fmt: skip


def _node(node: Node, spot: Spot, found: Members, address: Address, *, down: bool) -> SafeString:
    if node.first.is_join:
        dot = numbers(cx=spot.x + spot.width / 2, cy=spot.y + spot.height / 2, r=JOIN / 2)
        (x, y), (to_x, to_y) = _ends(spot, down=down)
        through = f"M{number(x)} {number(y)}L{number(to_x)} {number(to_y)}"
        return format_html('<path class="djt-line" d="{}"/><circle class="djt-join"{}/>', through, dot)
    kind, sign = look_of(node)
    name, said = name_of(node, found), said_of(node, found)
    waits = " djt-waits" if node.first.state == states.WAITING else ""
    middle = spot.x + spot.width / 2
    behind = (
        format_html('<rect class="djt-box djt-box-{}"{} rx="6"/>', kind, numbers(**_moved(spot, 4)))
        if node.is_stack
        else ""
    )
    return format_html(
        '<a class="djt-node" href="{}" aria-label="{}"><title>{}</title>{}<rect class="djt-box djt-box-{}{}"{} rx="6"/>'
        '<text class="djt-name" text-anchor="middle"{}>{}</text>'
        '<text class="djt-said-of" text-anchor="middle"{}>{} {}</text></a>',
        address(node), f"{short(node.first.name)}: {said}", f"{short(node.first.name)}: {said}",
        behind, kind, waits, numbers(**spot._asdict()),
        numbers(x=middle, y=spot.y + 19), name,
        numbers(x=middle, y=spot.y + 36), "" if node.is_stack else sign, said,
    )  # fmt: skip


def _moved(spot: Spot, by: float) -> dict[str, float]:
    return {**spot._asdict(), "x": spot.x + by, "y": spot.y - by}


def _spots(shape: Shape, *, down: bool) -> tuple[dict[Place, Spot], float, float]:
    """Return where everything stands, and how large the whole is; each layer in the middle."""
    along, across = (HEIGHT, WIDTH) if down else (WIDTH, HEIGHT)
    gap = GAP * 0.75 if down else GAP

    def room(place: Place) -> float:
        if not isinstance(place, str):
            return LANE
        return JOIN if shape.nodes[place].first.is_join else across

    sizes = [sum(room(place) + ROW for place in layer) for layer in shape.layers]
    most = max(sizes, default=0.0)
    spots: dict[Place, Spot] = {}
    for at, layer in enumerate(shape.layers):
        offset = (most - sizes[at]) / 2 + ROW / 2
        start = at * (along + gap) + ROW / 2
        for place in layer:
            spot = Spot(start, offset, along, room(place))
            spots[place] = Spot(spot.y, spot.x, spot.height, spot.width) if down else spot
            offset += room(place) + ROW
    length = len(shape.layers) * (along + gap) - gap + ROW
    return (spots, most, length) if down else (spots, length, most)


def _way(spots: Sequence[Spot], *, down: bool) -> str:
    """Return a line from one node to another, through the middle of what is between."""
    ends = [_ends(spot, down=down) for spot in spots]
    mirrored = not down and len(ends) > 1 and ends[0][0][0] > ends[-1][0][0]
    if mirrored:
        ends = [(second, first) for first, second in ends]
    x, y = ends[0][1]
    parts = [f"M{number(x)} {number(y)}"]
    for enter, leave in ends[1:]:
        if down:
            middle = (y + enter[1]) / 2
            bend = f"C{number(x)} {number(middle)} {number(enter[0])} {number(middle)}"
        else:
            middle = (x + enter[0]) / 2
            bend = f"C{number(middle)} {number(y)} {number(middle)} {number(enter[1])}"
        parts.append(f"{bend} {number(enter[0])} {number(enter[1])}")
        x, y = leave
        if (enter, leave) != ends[-1]:
            parts.append(f"L{number(x)} {number(y)}")
    return "".join(parts)


def _ends(spot: Spot, *, down: bool) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return where lines come in and go out."""
    if down:
        middle = spot.x + spot.width / 2
        return (middle, spot.y), (middle, spot.y + spot.height)
    middle = spot.y + spot.height / 2
    return (spot.x, middle), (spot.x + spot.width, middle)


# When what ran -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a node: of a stack, from the first to the last."""

    due: datetime
    started: datetime | None
    ended: datetime | None

    @classmethod
    def of(cls, node: Node) -> Times:
        """Return the times of a node."""
        started = [one.started for one in node.members if one.started is not None]
        ended = [one.ended for one in node.members if one.ended is not None]
        whole = len(ended) == len(node.members)
        return cls(min(one.due for one in node.members), min(started, default=None), max(ended) if whole else None)

    def waited(self, now: datetime) -> float:
        """Return how long nothing of it ran once it was due, in seconds."""
        return max(0.0, ((self.started or self.ended or now) - self.due).total_seconds())

    def ran(self, now: datetime) -> float | None:
        """Return how long it has run, in seconds; ``None`` if it did not."""
        return None if self.started is None else max(0.0, ((self.ended or now) - self.started).total_seconds())


def waterfall(nodes: Sequence[Node], found: Members, now: datetime) -> SafeString:
    """Return the drawing of when what waited and ran; ``""`` if nothing has begun."""
    times = [(node, one) for node in nodes if not node.first.is_join and (one := Times.of(node)).started is not None][
        :MOST_BARS
    ]
    if not times:
        return SafeString("")
    begin = min(one.due for _node, one in times)
    end = max(one.ended or now for _node, one in times)
    whole = max(0.001, (end - begin).total_seconds())
    mirrored = get_language_bidi()

    def bar(kind: str, since: datetime, seconds: float, y: float) -> SafeString:
        width = max(1.5, (WATERFALL - NAMES) * seconds / whole)
        x = NAMES + (WATERFALL - NAMES) * max(0.0, (since - begin).total_seconds()) / whole
        x = min(x, WATERFALL - width)
        at = numbers(x=WATERFALL - x - width if mirrored else x, y=y + 4, width=width, height=BAR - 8)
        return format_html('<rect class="djt-{}"{}/>', kind, at)

    drawn = []
    for index, (node, one) in enumerate(times):
        y = float(index * BAR)
        waited, ran = one.waited(now), one.ran(now) or 0.0
        told = _("waited %(wait)s, ran %(run)s") % {"wait": words.duration(waited), "run": words.duration(ran)}
        title = f"{short(node.first.name)}: {told}"
        place = numbers(x=WATERFALL - NAMES + 6 if mirrored else NAMES - 6, y=y + 14)
        drawn.append(
            format_html(
                '<g><title>{}</title><text class="djt-label" text-anchor="{}"{}>{}</text>{}{}</g>',
                title, "start" if mirrored else "end", place, name_of(node, found, LABEL),
                bar("wait", one.due, waited, y), bar(look_of(node)[0], one.started or begin, ran, y),
            )
        )  # fmt: skip
    height = BAR * len(times) + 18
    said = _("From the first to the last: %s") % words.duration(whole)
    return format_html(
        '<svg class="djt-waterfall" viewBox="0 0 {} {}" role="img" aria-label="{}">{}'
        '<text class="djt-label" text-anchor="middle"{}>{}</text></svg>',
        number(WATERFALL), number(height), said, joined(drawn),
        numbers(x=(WATERFALL - NAMES if mirrored else WATERFALL + NAMES) / 2, y=height - 4), said,
    )  # fmt: skip
