"""What all pools share: claiming and storing. A child pulls; how it runs what it claimed is its pool's business."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import threading
import time
from abc import ABC, abstractmethod
from asyncio import Task
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import DatabaseError

from .. import signals
from ..backends import get_broker
from ..backends.base import Queues
from ..backends.message import Claim, Delivery, Holder, Outcome, Return, Stepped, claim_of
from ..conf import settings
from ..exceptions import OperationalError
from ..executor import Execution
from ..journal import journals
from ..registry import tasks
from ..time_limits import NONE, TimeLimits
from .autoscale import Autoscale
from .board import Board
from .counts import Counts
from .limits import Limits
from .memory import resident_kib
from .pools import Pool
from .site_connections import SiteConnections
from .slots import Window

logger = logging.getLogger("django_tasks.worker")

#: Seconds between looks of the side thread while tasks run; an outcome waits no longer than two of them.
LOOK = 0.02
#: When a task has run for so many seconds, what is claimed behind it goes back.
GIVE_BACK_AFTER = 0.25
#: After a task of so many seconds the rest of its batch is not trusted to be still ours. Less than the above, by far
#: more
#: than the time between the two lines that end a task.
TRUST_FOR = 0.2
#: An idle child looks for work for so many seconds before it says that it is idle.
LINGER = 0.025
#: Seconds between these looks.
LINGER_LOOK = 0.005

#: What a child says: I have nothing to do; there may be more to do; I take nothing new, another one may begin; limits
#: may let more through.
IDLE, MORE, RETIRES, FREED = b"i", b"m", b"d", b"l"
#: And: I have nothing to do, and hear of work by myself; I have heard something; there is a queue unknown to others.
LISTENS, HEARD, NEW = b"t", b"h", b"n"
#: What a child is told: look for work; look for what was revoked; end what can be ended.
WAKE, REVOKED, CANCEL = b"w", b"r", b"c"


@dataclass(frozen=True, slots=True)
class ChildOptions:
    """What the command line says about each child."""

    queues: Queues
    max_tasks: int | None = None
    #: KiB of resident memory.
    max_memory: int | None = None
    most_claims: int | None = None
    #: What counts where neither call nor task has limits of its own.
    limits: TimeLimits = NONE
    #: The worker ends when nothing is due, so nothing is to be claimed unseen by its steward.
    burst: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says about the worker."""

    pools: tuple[Pool, ...]
    child: ChildOptions
    #: Seconds that an orderly end waits for running tasks.
    shutdown_timeout: float
    #: End when nothing is due any more.
    burst: bool = False
    autoscale: Autoscale | None = None


