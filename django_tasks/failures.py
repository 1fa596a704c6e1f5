"""What fails: the newest failures, put together by task, exception and place; and what people said of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from operator import itemgetter
from typing import Any, Final, NamedTuple

from django.db.models import QuerySet, Value
from django.db.models.functions import Substr

from . import own_code, paging
from .backends import get_broker
from .conf import settings
from .models import FailureMark, TaskResult
from .replica import reads_from

#: Failures that are looked at: the newest ones.
LOOKED_AT: Final = 10_000
#: Parts of the time that a row of numbers has.
BUCKETS: Final = 24
#: How long a group is muted.
MUTED_FOR: Final = timedelta(hours=24)


class Kind(NamedTuple):
    """What the failures of a group have in common."""

    name: str
    #: The class of the exception; empty if there is none.
    exception: str
    #: Where in the project it came up, as ``shop/mail.py in send``; empty if that is not known.
    place: str

    @property
    def key(self) -> str:
        """A hash of it, as people's marks are found by."""
        return blake2b("\0".join(self).encode(), digest_size=20).hexdigest()


class Said(NamedTuple):
    """Who said something of a group, and the moment from or until which that holds."""

    by: str
    at: datetime


@dataclass(slots=True)
class Group:
    """Failures of one kind."""

    kind: Kind
    count: int
    first: datetime
    last: datetime
    #: Where the newest of them came up; ``None`` if that is not known.
    place: own_code.Place | None
    #: How many there were in each part of the time, oldest first.
    counts: list[int]
    #: By whom and when.
    acknowledged: Said | None = None
    #: By whom and until when; ``None`` if that is over.
    muted: Said | None = None

    @property
    def is_acknowledged(self) -> bool:
        """Did it not fail since somebody acknowledged it?"""
        return self.acknowledged is not None and self.last <= self.acknowledged.at

    @property
    def is_aside(self) -> bool:
        """Does nobody need to look at it?"""
        return self.is_acknowledged or self.muted is not None


class Failures(NamedTuple):
    """What failed since a moment."""

    #: What is to be looked at, and what nobody needs to look at; most frequent first.
    groups: list[Group]
    aside: list[Group]
    #: How many there were in both; if ``capped``, these are only the newest.
    total: int
    capped: bool


def grouped(rows: QuerySet[TaskResult], since: datetime, now: datetime, most: int) -> Failures:
    """Return which of these results failed between two moments, the newest ``most`` of them; one query, along an
    index."""
    failed = rows.filter(state="FAILURE", finished_at__gte=since).order_by("-finished_at")
    marks = FailureMark.objects.using(reads_from())
    nothing, head = Value(""), Substr("result", 1, own_code.HEAD)
    found = paging.together(
        [
            failed.values_list("name", "exception", "finished_at", head, Value("failed"))[: most + 1],
            marks.filter(acknowledged_at__isnull=False).values_list(
                "key", "acknowledged_by", "acknowledged_at", nothing, Value("acknowledged")
            ),
            marks.filter(muted_until__gt=now).values_list("key", "muted_by", "muted_until", nothing, Value("muted")),
        ]
    )
    lines = sorted((line[:-1] for line in found if line[-1] == "failed"), key=itemgetter(2), reverse=True)
    said = {(what, key): Said(by, at) for key, by, at, _nothing, what in found if what != "failed"}
    groups = _groups(lines[:most], since, now)
    for group in groups:
        group.acknowledged = said.get(("acknowledged", group.kind.key))
        group.muted = said.get(("muted", group.kind.key))
    return Failures(
        [group for group in groups if not group.is_aside],
        [group for group in groups if group.is_aside],
        min(len(lines), most),
        len(lines) > most,
    )


def acknowledge(kind: Kind, by: str) -> FailureMark:
    """Have nobody look at what failed so until now. Joins the caller's transaction."""
    return _mark(kind, acknowledged_at=get_broker().now(), acknowledged_by=by[:255])


def mute(kind: Kind, by: str) -> FailureMark:
    """Have nobody look at what fails so for :data:`MUTED_FOR`. Joins the caller's transaction."""
    return _mark(kind, muted_until=get_broker().now() + MUTED_FOR, muted_by=by[:255])


def unacknowledge(kind: Kind) -> FailureMark:
    """Take an acknowledgement back. Joins the caller's transaction."""
    return _mark(kind, acknowledged_at=None, acknowledged_by="")


def unmute(kind: Kind) -> FailureMark:
    """Have what fails so looked at again. Joins the caller's transaction."""
    return _mark(kind, muted_until=None, muted_by="")


# Inside --------------------------------------------------------------------------------------------------------------


def _mark(kind: Kind, **said: Any) -> FailureMark:
    marks = FailureMark.objects.using(settings.DATABASE)
    mark, _created = marks.update_or_create(key=kind.key, defaults={**kind._asdict(), **said})
    return mark


def _groups(lines: Iterable[tuple[Any, ...]], since: datetime, now: datetime) -> list[Group]:
    groups: dict[Kind, Group] = {}
    length = max(1.0, (now - since).total_seconds())
    for name, exception, at, head in lines:  # newest first
        place = own_code.Place.read(head)
        kind = Kind(name, exception.partition(":")[0], place.name if place is not None else "")
        group = groups.get(kind)
        if group is None:
            group = groups[kind] = Group(kind, 0, at, at, place, [0] * BUCKETS)
        group.count += 1
        group.first = at
        bucket = int((at - since).total_seconds() / length * BUCKETS)
        group.counts[min(max(bucket, 0), BUCKETS - 1)] += 1
    return sorted(groups.values(), key=lambda group: (-group.count, group.kind))
