"""What a field of a crontab may say: ``*/15``, ``1-5``, ``mon,wed``, ``22-2/2``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, Final

__all__ = ["ParseException", "crontab_parser", "field_error", "parsed"]

#: The longest text of one field, in characters.
MAX_LENGTH: Final = 1024
WEEKDAYS: Final[Mapping[str, int]] = MappingProxyType(
    {"sunday": 0, "monday": 1, "tuesday": 2, "wednesday": 3, "thursday": 4, "friday": 5, "saturday": 6}
)
MONTHS: Final[Mapping[str, int]] = MappingProxyType(
    {
        **{"january": 1, "february": 2, "march": 3, "april": 4, "may": 5, "june": 6, "july": 7, "august": 8},
        **{"september": 9, "october": 10, "november": 11, "december": 12},
    }
)


class ParseException(ValueError):
    """A field of a crontab cannot be read. Celery's name; also a ``ValueError``, which Celery raises at times."""


class crontab_parser:
    """Reads one field whose numbers begin with ``min_``; there are ``max_`` of them. Celery's ``crontab_parser``.

    ``*`` is all, ``5`` one, ``1-5`` several, ``22-2`` goes round the end; ``/2`` after ``*`` or a range takes every
    second of them, ``,`` joins. Days of the week (``crontab_parser(7)``, Sunday is 0) and months
    (``crontab_parser(12, 1)``) may be named in English, by three letters or more, in any case.

    Unlike Celery's it refuses what does not belong: ``1-5-7``, which Celery reads as ``1-5``, names in other fields,
    and names that only begin like one, such as ``monkey``.
    """

    ParseException: ClassVar[type[ParseException]] = ParseException
    #: Does ``5/15`` mean from 5 on, every 15th? Celery refuses it.
    _number_with_step: ClassVar[bool] = False

    def __init__(self, max_: int = 60, min_: int = 0) -> None:
        self.max_ = max_
        self.min_ = min_
        self._last = max_ + min_ - 1
        self._names: Mapping[str, int] = {(7, 0): WEEKDAYS, (8, 0): WEEKDAYS, (12, 1): MONTHS}.get((max_, min_), {})

    @property
    def allowed(self) -> str:
        """What may stand in the field, for messages."""
        short = [name[:3] for name in self._names]
        names = f" or {short[0]} to {short[-1]}" if short else ""
        return f"{self.min_} to {self._last}{names}, *, ranges (a-b), steps (*/n, a-b/n), and lists of these (a,b)"

    def parse(self, spec: str) -> set[int]:
        """Return the numbers that ``spec`` stands for. Raises ``ParseException`` with the part that is wrong."""
        if len(spec) > MAX_LENGTH:
            raise ParseException(f"it has more than {MAX_LENGTH} characters")
        numbers: set[int] = set()
        for part in spec.split(","):
            numbers.update(self._part(part.strip()))
        return numbers

    def _part(self, part: str) -> list[int]:
        if not part:
            raise ParseException("a part is empty")
        numbers, slash, step = part.partition("/")
        found = self._numbers(numbers)
        if not slash:
            return found
        if not (step.isascii() and step.isdigit() and int(step)):
            raise ParseException(f"the step of {part!r} is no whole number above 0")
        if "-" not in numbers and numbers != "*":
            if not self._number_with_step:
                raise ParseException(f"before the step of {part!r} stands neither * nor a range")
            found = list(range(found[0], self._last + 1))
        return found[:: int(step)]

    def _numbers(self, text: str) -> list[int]:
        if text == "*":
            return list(range(self.min_, self._last + 1))
        begin, dash, end = text.partition("-")
        if not dash:
            return [self._number(text)]
        first, last = self._number(begin), self._number(end)
        if last < first:  # round the end
            return [*range(first, self._last + 1), *range(self.min_, last + 1)]
        return list(range(first, last + 1))

    def _number(self, text: str) -> int:
        if text.isascii() and text.isdigit():
            number = int(text)
            if self.min_ <= number <= self._last:
                return number
            raise ParseException(f"{number} is not between {self.min_} and {self._last}")
        wanted = text.lower()
        for name, number in self._names.items():
            if len(wanted) >= 3 and name.startswith(wanted):
                return number
        raise ParseException(f"{text!r} is no number{' and no name' if self._names else ''}")


@lru_cache(maxsize=1024)
def parsed(parser: type[crontab_parser], spec: str, max_: int, min_: int) -> frozenset[int]:
    """Return what a parser makes of a field; many schedules have the same ones."""
    return frozenset(parser(max_, min_).parse(spec))


def field_error(name: str, given: Any, reason: str, allowed: str) -> ParseException:
    """Return what to raise for a field."""
    shown = repr(given)
    if len(shown) > 100:
        shown = f"{shown[:100]}…"
    return ParseException(f"{name} is {shown}: {reason}; allowed: {allowed}")
