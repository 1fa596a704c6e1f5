"""What passes through a broker: messages in, deliveries out, outcomes and returns back."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from .. import states

#: How a task depends on one before it. AFTER: if that fails, it is not run, and shares its fate. CHORD: it is
#: the body, and fails with ``ChordError``. JOIN: it is one of many bodies, and fails as the header did. ANY: it runs
#: whatever becomes of that one, and is told.
AFTER: Final = "after"
CHORD: Final = "chord"
JOIN: Final = "join"
ANY: Final = "any"
#: What proves in every later move that an attempt is somebody's: the task's id and the number of the attempt.
Claim = tuple[str, int]

#: A node between many and many. It never runs: it is done when all before it are.
JOIN_TASK: Final = "django_tasks.join"


def entries(history: str | None) -> list[dict[str, Any]]:
    """Return what is known of earlier attempts, oldest first; what cannot be read is left out."""
    try:
        found = json.loads(history) if history else []
    except ValueError:
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


class Edge(NamedTuple):
    """One task waits for another one."""

    before: str
    after: str
    kind: str = AFTER


class Unique(NamedTuple):
    """What becomes of a call when one like it is there already; times in seconds."""

    #: The hash that equal calls share.
    key: str
    #: ``skip``, ``replace``, ``raise`` or ``again``.
    on_conflict: str = "skip"
    #: Is a call out of the way once it has started? Else when it has ended.
    until_start: bool = False
    #: Out of the way after so many seconds instead, whatever became of it.
    period: float | None = None
    #: Each further call takes the place of the one that waits, and makes it due so many seconds later.
    debounce: float | None = None
    #: No later than so many seconds after the first one.
    debounce_max: float | None = None


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
    #: The key under which limits count it, empty if it has none; ``None``: no limit that the sender knows of.
    limit_key: str | None = None
    unique: Unique | None = None
    tags: tuple[str, ...] = ()
    #: It is not to run before what its edges name is done.
    waiting: bool = False
    #: Has it a row until it is done? A broker that keeps messages itself can do without.
    durable: bool = True
    #: Set by the broker: there was one like it, and ``id`` and ``custom_id`` are now those of that one.
    conflict: bool = False


class Holder(NamedTuple):
    """Who holds a claim: a worker's row and one slot (child process) of it. Unique per start of either."""

    worker: int
    slot: int
    #: Node name, for the ledger.
    name: str = ""


@dataclass(slots=True)
class Delivery:
    """A task on lease: what ``claim`` gives."""

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
    #: The key under which limits count it; ``None``: none does.
    limit_key: str | None = None
    #: Its rate is kept by when it begins: show that before the body runs.
    watched: bool = False
    #: Successes that this process has just stored, by id: what it takes in may be among them.
    stored: Mapping[str, Outcome] | None = None
    #: ``time.monotonic()`` of the claim.
    claimed: float = field(default_factory=time.monotonic)

    @property
    def expired(self) -> bool:
        """Has it expired, by the broker's clock at the claim and this process's monotonic clock since?"""
        return self.expires_in is not None and time.monotonic() - self.claimed >= self.expires_in

    @property
    def redelivered(self) -> bool:
        """May an earlier attempt have begun, and not ended as the task wanted? A claim given back unstarted is none."""
        if self.attempt - self.retries < 2:
            return False
        return self.losses > 0 or any(one.get("outcome") != "RETRY" for one in entries(self.history))

    @property
    def task_id(self) -> str:
        return self.custom_id or self.id

    @property
    def linked(self) -> bool:
        """May others wait for it, or errbacks be linked to it? Its options say so; a false alarm costs little."""
        return self.options is not None and '"node":' in self.options


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
    #: Has it tags, which go when no line is kept?
    tagged: bool = False
    #: May others wait for it, or errbacks be linked to it?
    linked: bool = False
    #: What the ledger is to have as its arguments, as JSON without the sensitive ones; ``None``: the stored ones. Whose
    #: end brings it along is ``linked``.
    body: str | None = None
    #: Is it a member of a chord's header? What follows then depends on the others, too.
    in_chord: bool = False
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
    #: Other tasks take its place.
    replacement: Replacement | None = None


def claim_of(one: Delivery | Outcome | Return) -> Claim:
    """Return what it is about."""
    return one.id, one.attempt


@dataclass(slots=True)
class Replacement:
    """What takes the place of a running task."""

    #: The one that takes its id, and whose end the rest of the workflow waits for.
    own: Message
    #: What comes before that.
    others: list[Message]
    edges: list[Edge]


class Stepped(NamedTuple):
    """What a step gave: new deliveries, and the ids of outcomes and returns that were not this holder's any more."""

    deliveries: list[Delivery]
    refused: frozenset[str]


class Survey(NamedTuple):
    """What waits in some queues: is anything due, and in how many seconds will the next thing be (``None``:
    nothing)? What is paused does not count. ``limited``: does anything wait to be let through?"""

    due: bool
    next_due: float | None
    limited: bool = False


class Admission(NamedTuple):
    """What a look at the limits gave."""

    #: How many were let through.
    admitted: int
    #: Seconds after which it is worth looking again; ``None``: only when something ends, or is sent.
    again_in: float | None
    #: Is anything held back still, or was before the look?
    waiting: bool = True
    #: Is something due held back by a rate alone, so that it will be let through in time, whatever happens?
    paced: bool = False
