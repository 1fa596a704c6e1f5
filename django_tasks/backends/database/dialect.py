"""What differs between databases: the clock, ids, and the three hot statements (publish, step, bands)."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

from ... import states
from ..message import Delivery, Holder, Message, Outcome

TASK = "django_tasks_task"
RESULT = "django_tasks_taskresult"
WORKER = "django_tasks_worker"

#: The condition of the claim index; spelled with literals, so that a partial index is seen to fit.
CLAIMABLE = "state IN ('PENDING', 'RETRY')"

#: Columns that the ledger takes over from the to-do list, copied inside the server.
COPIED = [
    "id",
    "custom_id",
    "name",
    "queue",
    "priority",
    "created_at",
    "due_at",
    "expires_at",
    "attempt",
    "retries",
    "body",
    "encoding",
    "options",
    "root_id",
    "parent_id",
]

#: A claimed row as the worker gets it, after its id, due time and expiry.
CLAIMED = [
    "attempt",
    "name",
    "queue",
    "priority",
    "body",
    "encoding",
    "custom_id",
    "options",
    "retries",
    "losses",
    "history",
    "at_most_once",
    "revoked_at",
    "root_id",
    "parent_id",
]


class Band(NamedTuple):
    """One priority of one queue that has something waiting; its head is due in ``due_in`` seconds (≤ 0: now)."""

    queue: str
    priority: int
    due_in: float


class Dialect(ABC):
    """One database's spelling. Stateless: connections and marks are passed in."""

    #: The database's clock, and a moment so many seconds (one parameter) from it.
    now: ClassVar[str]
    later: ClassVar[str]
    #: Opens a transaction in which the first statement may write.
    begin: ClassVar[str] = "BEGIN"
    #: Turns a text parameter into an id.
    uuid: ClassVar[str] = "%s"

    def connection_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the ``OPTIONS`` for an engine connection, made from the site's own."""
        return options

    @abstractmethod
    def prepare_session(self, connection: Any) -> None:
        """Set an engine connection up, once it is open."""

    @abstractmethod
    def epoch(self, column: str) -> str:
        """Return SQL for ``column`` in seconds since 1970, as a double."""

    @abstractmethod
    def is_transient(self, error: Exception) -> bool:
        """Is this a deadlock or a busy database: may the same work succeed at once?"""

    def key(self, task_id: str) -> str:
        """Return a canonical id as a parameter of this database."""
        return task_id

    @abstractmethod
    def publish(self, cursor: Any, messages: Sequence[Message], notify: bool) -> None:
        """Insert tasks in the caller's transaction; wake idle workers if the database can and ``notify`` asks for
        it."""

    @abstractmethod
    def step(
        self,
        engine: Any,
        outcomes: Sequence[Outcome],
        *,
        holder: Holder,
        plan: Any,
        limit: int,
        unknown: Sequence[str],
    ) -> tuple[list[Delivery], set[str], list[str]]:
        """Finish ``outcomes`` and claim up to ``limit`` in one transaction.

        Return the deliveries, the ids that were not this holder's any more, and the finished ids somebody waits for.
        """

    @abstractmethod
    def finish(self, cursor: Any, outcomes: Sequence[Outcome], worker: str) -> tuple[set[str], list[str]]:
        """Move outcomes to the ledger in the cursor's transaction; return refused and awaited ids."""

    @abstractmethod
    def bands(self, engine: Any, queues: Sequence[str] | None) -> list[Band]:
        """Return what waits: a look at the head of each priority of each queue, at constant cost. ``None``: all
        queues."""

    @abstractmethod
    def tell(self, engine: Any, channel: str, payloads: Iterable[str]) -> None:
        """Wake who waits on ``channel``, where the database can."""


def outcome_rows(outcomes: Sequence[Outcome], key: Any) -> list[list[Any]]:
    """Return outcomes as rows: id, attempt, state, age, runtime, result, encoding, exception, traceback, history,
    keep."""
    moment = time.monotonic()
    return [
        [
            key(one.id),
            one.attempt,
            one.state,
            round(moment - one.ended, 6),
            one.runtime,
            one.result,
            one.result_encoding,
            one.exception,
            one.traceback,
            one.history,
            1 if one.keep else 0,
        ]
        for one in outcomes
    ]


def delivery(row: Sequence[Any], dashed: Any) -> Delivery:
    """Make a delivery of a claimed row: id, due (epoch), expires in (seconds), then :data:`CLAIMED`."""
    (id_, due, expires_in, attempt, name, queue, priority, body, encoding, custom_id, options) = row[:11]
    (retries, losses, history, at_most_once, revoked_at, root_id, parent_id) = row[11:18]
    return Delivery(
        id=dashed(id_),
        attempt=attempt,
        name=name,
        queue=queue,
        priority=priority,
        body=body,
        encoding=encoding,
        custom_id=custom_id,
        options=options,
        retries=retries,
        losses=losses,
        history=history,
        at_most_once=bool(at_most_once),
        revoked=revoked_at is not None,
        root_id=dashed(root_id) if root_id is not None else None,
        parent_id=dashed(parent_id) if parent_id is not None else None,
        due=due,
        expires_in=expires_in,
    )


def dump(value: Any) -> str:
    """Write a parameter: one JSON text costs a tenth of an array of Python values."""
    return _dumps(value)


try:
    import orjson

    def _dumps(value: Any) -> str:
        return orjson.dumps(value).decode()

except ImportError:

    def _dumps(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))


assert {"PENDING", "RETRY"} == states.CLAIMABLE  # noqa: S101 - the literal above says the same
