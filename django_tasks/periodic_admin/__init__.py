"""The admin of periodic tasks: one page on which a task, its arguments and its schedule are set, checked and shown."""

from __future__ import annotations

from .pages import PeriodicTaskAdmin

__all__ = ["PeriodicTaskAdmin"]
