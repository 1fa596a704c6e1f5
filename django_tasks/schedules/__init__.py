"""When things recur: the schedules of Celery and of django-celery-beat, and cron's own strings. No model, no process.

::

    BaseSchedule           yours: say when it runs next
    ├── schedule           every so many seconds
    ├── crontab            Celery's fields: the day must fit the month's field AND the week's
    ├── cron               a line of cron: the day may fit either
    ├── solar              sunrise, sunset, dusk, …
    └── clocked            once

Each answers ``next_after(moment)``, by which runs are planned, and Celery's ``is_due(last_run_at)``. Local clocks that
jump are met the same way by all that look at a clock: a time that does not exist runs once, at the first moment after
the gap, and a time that occurs twice runs once, the first time. Names and meanings are Celery's
(https://docs.celeryq.dev/en/stable/reference/celery.schedules.html); the classes tell where they differ.
"""

from __future__ import annotations

from .base import NEVER_CHECK_TIMEOUT, BaseSchedule, schedstate
from .crontabs import crontab
from .intervals import maybe_schedule, schedule
from .lines import cron
from .once import clocked
from .parser import ParseException, crontab_parser
from .sun import solar

__all__ = [
    "NEVER_CHECK_TIMEOUT",
    "BaseSchedule",
    "ParseException",
    "clocked",
    "cron",
    "crontab",
    "crontab_parser",
    "maybe_schedule",
    "schedstate",
    "schedule",
    "solar",
]
