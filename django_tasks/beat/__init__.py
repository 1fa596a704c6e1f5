"""The beat: sends periodic tasks when they are due (``manage.py runbeat``). Celery's names are handed on here.

::

    Service                ticks until it is stopped
    └── DatabaseScheduler  Celery's face of
        └── Engine         plans what changed, fires what is due
            └── sync       what the code declares becomes rows
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .scheduler import DatabaseScheduler, ModelEntry, ScheduleEntry, Scheduler, Service, beat_nodename

__all__ = ["DatabaseScheduler", "ModelEntry", "ScheduleEntry", "Scheduler", "Service", "beat_nodename"]


def __getattr__(name: str) -> Any:
    # Late: what only wants to name the package needs neither models nor settings.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".scheduler", __name__), name)
