"""What keeps the two stores together: rows that Redis does not know are published.

A sender may die between its commit and the publication, and Redis may lose everything. Nothing marks a row as
published, which would cost a write for each: rows are compared with Redis instead, in order of their ids, which is
mostly that of time. Three looks share the work:

* the *tail*: what was sent since the last look but for the last seconds, which its sender still has;
* the *round*: everything, a thousand rows a second at most, over and over: what was committed long after it was sent.
  While all there is fits into one look, there is no need for the tail;
* the *refill*: everything as fast as it goes, whenever Redis is found to have begun a new life.

A row that Redis does not know may just have been finished, as the row goes first. So it is read once more: if it is
still there, it was not.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ... import states
from . import wire
from .leases import TURN, Leases
from .rows import Row, Rows, message_of

logger = logging.getLogger(__name__)

#: Rows per look.
MANY = 1_000
#: Seconds for which a sender may take to publish what it has committed.
GRACE = 2.0
#: Seconds between looks: when there is nothing to do, and while a round is under way.
EVERY, ROUND = 5.0, 1.0
#: Seconds that a refill may take at a time: the worker has other things to do, such as keeping its lease.
AT_A_TIME = 0.5
#: Seconds after which a queue that nobody sends to is forgotten, and between looks for such queues.
UNUSED, FORGET_EVERY = 3_600.0, 600.0


class Sweeper:
    """The sweeper of one worker; of many workers one sweeps at a time."""

    def __init__(self, leases: Leases, rows: Rows, take_back: Callable[[Sequence[Row]], None]) -> None:
        self._leases = leases
        self._rows = rows
        #: What is done with rows that say that they run, and whose worker is gone.
        self._take_back = take_back
        #: Its name in Redis.
        self.name = f"{os.getpid()}-{secrets.token_hex(4)}"
        #: The life of Redis in which everything has been looked at; what its server called itself then.
        self._life = ""
        self._refill_from: str | None = None
        self._round_from = ""
        self._round_at = 0.0
        self._tail_from = ""
        self._forgot_at = time.monotonic()
        self._published = 0

    def sweep(self) -> float:
        """Do a little; return in how many seconds to go on. Raises ``OperationalError``."""
        life = self._leases.turn(self.name, secrets.token_hex(8))
        if life is None:
            self._life = ""  # whoever sweeps meanwhile knows what it has seen; this one does not
            return TURN / 3
        if life != self._life:
            self._life, self._refill_from = life, ""
        if self._refill_from is not None:
            return self._refill()
        till, at_once = _id_at(time.time() - GRACE), False
        if time.monotonic() - self._round_at >= (ROUND if self._round_from else EVERY) * 0.9:
            self._round_at = time.monotonic()
            begins = not self._round_from
            self._round_from = self._compare(self._rows.page(self._round_from, limit=MANY, age=GRACE))
            at_once = begins and not self._round_from
        if at_once:
            self._tail_from = till  # that was all there is
        else:
            self._tail(till)
        if time.monotonic() - self._forgot_at >= FORGET_EVERY:
            self._forgot_at = time.monotonic()
            self._leases.forget_unused(UNUSED)
        return ROUND if self._round_from else EVERY

    def fill(self, turn: Callable[[], object]) -> int:
        """Publish all rows that Redis does not know; return how many. ``turn`` is called now and then."""
        self._published = 0
        after = ""
        while after := self._compare(self._rows.page(after, limit=MANY)):
            turn()
        return self._published

    def publish(self, rows: Iterable[Row], mode: str) -> int:
        """Let tasks wait as their rows say; return how many did not before."""
        return self._leases.publish(((message_of(row), self.entry(row), f"+{row.due_in:.6f}") for row in rows), mode)

    def entry(self, row: Row, *, swept: bool = True) -> bytes:
        """Write a row as an entry."""
        # Of what is tracked each start asks the row anyway.
        flags = wire.DURABLE + (wire.TRACKED if row.tracked else wire.SWEPT if swept else "")
        call = row.delivery(row.attempt, 0.0)
        # Counted from the publication, which is now.
        rest: list[Any] = [call.body, call.encoding, call.custom_id, call.options, call.at_most_once]
        rest += [call.root_id, call.parent_id]
        rest += [call.retries, call.losses, call.history, row.expires_in, None]
        return wire.write(flags, row.ended, row.priority, row.name, rest)

    def _refill(self) -> float:
        end = time.monotonic() + AT_A_TIME
        while self._refill_from is not None:
            self._refill_from = self._compare(self._rows.page(self._refill_from, limit=MANY)) or None
            if time.monotonic() > end:
                return AT_A_TIME * random.uniform(0.1, 0.3)
        self._tail_from = _id_at(time.time() - 2 * GRACE)
        return ROUND

    def _tail(self, till: str) -> None:
        end = time.monotonic() + AT_A_TIME
        while self._tail_from < till and time.monotonic() < end:
            self._tail_from = self._compare(self._rows.page(self._tail_from, limit=MANY, till=till)) or till

    def _compare(self, page: Sequence[tuple[str, str]]) -> str:
        """Publish those that Redis does not know; return the last id, empty if these were the last."""
        ids: dict[str, list[str]] = {}
        for task_id, queue in page:
            ids.setdefault(queue, []).append(task_id)
        missing = self._leases.missing(ids) if ids else set()
        if missing:
            still = [row for row in self._rows.read(missing).values() if row.leasable]
            # What Redis has forgotten may still run, and be finished by whoever runs it.
            running = [row for row in still if row.state == states.STARTED]
            count = self.publish((row for row in still if row.state != states.STARTED), "sweep")
            self._published += count
            if count:
                logger.info("%d tasks were published that Redis did not know", count)
            if lost := self._rows.without_worker(row.id for row in running):
                self._take_back([row for row in running if row.id in lost])
        return page[-1][0] if len(page) >= MANY else ""


def _id_at(moment: float) -> str:
    """Return the least id of this moment, in seconds since 1970."""
    return str(uuid.UUID(int=max(0, int(moment * 1000)) << 80))
