"""Which time limits a delivery has: the call's, else what was set at run time, else the task's, else the worker's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..backends.message import Delivery
from ..registry import tasks
from ..time_limits import NONE, TimeLimits, validate_limits


class Limits:
    """Answers for one child; what names alone decide is looked up once."""

    def __init__(self, default: TimeLimits = NONE) -> None:
        self._default = default
        self._changed: Mapping[str, TimeLimits] = {}
        self._by_name: dict[str, TimeLimits | None] = {}

    def change(self, limits: Mapping[str, TimeLimits]) -> None:
        """From now on these count in place of what the tasks of these names declare."""
        self._changed = limits
        self._by_name = {}

    def of(self, delivery: Delivery) -> TimeLimits | None:
        """Return the limits of one delivery; ``None`` when it has none."""
        try:
            limits = self._by_name[delivery.name]
        except KeyError:
            limits = self._by_name[delivery.name] = self._named(delivery.name)
        if delivery.options is not None and "time_limit" in delivery.options:
            limits = _given(delivery.options).over(limits or NONE)
        return limits

    def _named(self, name: str) -> TimeLimits | None:
        limits = self._changed.get(name)
        if limits is None:
            task: Any = tasks.get(name)
            limits = NONE if task is None else TimeLimits(task.time_limit, task.soft_time_limit)
        limits = limits.over(self._default)
        return None if limits == NONE else limits


def _given(options: str) -> TimeLimits:
    """Return what a message says; nothing if it cannot be read, which the executor will tell."""
    try:
        found = json.loads(options)
        return validate_limits(found.get("time_limit"), found.get("soft_time_limit"))
    except (TypeError, ValueError, AttributeError):
        return NONE
