"""What becomes of a task when one that it waited for did not succeed; the same wherever it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ..models import Edge
from .message import AFTER, JOIN

#: What became of the task before an edge.
OK: Final = Edge.OK
FAILED: Final = Edge.FAILED
#: It was not run, because one before it failed.
SKIPPED: Final = Edge.SKIPPED


#: How the traceback of a task begins that was not run because of another one.
NOT_RUN: Final = "Not run: "


class Reason(NamedTuple):
    """An edge from a task that did not succeed."""

    before: str
    kind: str
    outcome: str


class Fate(NamedTuple):
    """Why a task is not run."""

    #: The task because of which.
    culprit: str
    #: How it depends on that one.
    kind: str
    #: What is told of it to those behind it: FAILED or SKIPPED. One that is skipped calls no errbacks.
    outcome: str


def fate(reasons: Sequence[Reason]) -> Fate:
    """Return why a task is not run, from all edges that speak against it, in order.

    What came before the whole part of the workflow counts first: then nothing of it was run.
    """
    for one in reasons:
        if one.kind == AFTER or (one.kind == JOIN and one.outcome == SKIPPED):
            return Fate(one.before, one.kind, SKIPPED)
    first = next((one for one in reasons if one.kind == JOIN), reasons[0])
    return Fate(first.before, first.kind, FAILED)
