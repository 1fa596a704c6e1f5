"""The limits as brokers and workers read them: which of them a task is subject to, and what they say."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..rates import Spacing, parse
from .message import Delivery

#: What a place is counted under: kind, name, and the key if each has its own.
Scope = tuple[str, str, str]


class Rule(NamedTuple):
    """One row of :class:`~django_tasks.models.Limit`."""

    kind: str
    name: str
    #: Starts per second; ``None``: as many as there are.
    per_second: float | None = None
    per_worker: bool = False
    per_key: bool = False
    concurrency: int | None = None
    fair: bool = False
    #: Seconds until a pause ends by itself, infinite for one that does not; ``None``: not paused.
    resumes_in: float | None = None

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Rule:
        """Return a row's rule; a rate that cannot be read, which somebody wrote into the table, is none."""
        try:
            per_second = parse(row["rate"])
        except (TypeError, ValueError):
            per_second = None
        seconds = row["resumes_in"]
        return cls(
            row["kind"],
            row["name"],
            per_second,
            bool(row["per_worker"]),
            bool(row["per_key"]),
            row["concurrency"],
            bool(row["fair"]),
            None if seconds is None or seconds == 0 else float("inf") if seconds < 0 else float(seconds),
        )

    @property
    def limits(self) -> bool:
        """Does it count anything? A pause alone does not."""
        return self.per_second is not None or self.concurrency is not None or self.fair

    def scope(self, key: str) -> Scope:
        """Return what a task with this key is counted under."""
        return self.kind, self.name, key if self.per_key else ""

    def spacing(self, workers: int) -> Spacing | None:
        """Return its rate when so many workers run."""
        if self.per_second is None:
            return None
        return Spacing.of(self.per_second * (max(1, workers) if self.per_worker else 1))


class Rules:
    """All limits there are, at one moment; with no argument, none were ever read."""

    def __init__(self, rules: Iterable[Rule] | None = None) -> None:
        self._rules = {(rule.kind, rule.name): rule for rule in rules or ()}
        self._read = float("-inf") if rules is None else time.monotonic()

    @property
    def age(self) -> float:
        """Seconds since they were read; infinite if they never were."""
        return time.monotonic() - self._read

    def __bool__(self) -> bool:
        return bool(self._rules)

    def of(self, queue: str, name: str) -> list[Rule]:
        """Return the rules that a task of this name in this queue is subject to."""
        found = (self._rules.get(("task", name)), self._rules.get(("queue", queue)))
        return [rule for rule in found if rule is not None]

    def paused(self, rule: Rule) -> float | None:
        """Return in how many seconds a pause ends by itself; ``None`` when it is not, or not any more, paused."""
        if rule.resumes_in is None:
            return None
        left = rule.resumes_in - (time.monotonic() - self._read)
        return left if left > 0 else None

    def paused_queues(self) -> dict[str, float]:
        """Return the paused queues, with the seconds until they resume."""
        queues = [rule for rule in self._rules.values() if rule.kind == "queue"]
        return {rule.name: left for rule in queues if (left := self.paused(rule)) is not None}

    def hold(self, one: Delivery) -> bool:
        """May this delivery not start? Its sender did not know of the limit, or it was paused since."""
        for rule in self.of(one.queue, one.name):
            if self.paused(rule) is not None or (rule.limits and one.limit_key is None):
                return not one.expired
        return False

    def watch(self, one: Delivery) -> bool:
        """Does a rate want to know when this delivery begins?"""
        return any(
            rule.per_second is not None and Spacing.of(rule.per_second).is_watched
            for rule in self.of(one.queue, one.name)
        )
