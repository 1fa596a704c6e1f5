"""The contract of a broker. Every promise in these docstrings is a test in ``tests/backends/contract.py``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

from ..stamps import Wanted
from .control import RemoteControl
from .message import Admission, Delivery, Edge, Holder, Message, Outcome, Return, Stepped, Survey


class Queues(NamedTuple):
    """What a worker consumes: ``names`` in order, empty for all there are; never those ``excluded``."""

    names: tuple[str, ...] = ()
    excluded: frozenset[str] = frozenset()

    def __str__(self) -> str:
        text = ",".join(self.names) or "*"
        return text + "".join(f" -{name}" for name in sorted(self.excluded))

    def includes(self, queue: str) -> bool:
        """Is this queue among them?"""
        return queue not in self.excluded and (not self.names or queue in self.names)

    @classmethod
    def parse(cls, text: str) -> Queues:
        """Return what was written with ``str()``."""
        names, *excluded = text.split(" -")
        return cls(() if names == "*" else tuple(names.split(",")), frozenset(excluded))


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
    #: The id of the row of :class:`~django_tasks.models.TaskNames` that says which tasks it knows; ``None``: it does
    #: not tell.
    task_names: str | None = None


class Held(NamedTuple):
    """A claim as the broker knows it."""

    id: str
    attempt: int
    slot: int


class ToStop(NamedTuple):
    """A claim that was revoked; ``signal`` is the one by which to end it, ``None`` if it is only asked to stop."""

    id: str
    attempt: int
    slot: int
    signal: str | None


class Waker(ABC):
    """Tells an idle worker that something may have been enqueued. A hint: polling is always there as the net."""

    #: Does a hint say whether it is of a command? Else any may be.
    tells_commands: ClassVar[bool] = False
    #: Seconds after which an idle worker looks for tasks without a hint.
    net: ClassVar[float] = 5.0

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

    def resume(self) -> None:  # noqa: B027 - most do so at once
        """Listen again, now that a child was woken: whoever waits for a task waits for that alone."""

    def commanded(self) -> bool:
        """Was a command among the hints that :meth:`woken` took in since the last call, as far as they say?"""
        return False

    def outdated(self) -> bool:
        """Are there other queues than at the last call, so that every :class:`Taker` should ask anew?"""
        return False

    @abstractmethod
    def close(self) -> None:
        """Give the descriptor back."""


class Handed(NamedTuple):
    """What a :class:`Taker` brought; ``new_queue``: it heard that there is a queue which others do not know yet."""

    deliveries: list[Delivery]
    new_queue: bool


class Taker(ABC):
    """Waits for work in the place of a process that has none, and claims one task when there is.

    Any method may raise :class:`~django_tasks.exceptions.OperationalError`: then close it, and find out what the
    process holds.
    """

    @abstractmethod
    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the wait has ended."""

    @abstractmethod
    def ask(self, holder: Holder, queues: Queues, unknown: Sequence[str]) -> bool:
        """Begin to wait for what a step would claim with these arguments; False if there is nothing to wait for."""

    @abstractmethod
    def answer(self) -> Handed:
        """End the wait, if it has not ended, and return what was claimed."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back."""


class ResultWaker(ABC):
    """Wakes one caller that waits for one task."""

    @abstractmethod
    def wait(self, timeout: float) -> None:
        """Return when the task may have ended, or after ``timeout`` seconds; too early now and then."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back."""


