"""Where the values of results lie, if not in the ledger itself (setting ``RESULT_BACKEND``)."""

from __future__ import annotations

from .base import ResultStore
from .values import close_all, drop, fetch, is_elsewhere, keep, problems

__all__ = ["ResultStore", "close_all", "drop", "fetch", "is_elsewhere", "keep", "problems"]
