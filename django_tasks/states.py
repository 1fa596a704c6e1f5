"""The states of a task and the moves between them. This table is the only place that says what may follow what.

::

    delay() ─▶ PENDING ──claim──▶ STARTED ──▶ SUCCESS | FAILURE | IGNORED | REJECTED
                  ▲  │               │  │
                  │  └─revoke─▶ REVOKED◀┘
                  ├──release/rescue──┤
                  ├──(due)── RETRY ◀─┤
                  └──admit── LIMITED ◀ (a limit, or a pause)

Names and precedence are Celery's (https://docs.celeryq.dev/en/stable/reference/celery.states.html); ``WAITING``,
``UNROUTABLE`` and ``LIMITED`` are ours, and Celery's API shows them as ``PENDING`` (``LIMITED`` after a retry as
``RETRY``).
"""

from __future__ import annotations

from typing import Final

#: Due now or later; nobody has it. Also what an id that nobody knows is said to be, as in Celery.
PENDING: Final = "PENDING"
#: Blocked by unfinished predecessors of its workflow.
WAITING: Final = "WAITING"
#: No running worker knows the task's name: set aside until one does.
UNROUTABLE: Final = "UNROUTABLE"
#: May not start yet: a rate, a concurrency, fairness or a pause holds it back, or the run that it is to follow.
LIMITED: Final = "LIMITED"
#: Known to Celery's API; a claim of ours goes straight to STARTED.
RECEIVED: Final = "RECEIVED"
#: A worker has it.
STARTED: Final = "STARTED"
#: Waits for its next attempt.
RETRY: Final = "RETRY"
SUCCESS: Final = "SUCCESS"
FAILURE: Final = "FAILURE"
#: Cancelled before its end, or expired before its start.
REVOKED: Final = "REVOKED"
#: The task raised ``Reject(requeue=False)`` under Celery's name for it; we store FAILURE.
REJECTED: Final = "REJECTED"
#: The task raised ``Ignore``: nobody wants to know.
IGNORED: Final = "IGNORED"

#: In the to-do list and free to be claimed once due.
CLAIMABLE: Final = frozenset({PENDING, RETRY})
#: Everything that the to-do list may hold.
UNFINISHED: Final = frozenset({PENDING, WAITING, UNROUTABLE, LIMITED, STARTED, RETRY})
#: Everything that the ledger may hold.
FINISHED: Final = frozenset({SUCCESS, FAILURE, REVOKED, REJECTED, IGNORED})

READY_STATES: Final = FINISHED
#: Celery counts REJECTED here; with us it is final.
UNREADY_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, RETRY})
EXCEPTION_STATES: Final = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES: Final = frozenset({FAILURE, REVOKED})
ALL_STATES: Final = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})

#: Legal moves. What is not in here cannot happen; a final state has no way out.
MOVES: Final[dict[str, frozenset[str]]] = {
    PENDING: frozenset({STARTED, UNROUTABLE, LIMITED, REVOKED, FAILURE}),
    WAITING: frozenset({PENDING, LIMITED, SUCCESS, REVOKED, FAILURE}),
    UNROUTABLE: frozenset({PENDING, LIMITED, REVOKED}),
    LIMITED: frozenset({PENDING, REVOKED, FAILURE}),
    RETRY: frozenset({STARTED, REVOKED, FAILURE, UNROUTABLE}),
    STARTED: frozenset({PENDING, WAITING, RETRY, UNROUTABLE, LIMITED, SUCCESS, FAILURE, REVOKED, REJECTED, IGNORED}),
    **{final: frozenset() for final in FINISHED},
}

# Celery's order of precedence, most telling first; None stands for every custom state.
_PRECEDENCE: Final = (SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING)


def precedence(name: str) -> int:
    """Return the rank of a state; lower means that it says more. Custom states rank after FAILURE."""
    return _PRECEDENCE.index(name) if name in _PRECEDENCE else _PRECEDENCE.index(None)


def leading_to(target: str) -> frozenset[str]:
    """Return the states from which ``target`` may be reached."""
    return frozenset(source for source, targets in MOVES.items() if target in targets)


def shown(name: str, retries: int = 0) -> str:
    """Return what Celery's API calls this state: ours are ``PENDING``, but ``LIMITED`` after a retry is ``RETRY``."""
    if name == LIMITED and retries:
        return RETRY
    return PENDING if name in (WAITING, UNROUTABLE, LIMITED) else name


class state(str):
    """A state name that compares by precedence: ``state(PENDING) < state(SUCCESS)``."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)
