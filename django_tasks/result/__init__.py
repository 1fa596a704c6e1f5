"""Results: ``AsyncResult``, the caller's handle on a task, and those on several.

Names and meanings are Celery's (https://docs.celeryq.dev/en/stable/reference/celery.result.html).
"""

from __future__ import annotations

from .eager import EagerResult
from .handles import AsyncResult, GroupResult, result_from_tuple, signal_name
from .sets import ResultSet
from .waiting import allow_join_result

__all__ = [
    "AsyncResult",
    "EagerResult",
    "GroupResult",
    "ResultSet",
    "allow_join_result",
    "result_from_tuple",
    "signal_name",
]
