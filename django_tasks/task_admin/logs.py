"""What a task said to the log, on its page: of one attempt at a time, from a level on."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import Case, Q, Subquery, TextField, Value, When
from django.http import HttpRequest
from django.utils.http import urlencode

from .. import display
from ..models import Call, TaskLog
from ..replica import reads_from

#: Levels that can be chosen; the first one is the choice of who does not choose.
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")
#: Attempts that are offered, and records of one attempt that are shown: the last ones.
MOST_ATTEMPTS: Final = 50
MOST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Record:
    """One record; without a moment, how many are missing in its place."""

    at: datetime | None
    level: str
    logger: str
    text: str

    @property
    def clock(self) -> str:
        """The moment by the reader's clock, to the millisecond."""
        return display.clock(self.at) if self.at is not None else ""


@dataclass(frozen=True, slots=True)
class Log:
    """What is shown of a task's log."""

    #: Attempts that said something: number, how many records, its address; latest first.
    attempts: list[tuple[int, int, str]]
    attempt: int
    #: Levels and their addresses.
    levels: list[tuple[str, str]]
    level: str
    #: ``None``: this person may know only how many there are.
    records: list[Record] | None
    #: How many earlier ones are not shown.
    earlier: int


def log_of(request: HttpRequest, call: Call, *, full: bool) -> Log | None:
    """Return what a task said, as the address asks; ``None`` if nothing is kept. One query."""
    rows = TaskLog.objects.using(reads_from()).filter(task_id=call.pk)
    asked = request.GET.get("attempt", "")
    chosen: Any = int(asked) if asked.isdecimal() and len(asked) < 10 else None
    last = Subquery(rows.order_by("-attempt").values("attempt")[:1])
    wanted = Q(attempt=last) if chosen is None else Q(attempt=last) | Q(attempt=chosen)
    texts = Case(When(wanted, then="records")) if full else Value(None, TextField())
    parts = list(rows.order_by("-attempt", "pk").values_list("attempt", "count", texts))
    found: dict[int, int] = {}
    for number, count, _text in parts:
        found[number] = found.get(number, 0) + count
    if not found:
        return None
    attempt = chosen if chosen in found else max(found)
    level = request.GET.get("level", "")
    level = level if level in LEVELS else LEVELS[0]
    records: list[Record] | None = None
    earlier = 0
    if full:
        least = logging.getLevelNamesMapping()[level]
        mine = (text for number, _count, text in parts if number == attempt and text is not None)
        every = [one for text in mine for one in _records(text, least)]
        records, earlier = every[-MOST:], max(0, len(every) - MOST)
    return Log(
        attempts=[(number, count, _address(number, level)) for number, count in list(found.items())[:MOST_ATTEMPTS]],
        attempt=attempt,
        levels=[(name, _address(attempt, name)) for name in LEVELS],
        level=level,
        records=records,
        earlier=earlier,
    )


def _address(attempt: int, level: str) -> str:
    return f"?{urlencode({'attempt': str(attempt), 'level': level})}#djt-log"


def _records(text: str, least: int) -> Iterator[Record]:
    try:
        lines: Any = json.loads(text)
    except ValueError:
        lines = []
    for line in lines if isinstance(lines, list) else ():
        if not (isinstance(line, list) and len(line) == 4 and isinstance(line[1], int)):
            continue
        at, level, logger, said = line
        if level == 0:
            yield Record(None, "", "", display.short(said, 20))
        elif level >= least:
            yield Record(_moment(at), logging.getLevelName(level), display.short(logger), display.cut(str(said)))


def _moment(seconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
