"""What a process holds, and what its parts are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ... import exceptions, states
from ...redaction import REDACTED
from ..control import Seen
from ..message import Delivery, Message, Outcome, Return, entries
from ..outcomes import failure as _failure
from ..outcomes import revoked as _revoked
from .leases import Place
from .ledger import Written
from .rows import Row

#: What may be lost: a row, or the message of a task that has none.
Lost = Row | Place


class Claim(NamedTuple):
    """What this process holds, as far as it knows."""

    queue: str
    worker: int
    attempt: int
    durable: bool
    #: Of a task that has no row: what its line in the ledger is written from.
    delivery: Delivery | None = None
    published: float = 0.0
    expires_at: float | None = None


def due_of(one: Message) -> str:
    return f"+{one.delay:.6f}" if one.eta is None else repr(one.eta.timestamp())


def due_again(one: Return) -> str:
    return repr(one.eta.timestamp()) if one.eta is not None else f"+{one.delay or 0.0:.6f}"


def by_queue(claims: Mapping[str, Claim]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for task_id, claim in claims.items():
        found.setdefault(claim.queue, {})[task_id] = claim.attempt
    return found


def call_of(place: Place) -> Delivery:
    attempt = place.lease.attempt if place.lease is not None else place.entry.attempt
    due = float(place.lease.due) if place.lease is not None else place.due or 0.0
    return place.entry.delivery(place.id, place.queue, due, 0.0, attempt)


def claim_of(place: Place) -> Claim:
    attempt = place.lease.attempt if place.lease is not None else place.entry.attempt + 1
    about = (call_of(place), place.entry.published, place.entry.expires_at)
    return Claim(place.queue, place.worker or 0, attempt, place.durable, *about)


def written_of(outcome: Outcome, claim: Claim, now: float) -> Written:
    assert claim.delivery is not None  # noqa: S101 - claims without a row have it
    call = claim.delivery
    if outcome.body is not None:
        call = replace(call, body=outcome.body, encoding=REDACTED)
    return Written(outcome, call, claim.published, claim.expires_at, now)


def changed(call: Delivery, one: Return) -> Delivery:
    """Return a call as it is to run next."""
    changes: dict[str, Any] = {
        name: getattr(one, name)
        for name in ("retries", "history", "body", "options", "queue", "priority")
        if getattr(one, name) is not None
    }
    if one.body is not None:
        changes["encoding"] = one.encoding
    return replace(call, attempt=one.attempt, losses=call.losses + one.lost, **changes)


def verdict(
    call: Delivery, revoked: bool, charged: bool, begun: bool, max_losses: int, reason: str, worker: str
) -> Outcome | Return:
    """Return what becomes of a task whose worker, or child, is gone."""
    if revoked:
        return _revoked(call.id, call.attempt)
    if (call.at_most_once and (charged or begun)) or (charged and call.losses + 1 >= max_losses):
        why = "it is to run at most once" if call.at_most_once else f"{call.losses + 1} workers died over it (poison)"
        return _failure(call.id, call.attempt, exceptions.WorkerLostError(f"{reason}; {why}."), state=states.FAILURE)
    entry = {"attempt": call.attempt, "outcome": "LOST", "worker": worker, "error": reason}
    log = json.dumps([*entries(call.history), entry]) if charged or begun else None
    return Return(call.id, call.attempt, states.PENDING, lost=charged, history=log)


def seen_of(place: Place) -> Seen:
    call = call_of(place)
    about = (call.attempt, call.name, call.queue, call.priority, place.state, call.body, call.encoding)
    return Seen(call.id, call.task_id, *about, call.due, call.at_most_once, call.losses, call.options)