class Broker(RemoteControl):
    """Carries tasks from senders to workers, on lease. It runs nothing.

    One instance serves one process and its methods may be called from any thread. :meth:`close` before a fork.
    Methods raise :class:`~django_tasks.exceptions.OperationalError` when the server cannot be reached; whether the call
    took effect is then unknown, and every one of them may safely be repeated.
    """

    #: Does a higher priority leave its queue first?
    supports_priority: ClassVar[bool] = False
    #: Does a publication take part in the caller's database transaction?
    supports_transactions: ClassVar[bool] = False

    #: Can tasks wait for others?
    supports_workflows: ClassVar[bool] = False

    @property
    @abstractmethod
    def generation(self) -> int:
        """A number that grows with every new connection: whoever sees it change asks what it :meth:`held`, because a
        statement whose answer was lost may have taken effect."""

    @abstractmethod
    def publish(self, messages: Sequence[Message]) -> None:
        """Accept messages, all or none, in the caller's transaction if there is one and the broker supports it.

        An id that is already waiting or running is left as it is: sending twice stores once.

        A message with a ``limit_key`` waits until :meth:`admit` lets it through. One that is ``unique`` is stored only
        if none like it is in the way, however many are sent at a time; otherwise what ``on_conflict`` says is done and
        the message says so (``conflict``), with the id of the one that was there. A call replaced in its place, and one
        that is to run after another (``again``, or ``replace`` while that one runs), keeps to the same rule.

        Raises :class:`~django_tasks.exceptions.AlreadyEnqueued` for a conflict that is to be raised; nothing is stored.
        """

    def publish_workflow(self, messages: Sequence[Message], edges: Sequence[Edge]) -> None:
        """Accept messages, and what comes after what, all or none, as :meth:`publish` does; none of them is unique.

        A message that is ``waiting`` is not delivered before all that its edges name are done. Then it is released in
        the very transaction in which the last of them is: as if it were sent in that moment, with its delay and its
        expiry counted from there. When one of them ends as anything but SUCCESS, it is not run: it ends as FAILURE or
        REVOKED as the kind of the edge says, and so on with what waits for it; the errbacks that its options hold are
        stored, each once. That happens when the last of them has ended, whatever becomes of the others.
        """
        raise NotImplementedError(f"{type(self).__name__} carries no workflows")

    def extend_chord(self, body: str, messages: Sequence[Message], edges: Sequence[Edge], value: Any) -> bool:
        """Accept messages as :meth:`publish_workflow` does, and let a chord's body wait for them and take in ``value``,
        too; False, and nothing is stored, when that body does not wait any more."""
        raise NotImplementedError(f"{type(self).__name__} carries no workflows")

    def unblock(self) -> int:
        """Look through some of the edges for a task that waits for nothing any more and was not told so, because what
        it waited for was deleted, or ended by somebody who knew nothing of it; return how many tasks were found.

        Called again and again it comes to all of them. Any number of callers is safe.
        """
        return 0

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

        Nothing comes from a paused queue, nor of a paused task, and nothing that a limit counts before it was let
        through; a limit or a pause that is set, changed or ended is obeyed within about a second. A retry of what a
        limit counts waits to be let through again; what is only given back does not.
        """

    @abstractmethod
    def survey(self, queues: Queues) -> Survey:
        """Look at what waits in these queues, at a cost independent of how much that is."""

    # Limits

    @abstractmethod
    def admit(self, queues: Queues, *, free: int = 1) -> Admission:
        """Let through what limits hold back in these queues, the best first, as far as they allow.

        Limits and pauses are those of :class:`~django_tasks.models.Limit`. A *concurrency* counts what was let through
        and is not done, so a place is free as soon as that ends, or its worker is found dead, and never before. A
        *rate* lets the next one through a period's share after the one before, and only once that has begun: no period
        ever sees more starts than the rate and one (faster than 20 per second, a twentieth of a second's worth more).
        Under *fair* limits the keys of one priority take turns, and no more is let through ahead of its start than
        ``free`` (slots that could run it now), or what starts in a twentieth of a second.

        What no running worker could start, or is paused meanwhile, is held back again. Any number of callers is safe;
        one that finds another at it is told to come back.
        """

    @abstractmethod
    def wake(self) -> None:
        """Hint to idle workers that they may find more to do, once the caller's transaction commits."""

    # Workers and leases

    @abstractmethod
    def register(self, worker: WorkerInfo) -> int:
        """Start a lease and return the id of this start of a worker."""

    @abstractmethod
    def restate(self, worker: int, *, queues: Queues, concurrency: int) -> None:
        """Let everybody see what a worker consumes now, and how many places it has. A waker made before listens for
        what it consumed then."""

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
        """Take back what workers without a lease hold, also those that are forgotten already; return how many tasks.

        Each goes back with its place in the queue kept, or ends: REVOKED if that was asked, FAILURE
        (``WorkerLostError``) if
        it is to run at most once or has now cost ``max_losses`` workers. Any number of callers is safe.
        """

    @abstractmethod
    def lose(
        self, holder: Holder, running: Iterable[str], *, begun: Iterable[str] = (), max_losses: int, reason: str
    ) -> int:
        """A slot died: take back what it holds, at once. Only ``running`` is charged with the loss.

        What is among ``running`` or ``begun`` (what has run, its outcome not stored) ends as FAILURE if it may run only
        once, and else says in its history that it began.
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
    def revoke(self, task_ids: Sequence[str], *, terminate: str | None = None) -> int:
        """Cancel: what waits ends as REVOKED now, what runs is marked. Return how many were found unfinished.

        ``terminate`` is the signal by which a running attempt is to be ended; ``None`` only asks it to stop.
        """

    @abstractmethod
    def reschedule(
        self,
        task_ids: Sequence[str],
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | None = None,
        eta: datetime | None = None,
    ) -> list[str]:
        """Change in which queue, with which priority or when tasks are to run that nobody runs, in the caller's
        transaction; return the ids of those that were changed.

        ``delay`` is seconds from the broker's now, ``eta`` an aware moment instead; ``None`` leaves a value as it is. A
        time cannot be given to what waits for other tasks, or for a worker that knows it.
        """

    @abstractmethod
    def to_stop(self, worker: int) -> list[ToStop]:
        """Return what a worker runs, or holds, that was revoked since it was claimed."""

    @abstractmethod
    def find(
        self,
        *,
        name: str | None = None,
        queue: str | None = None,
        tag: str | None = None,
        stamps: Wanted | None = None,
        after: str = "",
        limit: int,
    ) -> list[str]:
        """Return up to ``limit`` ids of tasks that are not done and not asked to stop, with this name, queue and tag,
        and with one of these stamps; in an order of its own, those behind the id ``after``. Also what the caller's own
        transaction has sent; what has no row (``durable=False``) is found by nobody."""

    @abstractmethod
    def purge(self, queues: Queues) -> int:
        """Delete everything that waits in these queues to run, without a trace; return how many.

        Also what a limit holds back, or is set aside until a worker knows it; not what waits for other tasks, which
        belongs to its workflow.
        """

    # House-keeping

    @abstractmethod
    def prune(
        self, expires: Mapping[str, timedelta | None], *, batch: int = 1_000, deadline: float = float("inf")
    ) -> int:
        """Delete finished tasks older than ``expires[state]``, ``batch`` rows at a time, until none is left or
        ``time.monotonic()`` passes ``deadline``; return how many. Also forgets workers that stopped a day ago."""

    def sweep(self) -> float:
        """Bring what carries messages into line with what is written down; return in how many seconds to go on.

        Where both are one there is nothing to do, ever.
        """
        return float("inf")

    @abstractmethod
    def waker(self) -> Waker:
        """Return a new source of hints for a worker of this process."""

    def taker(self) -> Taker | None:
        """Return what waits for the next task of this process, which nobody need wake then; ``None`` where there is no
        such thing."""
        return None

    @abstractmethod
    def result_waker(self, task_id: str) -> ResultWaker:
        """Return what wakes a caller that waits for this task; it opens a connection of its own where it needs one."""

    @abstractmethod
    def now(self) -> datetime:
        """Return the broker's clock."""

    @abstractmethod
    def close(self) -> None:
        """Close every connection of this process; the next call opens a new one."""