class Puller(ABC):
    """Stores what is done and claims what is next, in one step, whatever becomes of the connection."""

    def __init__(
        self,
        holder: Holder,
        window: Window,
        channel: socket.socket,
        options: ChildOptions,
        *,
        board: Board,
        supervisor: int | None = None,
    ) -> None:
        self.holder = holder
        self._window = window
        self._channel = channel
        self._options = options
        self._broker = get_broker()
        self._board = board
        self._board_version = 0
        #: What to consume now; ``None`` is nothing at all.
        self._queues: Queues | None = options.queues
        self._limits = Limits(options.limits)
        #: Guards what follows; held for moments only, except while outcomes are stored.
        self._lock = threading.RLock()
        self._outcomes: list[Outcome | Return] = []
        self._generation = self._broker.generation
        self._site = SiteConnections(self._generation)
        #: Did a statement break off, so that its effect is unknown?
        self._in_doubt = False
        self._unknown: set[str] = set()
        #: Claims that limits count, or that others are to run after.
        self._counted: set[Claim] = set()
        #: The process id of a supervisor without whom this process must not go on.
        self._supervisor = supervisor
        self._stopping = False
        self._ended = threading.Event()
        self.processed = 0
        #: What has run; the supervisor's own, if one reads it.
        self.counts = Counts()

    def stop(self) -> None:
        """Take nothing new; what runs is finished, what has not begun goes back. Safe in a signal handler."""
        self._stopping = True

    @abstractmethod
    def run(self) -> None:
        """Work until stopped, or until its share is run."""

    def coroutines(self) -> Mapping[str, Task[Any]]:
        """Return the coroutines that run here, by the ids of their tasks. Safe in any thread."""
        return {}

    @abstractmethod
    def _known_claims(self) -> set[Claim]:
        """Return what runs, or is claimed to run."""

    def _not_to_claim(self) -> list[str]:
        """Return the names of tasks that this process cannot run now."""
        return sorted(self._unknown)

    def _settled(self, done: Sequence[Outcome | Return], refused: frozenset[str]) -> None:  # noqa: B027 - not every pool asks
        """These are stored, but for those that were refused."""

    def _step(self, limit: int) -> Stepped:
        """Store what is done, claim what is next; wait for the database as long as it takes."""
        if self._options.max_tasks is not None:
            limit = min(limit, self._options.max_tasks - self.processed)
        delay = 0.05
        while True:
            try:
                with self._lock:
                    return self._exchange(limit)
            except OperationalError as error:
                logger.error("%s. Trying again in %.1f s.", error, delay)
                time.sleep(delay * random.uniform(0.5, 1.5))
                delay = min(delay * 2, 5.0)
                if self._stopping:
                    limit = 0

    def _exchange(self, limit: int) -> Stepped:
        """One step; after a lost connection, only once it is known what the last one did. Needs the lock."""
        broker = self._broker
        if self._in_doubt or self._generation != broker.generation:
            self._reconcile()
        if self._board.version != self._board_version:
            self._read_board()
        if self._queues is None:
            limit = 0
        if journals.active:
            self._write_logs()
        done, self._outcomes = self._outcomes, []
        if not done and not limit:
            return Stepped([], frozenset())
        try:
            stepped = broker.step(
                done,
                holder=self.holder,
                queues=self._queues or self._options.queues,
                limit=limit,
                unknown=self._not_to_claim(),
            )
        except BaseException:
            self._outcomes = done
            self._in_doubt = True
            raise
        self._generation = broker.generation
        self._refuse(stepped.refused)
        if done:
            self._settled(done, stepped.refused)
        self._take_in(stepped.deliveries, done)
        return stepped

    def _take_in(self, deliveries: Sequence[Delivery], done: Sequence[Outcome | Return] = ()) -> None:
        """These are ours now, and those no more. Needs the lock."""
        counted = {claim_of(one) for one in deliveries if self._is_counted(one)}
        if counted or (self._counted and not self._counted.isdisjoint(map(claim_of, done))):
            self._freed(map(claim_of, done))
            self._counted |= counted

    def _refuse(self, ids: Iterable[str]) -> None:
        for task_id in ids:
            logger.warning("Task %s is not this worker's any more: its outcome is dropped", task_id)

    def _write_logs(self) -> None:
        """Store what tasks have said since the last time. Needs the lock.

        Raises :class:`~django_tasks.exceptions.OperationalError`; nothing is forgotten then.
        """
        taken = journals.take()
        if not taken.parts and not taken.gone:
            return
        try:
            self._broker.logs.write(taken)
        except OperationalError:
            journals.put_back(taken)
            raise
        except DatabaseError:
            logger.exception("What tasks logged cannot be stored: it is lost")

    def _tell_broker(self) -> None:
        """Pass on what tasks said, and what they stored in transactions of their own: no step may have followed."""
        with self._lock:
            if journals.active:
                self._write_logs()
            self._broker.step([], holder=self.holder)

    def _is_counted(self, delivery: Delivery) -> bool:
        if delivery.limit_key is not None:
            return True
        task = tasks.get(delivery.name)
        return task is not None and task._flow is not None and task._flow.runs_again

    def _freed(self, claims: Iterable[Claim]) -> None:
        """These are done, if they were counted: others may be let through."""
        self._counted.difference_update(claims)
        self._say(FREED)

    def _reconcile(self) -> None:
        """After a reconnect: drop what is not ours any more, and give back what was claimed unheard."""
        held = {(one.id, one.attempt) for one in self._broker.held(self.holder.worker, self.holder.slot)}
        kept = [one for one in self._outcomes if claim_of(one) in held]
        if len(kept) < len(self._outcomes):
            logger.info(
                "%d outcomes were stored, or lost their lease, before the reconnect", len(self._outcomes) - len(kept)
            )
        known = {*map(claim_of, kept), *self._known_claims()}
        if stray := [task_id for task_id, _ in held - known]:
            self._broker.give_back(self.holder, stray)
        dropped = [one for one in self._outcomes if one not in kept]
        self._outcomes = kept
        if dropped:
            self._settled(dropped, frozenset())
        self._generation = self._broker.generation
        self._in_doubt = False

    def _read_board(self) -> None:
        self._board_version = self._board.version
        self._queues = self._board.queues(self._options.queues)
        self._limits.change(self._board.limits())

    # What both sides of the seam need

    def _count(self, delivery: Delivery, execution: Execution, seconds: float) -> None:
        """It took so many seconds, and ended just now."""
        done = execution.done
        self.processed += 1
        self.counts.add(
            (delivery.queue, delivery.name),
            done.state,
            due=delivery.due,
            ended=time.time(),
            seconds=seconds,
            runtime=done.runtime if isinstance(done, Outcome) else None,
        )

    def _announce(self, delivery: Delivery) -> bool:
        """Say that it begins, wherever that is to be known before; False: it must not begin now."""
        if self._is_to_show(delivery):
            shown = self._show(delivery)
            if delivery.at_most_once and not shown:  # or a server that crashes now would hand it out again
                return False
        if signals.task_received.receivers:
            signals.task_received.emit(self.holder.name, request=delivery)
        return True

    def _is_to_show(self, delivery: Delivery) -> bool:
        return delivery.at_most_once or delivery.losses > 0 or delivery.watched or self._tracks(delivery)

    def is_to_announce(self, delivery: Delivery) -> bool:
        """Does :meth:`_announce` do anything?"""
        return self._is_to_show(delivery) or bool(signals.task_received.receivers)

    def _tracks(self, delivery: Delivery) -> bool:
        task = tasks.get(delivery.name)
        track = getattr(task, "track_started", None)
        return settings.TASK_TRACK_STARTED if track is None else bool(track)

    def _show(self, delivery: Delivery) -> bool:
        """Make the attempt visible, durably, before it begins: a suspect's last trace, if it kills this process."""
        with contextlib.suppress(OperationalError), self._lock:
            self._broker.mark_started({(delivery.id, delivery.attempt): 0.0})
            return True
        return False

    def _look_for_supervisor(self) -> None:
        """Give a sign of life; end at once if the supervisor died: nobody keeps the lease."""
        self._window.beat()
        if self._supervisor is not None and os.getppid() != self._supervisor:
            os._exit(1)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self._channel.send(word)

    def _too_big(self) -> bool:
        return self._options.max_memory is not None and resident_kib() > self._options.max_memory
