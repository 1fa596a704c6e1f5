"""Sending: the row joins the caller's transaction, and is published when that commits."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from django.db import connections, transaction

from ... import addresses, exceptions, states
from ...conf import settings
from ..base import Queues
from ..database.broker import DatabaseBroker
from ..database.workflow import Released
from ..message import Edge, Message
from . import wire
from .claims import Claim, due_of
from .leases import Leases, Proof, Published
from .ledger import ledger_of
from .others import Others
from .rows import Row, Rows, message_of
from .server import Server
from .sweeper import Sweeper
from .workflow import RedisWorkflows

logger = logging.getLogger(__name__)


class Sending(DatabaseBroker):
    """What senders use, and what all the rest stands on."""

    sweeper: Sweeper

    def __init__(self, alias: str = "default", url: str | None = None) -> None:
        super().__init__(alias)
        self.server = Server(addresses.parse(url or settings.BROKER_URL), settings.BROKER_CONNECTION_TIMEOUT)
        self.leases = Leases(self.server)
        self.rows = Rows(self.engine)
        self.ledger = ledger_of(self.engine)
        self.others = Others(self.engine, self.leases)
        self._workflows = RedisWorkflows(alias, self.ledger, self._arrivals)
        #: What is held, by id.
        self._claims: dict[str, Claim] = {}
        #: What the database has stored, and Redis has not heard of yet, by queue.
        self._unheard: dict[str, dict[str, Proof]] = {}
        #: Attempts that Redis did not end, though it was to do so alone, by id.
        self._left: dict[str, int] = {}
        #: What the database has released, and Redis has not heard of yet.
        self._released: list[Released] = []
        #: The last start of a worker in this process, and its lease in seconds.
        self._worker = 0
        self._lease = 0.0
        self._consumed = Queues()
        self._mark = ""
        self._turn = 0

    @property
    def generation(self) -> int:
        return self.engine.generation + self.server.generation

    def publish(self, messages: Sequence[Message]) -> None:
        durable = [one for one in messages if one.durable]
        volatile = [one for one in messages if not one.durable]
        for one in volatile:
            _refuse_to_forget(one)
        inside = connections[self.alias].in_atomic_block
        if durable:
            super().publish(durable)
            if inside:
                transaction.on_commit(partial(self._announce, durable), using=self.alias)
            else:
                self._announce(durable)
        if volatile and inside:
            transaction.on_commit(partial(self._send_or_store, volatile), using=self.alias)
        elif volatile:
            self._send(volatile)

    def publish_workflow(self, messages: Sequence[Message], edges: Sequence[Edge]) -> None:
        super().publish_workflow(messages, edges)
        self._announce_on_commit(messages)

    def extend_chord(self, body: str, messages: Sequence[Message], edges: Sequence[Edge], value: Any) -> bool:
        extended = super().extend_chord(body, messages, edges, value)
        if extended:
            self._announce_on_commit(messages)
        return extended

    def _announce_on_commit(self, messages: Sequence[Message]) -> None:
        ready = [one for one in messages if not one.waiting]
        if ready:
            transaction.on_commit(partial(self._announce, ready), using=self.alias)

    def _announce(self, messages: Sequence[Message]) -> None:
        """Publish what is committed; when Redis is away, a sweeper does so later."""
        try:
            plain = [one for one in messages if one.limit_key is None and one.unique is None]
            self._publish(plain, wire.DURABLE)
            if unique := {one.id: one.conflict for one in messages if one.unique is not None}:
                self._publish_unique(unique)
            # These are published when limits let them through, which idle workers look after.
            self.leases.wake({one.queue for one in messages if one.limit_key is not None}, avoid=True)
        except exceptions.OperationalError as error:
            logger.warning("%s. %d tasks are published later", error, len(messages))

    def _send(self, messages: Sequence[Message]) -> None:
        self._publish(messages, wire.VOLATILE)

    def _send_or_store(self, messages: Sequence[Message]) -> None:
        """Send what was part of a transaction that has committed: nobody is there any more to be told of an error, so
        when Redis is away they are given rows."""
        try:
            self._send(messages)
        except exceptions.OperationalError as error:
            logger.warning("%s. %d tasks are given rows and published later", error, len(messages))
            super().publish([replace(one, durable=True) for one in messages])

    def _publish(self, messages: Sequence[Message], kind: str) -> None:
        if messages:
            self.leases.publish([(one, wire.entry_of(one, kind), due_of(one)) for one in messages], "new", avoid=True)

    def _publish_unique(self, ids: Mapping[str, bool]) -> None:
        """Publish calls as their rows say: their time is not the callers', and another call may have taken the place of
        one that waits, perhaps in another queue."""
        rows = [row for row in self.rows.read(ids).values() if row.leasable]
        for row in rows:
            for queue in self.leases.names(fresh=True) if ids[row.id] else ():
                if queue != row.queue:
                    self.leases.remove(queue, [row.id])
        self.publish_rows(rows, "renew")

    def publish_rows(self, rows: Iterable[Row], mode: str = "sweep") -> int:
        """Let tasks wait as their rows say."""
        return self.sweeper.publish(rows, mode)

    def _release(self, released: Sequence[Released]) -> None:
        """Publish what waits for nothing any more, now that this is committed."""
        if released:
            self._publish_released(self._entries(released))

    def _entries(self, released: Sequence[Released]) -> list[Published]:
        rows = self.rows.read([one.id for one in released]).values()
        if limited := {row.queue for row in rows if row.state == states.LIMITED}:
            self._wake_queues(limited)
        ready = [row for row in rows if row.leasable]
        return [(message_of(row), self.sweeper.entry(row, swept=False), f"+{row.due_in:.6f}") for row in ready]

    def _publish_released(self, entries: Sequence[Published]) -> None:
        try:
            self.leases.publish(entries, "new", avoid=True)
        except exceptions.OperationalError as error:
            logger.warning("%s. %d tasks are published later", error, len(entries))

    def _release_on_commit(self, released: Sequence[Released]) -> None:
        transaction.on_commit(partial(self._release, released), using=self.alias)

    def wake(self) -> None:
        transaction.on_commit(self._wake_queues, using=self.alias)

    def _wake(self) -> None:
        """What is published tells of itself."""

    def _wake_queues(self, queues: Collection[str] | None = None) -> None:
        """Have idle workers look at these queues, or all; they do so now and then anyway."""
        with contextlib.suppress(exceptions.OperationalError):
            self.leases.wake(self.leases.names() if queues is None else queues, avoid=True)


def _refuse_to_forget(one: Message) -> None:
    """Raise ``ValueError`` for what needs a row."""
    for given, what in ((one.limit_key is not None, "a limit"), (one.unique is not None, "unique"), (one.tags, "tags")):
        if given:
            raise ValueError(f"{one.name} was sent with durable=False and {what}: that needs a row, so durable=True.")
