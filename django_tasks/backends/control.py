"""The part of a broker's contract that carries commands to workers and their replies back.

Every promise in these docstrings is a test in ``tests/backends/contract.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Self


class Node(NamedTuple):
    """A running worker, or a beat; ``id`` is that of this start, ``queues`` what it consumes as text.

    A beat consumes nothing, and its ids are below 0, so that none is a worker's.
    """

    id: int
    name: str
    queues: str

    def consumes(self, queue: str) -> bool:
        """Does it take tasks from this queue?"""
        names, *excluded = self.queues.split(" -")
        return queue not in excluded and (names == "*" or queue in names.split(","))


class Order(NamedTuple):
    """A command as a worker gets it."""

    id: int
    name: str
    arguments: Mapping[str, Any]
    wants_replies: bool
    #: Seconds for which it would be told again.
    expires_in: float


class Answer(NamedTuple):
    """A worker's reply, or a beat's; ``node`` is the id of its start, ``body`` JSON."""

    node: int
    name: str
    body: str


class Seen(NamedTuple):
    """An unfinished task as a command shows it; ``id`` as the caller knows it, ``key`` that of its row."""

    key: str
    id: str
    attempt: int
    name: str
    queue: str
    priority: int
    state: str
    body: str
    encoding: str
    #: Seconds since 1970 by the broker's clock.
    due: float
    at_most_once: bool
    losses: int
    #: What the row has no column for, as JSON.
    options: str | None


class Line(ABC):
    """One sender's line to the workers: a connection of its own, apart from the caller's transaction. Close it.

    Its methods raise :class:`~django_tasks.exceptions.OperationalError` when the server cannot be reached.
    """

    @abstractmethod
    def nodes(self) -> list[Node]:
        """Return the workers whose lease is fresh, the one that runs longest first."""

    @abstractmethod
    def beats(self) -> list[Node]:
        """Return the beats that gave a sign of life of late, the one that runs longest first."""

    @abstractmethod
    def send(
        self,
        name: str,
        arguments: str,
        *,
        destination: Collection[str] | None = None,
        wants_replies: bool = False,
        lifetime: float,
    ) -> int:
        """Store a command with its arguments as JSON, and wake workers; return its id.

        It is there at once, whatever becomes of the caller's transaction. Where that keeps all others from writing, as
        on SQLite, it is part of it, and :class:`~django_tasks.exceptions.WouldBlockForever` is raised if replies are
        wanted. It is for the workers of these node names, for all if ``None``; after ``lifetime`` seconds nobody obeys
        it any more.
        """

    @abstractmethod
    def replies(self, command: int, known: Collection[int] = ()) -> list[Answer]:
        """Return the replies that there are so far, but for those of the nodes in ``known``, oldest first."""

    @abstractmethod
    def wait(self, timeout: float) -> None:
        """Return when there may be a new reply, or after ``timeout`` seconds; too early now and then."""

    @abstractmethod
    def close(self) -> None:
        """Hang up."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class RemoteControl(ABC):
    """What a broker does for commands. They are stored and answered, never a broadcast that is lost."""

    @abstractmethod
    def line(self) -> Line:
        """Return a new line for a sender."""

    @abstractmethod
    def nodes(self) -> list[Node]:
        """Return the workers whose lease is fresh, the one that runs longest first."""

    @abstractmethod
    def commands(self, worker: int, known: Collection[int] = ()) -> list[Order]:
        """Return the commands for one start of a worker, oldest first, but for those in ``known``.

        A worker that remembers what it got gets each command once. It gets what was sent since it began and has not
        expired: what its predecessor was told is no business of its own. A command whose arguments are no JSON object
        has none.
        """

    @abstractmethod
    def reply(self, command: int, worker: int, body: str) -> bool:
        """Store a worker's answer, which is JSON, and wake who waits for it. A second answer changes nothing.

        False if nobody wants it: the command has expired, or asked for none.
        """

    @abstractmethod
    def answer_pings(self, beat: int, body: str) -> int:
        """Answer with ``body``, which is JSON, for one start of a beat; return how many that were.

        It answers each ``ping`` once that names its node, was sent since it began, wants replies and has not expired.
        Any other command is for workers, and so is a ping that names nobody.
        """

    @abstractmethod
    def prune_commands(self) -> int:
        """Delete the commands that have expired, with their replies; return how many."""

    @abstractmethod
    def peek(self, task_ids: Sequence[str]) -> list[Seen]:
        """Return those of these tasks that are not done, in no order."""

    @abstractmethod
    def scheduled(self, queues: Collection[str], excluded: Collection[str], *, limit: int) -> list[Seen]:
        """Return what becomes due later in these queues, in all if none is named, but for those ``excluded``; the next
        first, at most ``limit``."""

    @abstractmethod
    def revoked(self, *, limit: int) -> list[str]:
        """Return the ids of revoked tasks: what still runs and was asked to stop, then what ended as REVOKED, the last
        first; at most ``limit`` of each."""
