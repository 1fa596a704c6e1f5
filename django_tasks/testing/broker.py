"""The broker of a test: it does everything on the test's own connection, and its clock can be set forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar, cast

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..backends import get_broker, substituted
from ..backends.base import Queues
from ..backends.database import DatabaseBroker
from ..backends.database.engine import Engine
from ..backends.message import Holder, Message, Outcome, Return, Stepped
from ..conf import settings

T = TypeVar("T")


class Capture(Protocol):
    """Wants to know what is sent."""

    #: Is it to be stored all the same?
    store: bool

    def take(self, messages: Sequence[Message], clock: datetime | None) -> None:
        """Hear of messages that were sent, at ``clock`` if the test has travelled."""


class _Borrowed:
    """The caller's connection as the engine sees it: what prepares statements of its own elsewhere does not here."""

    pooled = True

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class CallersEngine(Engine):
    """The engine on the caller's connection: it sees what the caller has not committed, and a rollback undoes it."""

    @contextmanager
    def session(self) -> Iterator[BaseDatabaseWrapper]:
        # What the database refuses must not break the transaction of the test.
        with transaction.atomic(using=self.alias):
            yield cast(BaseDatabaseWrapper, _Borrowed(connections[self.alias]))

    def transaction(self, work: Callable[[Any], T]) -> T:
        with self.session() as connection, connection.cursor() as cursor:
            return work(cursor)

    def close(self) -> None:
        """Leave the connection to the test."""


class CallersBroker(DatabaseBroker):
    """The database broker inside a test."""

    engine_class = CallersEngine

    def __init__(self, alias: str) -> None:
        super().__init__(alias)
        #: The moment to which the test has travelled; ``None``: the database's own clock.
        self.clock: datetime | None = None
        #: Those who want to know what is sent.
        self.captures: list[Capture] = []

    def publish(self, messages: Sequence[Message]) -> None:
        if all(capture.store for capture in self.captures):
            with _sent_at(self.clock, messages):
                super().publish(messages)
        sent = [message for message in messages if not message.conflict]
        for capture in self.captures:
            capture.take(sent, self.clock)

    def step(
        self,
        done: Sequence[Outcome | Return],
        *,
        holder: Holder,
        queues: Queues = Queues(),  # noqa: B008 - immutable
        limit: int = 0,
        unknown: Sequence[str] = (),
    ) -> Stepped:
        if self.clock is not None:
            done = [_returned_at(self.clock, one) if isinstance(one, Return) else one for one in done]
        return super().step(done, holder=holder, queues=queues, limit=limit, unknown=unknown)

    def now(self) -> datetime:
        return super().now() if self.clock is None else self.clock


@contextmanager
def callers_broker() -> Iterator[CallersBroker]:
    """Let this process use the broker of a test within this block; the one that is there already, if blocks nest."""
    alias = settings.DATABASE
    present = get_broker(alias)
    if isinstance(present, CallersBroker):
        yield present
        return
    broker = CallersBroker(alias)
    with substituted(broker):
        yield broker


@contextmanager
def _sent_at(clock: datetime | None, messages: Sequence[Message]) -> Iterator[None]:
    """Let messages say when they are due and expire by this clock, while they are stored."""
    if clock is None:
        yield
        return
    before = [(one.eta, one.delay, one.expires_at, one.expires_in) for one in messages]
    for one in messages:
        if one.eta is None:
            one.eta, one.delay = clock + timedelta(seconds=one.delay), 0.0
        if one.expires_in is not None:
            one.expires_at, one.expires_in = clock + timedelta(seconds=one.expires_in), None
    yield
    for one, given in zip(messages, before, strict=True):
        one.eta, one.delay, one.expires_at, one.expires_in = given


def _returned_at(clock: datetime, back: Return) -> Return:
    if back.delay is None:
        return back
    return replace(back, eta=clock + timedelta(seconds=back.delay), delay=None)
