"""What passes through a broker: messages in, deliveries out, outcomes and returns back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from .. import states


@dataclass(slots=True)
class Message:
    """A call as it is handed to the broker; every text is already serialized.

    ``delay`` and ``expires_in`` are seconds from the broker's now; ``eta`` and ``expires_at`` aware moments.
    """

    id: str
    name: str
    queue: str
    body: str
    priority: int = 0
    custom_id: str | None = None
    encoding: str = ""
    options: str | None = None
    delay: float = 0.0
    eta: datetime | None = None
    expires_in: float | None = None
    expires_at: datetime | None = None
    at_most_once: bool = False
    root_id: str | None = None
    parent_id: str | None = None


class Holder(NamedTuple):
    """Who holds a claim: a worker's row and one slot (child process) of it. Unique per start of either."""

    worker: int
    slot: int
    #: Node name, for the ledger.
    name: str = ""


@dataclass(slots=True)
class Delivery:
    """A task on lease: what ``claim`` gives. ``(id, attempt)`` is the proof of ownership in every later move."""

    id: str
    attempt: int
    name: str
    queue: str
    priority: int
    body: str
    encoding: str = ""
    custom_id: str | None = None
    options: str | None = None
    retries: int = 0
    losses: int = 0
    history: str | None = None
    at_most_once: bool = False
    revoked: bool = False
    root_id: str | None = None
    parent_id: str | None = None
    #: When it became due, in seconds since 1970 by the broker's clock; sorts a batch.
    due: float = 0.0
    #: Seconds until it expires, counted from ``claimed``; ``None`` is never.
    expires_in: float | None = None
    #: ``time.monotonic()`` of the claim.
    claimed: float = field(default_factory=time.monotonic)

    @property
    def expired(self) -> bool:
        """Has it expired, by the broker's clock at the claim and this process's monotonic clock since?"""
        return self.expires_in is not None and time.monotonic() - self.claimed >= self.expires_in

    @property
    def task_id(self) -> str:
        return self.custom_id or self.id


@dataclass(slots=True)
class Outcome:
    """How an attempt ended for good: it goes to the ledger."""

    id: str
    attempt: int
    state: str
    result: str | None = None
    result_encoding: str = ""
    exception: str = ""
    traceback: str | None = None
    #: Seconds the body ran; ``None`` if it did not.
    runtime: float | None = None
    #: The earlier attempts as JSON, when this attempt adds to them; ``None`` leaves them as they are.
    history: str | None = None
    #: A line in the ledger? False for an ignored success: the row is only deleted.
    keep: bool = True
    #: ``time.monotonic()`` of the end; the broker dates the line by its own clock and this age.
    ended: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Return:
    """How an attempt that did not end it gives the task back: to run again, or to wait for a worker that knows it."""

    id: str
    attempt: int
    #: PENDING (given back unchanged), RETRY (its next attempt) or UNROUTABLE (name unknown here).
    state: str = states.PENDING
    #: Seconds until it is due again; ``None`` keeps the old due time, and so its place in the queue.
    delay: float | None = None
    #: Absolute moment of the next attempt, instead of ``delay``.
    eta: datetime | None = None
    retries: int | None = None
    #: Did a worker die over it?
    lost: bool = False
    history: str | None = None
    #: New arguments for the next attempt; ``None`` keeps them.
    body: str | None = None
    encoding: str = ""
    #: New options, queue and priority for the next attempt; ``None`` keeps them.
    options: str | None = None
    queue: str | None = None
    priority: int | None = None


class Stepped(NamedTuple):
    """What a step gave: new deliveries, and the ids of outcomes and returns that were not this holder's any more."""

    deliveries: list[Delivery]
    refused: frozenset[str]


class Survey(NamedTuple):
    """What waits in some queues: is anything due, and in how many seconds will the next thing be (``None``:
    nothing)?"""

    due: bool
    next_due: float | None
