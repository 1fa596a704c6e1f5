"""Moving from one broker to another while senders and workers of both are at work.

What keeps a task from running twice meanwhile is its row. Workers fed by the database change it when they take a task.
Those fed by a Redis ask it before each start while others live (:mod:`.others`), and the mover makes itself one of
those others before anybody new begins: it registers as a worker that takes nothing. A message without a row is given
one on its way, in an order in which a crash leaves it in one place: a row that nobody takes, the message gone (which
Redis remembers, as a worker may have taken it instead), and only then a row like any other.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ... import addresses, states
from ...conf import settings
from ...exceptions import OperationalError
from ..base import Queues, WorkerInfo
from ..database.broker import DatabaseBroker
from . import wire
from .broker import RedisBroker
from .leases import MANY, TURN, Place
from .others import FRESH

#: Seconds that each worker needs at most to find out that there are others.
HEARD = 2 * FRESH + 1.0
#: Seconds without anything found after which the old broker is taken to be silent.
QUIET = 5.0
#: Seconds between two looks.
PAUSE = 0.5


class Progress(NamedTuple):
    """How far it is."""

    #: How many were taken out of the old broker, and how many were put into the new one.
    taken: int
    put: int
    #: Workers that each of them feeds.
    old_workers: int
    new_workers: int
    #: Is there nothing in the old broker, waiting or held?
    empty: bool


class Mover:
    """Moves what waits from ``source`` to ``target``, two values of ``BROKER_URL``.

    Raises ``ValueError`` if they are the same, or both the database; ``OperationalError`` when one cannot be reached.
    """

    def __init__(self, source: str, target: str, alias: str | None = None) -> None:
        alias = alias or settings.DATABASE
        named = [None if addresses.is_database(url) else addresses.parse(url) for url in (source, target)]
        if named[0] == named[1]:
            raise ValueError(f"FROM and TO are the same: {addresses.masked(source)}")
        self._site = DatabaseBroker(alias)
        self._source = None if named[0] is None else RedisBroker(alias, source)
        self._target = None if named[1] is None else RedisBroker(alias, target)
        self._me = 0
        self._renewed = time.monotonic()
        self._name = f"migrate-broker@{socket.gethostname()}"
        self._turn = secrets.token_hex(8)
        self._taken = self._put = 0

    def open(self) -> None:
        """Make all workers ask before each start; return when they do."""
        for broker in self._redises():
            broker.server.version()
        info = WorkerInfo(
            self._name,
            socket.gethostname(),
            os.getpid(),
            "none",
            0,
            Queues(("migrate-broker",)),
            "",
            settings.WORKER_LEASE,
        )
        self._me = self._site.register(info)
        time.sleep(HEARD)
        for broker in self._redises():
            broker.show_held()
        if self._source is not None:
            self._repair(self._source)

    def move(self) -> Progress:
        """Do one round."""
        self._keep_alive()
        if self._source is not None:
            self._drain(self._source)
        if self._target is not None:
            self._put += self._target.sweeper.fill(self._keep_alive)
        return self.look()

    def look(self) -> Progress:
        """Return how far it is."""
        self._keep_alive()
        alive = self._redises()[0].others.alive() - {self._me}
        old = alive & self._source.leases.workers() if self._source is not None else alive
        new = alive & self._target.leases.workers() if self._target is not None else alive - old
        if self._source is None:
            old -= new
        empty = self._source is None or self._source.leases.is_empty()
        return Progress(self._taken, self._put, len(old), len(new), empty)

    def run(self, tell: Callable[[Progress], object]) -> Progress:
        """Move whenever the new broker feeds a worker, until the old one has none, and nothing, for a while; ``tell``
        is called after each look."""
        silent_since: float | None = None
        while True:
            now = self.look()
            if now.new_workers:
                before = (self._taken, self._put)
                now = self.move()
                if now.old_workers or not now.empty or before != (self._taken, self._put):
                    silent_since = None
                elif silent_since is None:
                    silent_since = time.monotonic()
                elif time.monotonic() - silent_since > QUIET:
                    tell(now)
                    return now
            tell(now)
            time.sleep(PAUSE)

    def close(self) -> None:
        """Let workers start without asking, once those of the other broker are gone, too."""
        with contextlib.suppress(OperationalError):  # all of this ends by itself, too
            if self._me:
                self._site.unregister(self._me)
            if self._source is not None:
                key = self._source.server.shared("sweeper")
                if self._source.server.command("GET", key) == self._turn.encode():
                    self._source.server.command("DEL", key)
        for broker in (self._site, *self._redises()):
            broker.close()

    def _redises(self) -> list[RedisBroker]:
        return [broker for broker in (self._source, self._target) if broker is not None]

    def _keep_alive(self) -> None:
        if time.monotonic() - self._renewed > settings.WORKER_HEARTBEAT_INTERVAL / 2:
            self._renewed = time.monotonic()
            self._site.renew(self._me, processed=0)
            if self._source is not None:
                self._keep_turn(self._source)

    def _keep_turn(self, source: RedisBroker) -> None:
        """Its own workers would publish again what is taken out."""
        source.server.command("SET", source.server.shared("sweeper"), self._turn, "EX", TURN)

    def _drain(self, source: RedisBroker) -> None:
        self._keep_turn(source)
        source.rescue(max_losses=settings.TASK_MAX_WORKER_LOSSES)
        for queue in source.leases.names(fresh=True):
            for places in source.leases.waiting(queue):
                self._keep_alive()
                with_row = [one.id for one in places if one.durable]
                removed = source.leases.remove(queue, with_row)
                self._taken += sum(what == 1 for what in removed.values())
                self._give_rows(source, queue, [one for one in places if not one.durable])

    def _give_rows(self, source: RedisBroker, queue: str, places: Sequence[Place]) -> None:
        if not places:
            return
        now = source.leases.now()
        calls, ages = [], {}
        for one in places:
            expires_at = one.entry.expires_at
            calls.append(one.entry.delivery(one.id, queue, one.due or now, now, one.entry.attempt))
            ages[one.id] = ((one.due or now) - now, None if expires_at is None else expires_at - now)
        source.rows.keep(calls, states.WAITING, ages=ages)
        mine = source.leases.give(queue, [one.id for one in places])
        retried = {one.id for one in places if wire.RETRIED in one.entry.flags}
        source.rows.release(mine & retried, states.RETRY)
        source.rows.release(mine - retried, states.PENDING)
        source.leases.forget_given(queue)
        source.rows.forget_kept({one.id for one in places} - mine)  # somebody has just taken it
        self._taken += len(mine)

    def _repair(self, source: RedisBroker) -> None:
        """Bring to an end what an earlier mover left half done: release what it took out, and nothing else. What is
        still there is moved again; what is not was taken by a worker."""
        queues = source.leases.names(fresh=True)
        given = {one for queue in queues for one in source.leases.given(queue)}
        for ids in _parts(source.rows.kept()):
            source.rows.release(given.intersection(ids), states.PENDING)
            source.rows.forget_kept(set(ids) - given)
        for queue in queues:
            source.leases.forget_given(queue)


def _parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), MANY):
        yield ids[start : start + MANY]
