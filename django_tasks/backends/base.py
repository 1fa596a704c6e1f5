"""The contract of a broker. Every promise in these docstrings is a test in ``tests/backends/contract.py``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, NamedTuple

from .message import Holder, Message, Outcome, Return, Stepped, Survey


class Queues(NamedTuple):
    """What a worker consumes: ``names`` in order, empty for all there are; never those ``excluded``."""

    names: tuple[str, ...] = ()
    excluded: frozenset[str] = frozenset()

    def __str__(self) -> str:
        text = ",".join(self.names) or "*"
        return text + "".join(f" -{name}" for name in sorted(self.excluded))


class WorkerInfo(NamedTuple):
    """What a worker tells of itself when it starts; ``lease`` in seconds."""

    name: str
    hostname: str
    pid: int
    pool: str
    concurrency: int
    queues: Queues
    version: str
    lease: float


class Held(NamedTuple):
    """A claim as the broker knows it."""

    id: str
    attempt: int
    slot: int


class Waker(ABC):
    """Tells an idle worker that something may have been enqueued. A hint: polling is always there as the net."""

    @abstractmethod
    def fileno(self) -> int | None:
        """Return a descriptor that becomes readable at a hint, or ``None`` if the waker must be asked every
        ``interval``."""

    @abstractmethod
    def interval(self, idle_for: float) -> float:
        """Return after how many seconds to call :meth:`woken` again, when idle for ``idle_for`` seconds."""

    @abstractmethod
    def woken(self) -> bool:
        """Was there a hint since the last call?"""

    @abstractmethod
    def close(self) -> None:
        """Give the descriptor back."""


class ResultWaker(ABC):
    """Wakes one caller that waits for one task."""

    @abstractmethod
    def wait(self, timeout: float) -> None:
        """Return when the task may have ended, or after ``timeout`` seconds; too early now and then."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back."""


class Broker(ABC):
    """Carries tasks from senders to workers, on lease. It runs nothing.

    One instance serves one process and its methods may be called from any thread. :meth:`close` before a fork.
    Methods raise :class:`~django_tasks.exceptions.OperationalError` when the server cannot be reached; whether the call
    took effect is then unknown, and every one of them may safely be repeated.
    """

    #: Does a higher priority leave its queue first?
    supports_priority: ClassVar[bool] = False
    #: Does a publication take part in the caller's database transaction?
    supports_transactions: ClassVar[bool] = False

    @property
    @abstractmethod
    def generation(self) -> int:
        """A number that grows with every new connection: whoever sees it change asks what it :meth:`held`, because a
        statement whose answer was lost may have taken effect."""

    @abstractmethod
    def publish(self, messages: Sequence[Message]) -> None:
        """Accept messages, all or none, in the caller's transaction if there is one and the broker supports it.

        An id that is already waiting or running is left as it is: sending twice stores once.
        """

    @abstractmethod
    def step(
        self,
        done: Sequence[Outcome | Return],
        *,
        holder: Holder,
        queues: Queues = Queues(),  # noqa: B008 - immutable
        limit: int = 0,
        unknown: Sequence[str] = (),
    ) -> Stepped:
        """Store what became of earlier deliveries *and* claim up to ``limit`` new ones, best first.

        An outcome whose ``(id, attempt)`` is no longer leased is refused: nothing of it is stored. Deliveries come by
        queue order, then higher priority, then earlier due time; a task that is not due, expired or named in
        ``unknown`` is not among them (what has expired is delivered with ``expires_in`` ≤ 0, to be finished as
        REVOKED). They belong to ``holder`` for as long as its worker renews its lease.
        """

    @abstractmethod
    def survey(self, queues: Queues) -> Survey:
        """Look at what waits in these queues, at a cost independent of how much that is."""

    # Workers and leases

    @abstractmethod
    def register(self, worker: WorkerInfo) -> int:
        """Start a lease and return the id of this start of a worker."""

    @abstractmethod
    def renew(self, worker: int, *, processed: int, draining: bool = False) -> bool:
        """Renew the lease; False when it ran out before: the worker's tasks are no longer its own, it must stop
        them."""

    @abstractmethod
    def set_idle(self, worker: int, idle: bool) -> None:
        """Tell senders whether a wake-up is wanted."""

    @abstractmethod
    def unregister(self, worker: int) -> None:
        """End the lease; what the worker still holds is given back."""

    @abstractmethod
    def held(self, worker: int, slot: int | None = None) -> list[Held]:
        """Return what a worker (or one slot of it) holds."""

    @abstractmethod
    def rescue(self, *, max_losses: int) -> int:
        """Take back what workers without a lease hold; return how many tasks.

        Each goes back with its place in the queue kept, or ends: REVOKED if that was asked, FAILURE
        (``WorkerLostError``) if
        it is to run at most once or has now cost ``max_losses`` workers. Any number of callers is safe.
        """

    @abstractmethod
    def lose(
        self, holder: Holder, running: Iterable[str], *, begun: Iterable[str] = (), max_losses: int, reason: str
    ) -> int:
        """A slot died: take back what it holds, at once. Only ``running`` is charged with the loss.

        What may run only once ends as FAILURE if it is among ``running`` or ``begun`` (what has run, its outcome not
        stored).
        """

    @abstractmethod
    def give_back(self, holder: Holder, ids: Sequence[str]) -> int:
        """Give unstarted claims of a slot back unchanged, without its help; return how many were still its own."""

    @abstractmethod
    def adopt(self, names: Iterable[str]) -> int:
        """Put tasks of these names that were set aside as unroutable back into their queues."""

    # One task

    @abstractmethod
    def mark_started(self, running: Mapping[tuple[str, int], float]) -> None:
        """Make running attempts visible: ``(id, attempt)`` to seconds since the start."""

    @abstractmethod
    def report(self, task_id: str, attempt: int, state: str, meta: str | None) -> bool:
        """Show a custom state and its serialized ``meta`` over STARTED; False if the attempt lost its lease."""

    @abstractmethod
    def is_revoked(self, task_id: str, attempt: int) -> bool:
        """Should this attempt stop: was it revoked, or is it not the owner any more?"""

    @abstractmethod
    def revoke(self, task_ids: Sequence[str]) -> int:
        """Cancel: what waits ends as REVOKED now, what runs is marked. Return how many were found unfinished."""

    @abstractmethod
    def purge(self, queues: Queues) -> int:
        """Delete everything that waits in these queues, without a trace; return how many."""

    # House-keeping

    @abstractmethod
    def prune(
        self, expires: Mapping[str, timedelta | None], *, batch: int = 1_000, deadline: float = float("inf")
    ) -> int:
        """Delete finished tasks older than ``expires[state]``, ``batch`` rows at a time, until none is left or
        ``time.monotonic()`` passes ``deadline``; return how many. Also forgets workers that stopped a day ago."""

    @abstractmethod
    def waker(self) -> Waker:
        """Return a new source of hints for a worker of this process."""

    @abstractmethod
    def result_waker(self, task_id: str) -> ResultWaker:
        """Return what wakes a caller that waits for this task; it opens a connection of its own where it needs one."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the broker's clock."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection of this process; the next call opens a new one."""
