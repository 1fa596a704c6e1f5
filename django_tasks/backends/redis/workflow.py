"""Workflows on Redis: rows and edges are the database's; what a task's end releases is published when that commits.

Should the publication never happen, a sweeper finds the row, as it finds any row that Redis does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..database.arrivals import Arrivals
from ..database.workflow import Workflows
from ..message import Outcome
from .ledger import CURRENT, LEASABLE, Ledger


class RedisWorkflows(Workflows):
    """The same, where a row does not follow each claim."""

    owned = f"{CURRENT.format(t='')} = %s AND {LEASABLE}"

    def __init__(self, alias: str, ledger: Ledger, arrivals: Arrivals) -> None:
        super().__init__(alias, ledger.dialect, arrivals)
        self._ledger = ledger

    def move(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> tuple[set[str], list[str]]:
        return self._ledger.move_within(cursor, outcomes, worker), []
