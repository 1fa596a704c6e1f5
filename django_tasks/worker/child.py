"""The loop that runs tasks: claim a batch, run it one by one, then one step finishes it and claims the next."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import select
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass

from django.db import close_old_connections, connections, reset_queries

from .. import signals
from ..backends import get_broker
from ..backends.base import Queues
from ..backends.message import Delivery, Holder, Outcome, Return, Stepped
from ..conf import settings
from ..exceptions import OperationalError
from ..executor import Execution, execute
from ..registry import tasks
from .batch import Batch
from .memory import resident_kib
from .slots import Slot

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
#: Seconds between checks of the site's own connections.
CHECK_CONNECTIONS = 1.0

IDLE, MORE, WAKE = b"i", b"m", b"w"


@dataclass(frozen=True, slots=True)
class ChildOptions:
    """What the command line says about each child."""

    queues: Queues
    max_tasks: int | None = None
    #: KiB of resident memory.
    max_memory: int | None = None
    most_claims: int | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says about the worker."""

    concurrency: int
    pool: str
    child: ChildOptions
    #: Seconds that an orderly end waits for running tasks.
    shutdown_timeout: float
    #: End when nothing is due any more.
    burst: bool = False


class Child:
    """Runs tasks until it is told to stop, or has run its share."""

    def __init__(
        self,
        holder: Holder,
        slot: Slot,
        channel: socket.socket,
        options: ChildOptions,
        *,
        supervisor: int | None = None,
    ) -> None:
        self.holder = holder
        self._slot = slot
        self._channel = channel
        self._options = options
        self._broker = get_broker()
        self._batch = Batch(options.most_claims)
        #: Guards what follows; held for moments only, except while outcomes are stored.
        self._lock = threading.RLock()
        self._claims: deque[tuple[int, Delivery]] = deque()
        self._outcomes: list[Outcome | Return] = []
        self._generation = self._broker.generation
        #: Did a statement break off, so that its effect is unknown?
        self._in_doubt = False
        self._unknown: set[str] = set()
        self._running_since: float | None = None
        #: The process id of a supervisor without whom this process must not go on.
        self._supervisor = supervisor
        self._stopping = False
        self._ended = threading.Event()
        self._active = threading.Event()
        self._checked_connections = time.monotonic()
        self.processed = 0

    def stop(self) -> None:
        """Take nothing new; the running task is finished, the rest of the batch goes back. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Work until stopped."""
        side = threading.Thread(target=self._watch, name="side", daemon=True)
        side.start()
        try:
            while not self._done():
                deliveries = self._step(self._batch.size()).deliveries
                if deliveries:
                    self._run_batch(deliveries)
                else:
                    self._wait_for_work()
        finally:
            self._ended.set()
            self._active.set()
            side.join(timeout=5)
            self._store_all()

    # Claiming and storing

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
        done, self._outcomes = self._outcomes, []
        if not done and not limit:
            return Stepped([], frozenset())
        try:
            stepped = broker.step(
                done, holder=self.holder, queues=self._options.queues, limit=limit, unknown=sorted(self._unknown)
            )
        except BaseException:
            self._outcomes = done
            self._in_doubt = True
            raise
        self._generation = broker.generation
        for task_id in stepped.refused:
            logger.warning("Task %s is not this worker's any more: its outcome is dropped", task_id)
        return stepped

    def _reconcile(self) -> None:
        """After a reconnect: drop what is not ours any more, and give back what was claimed unheard."""
        held = {(one.id, one.attempt) for one in self._broker.held(self.holder.worker, self.holder.slot)}
        kept = [one for one in self._outcomes if (one.id, one.attempt) in held]
        if len(kept) < len(self._outcomes):
            logger.info(
                "%d outcomes were stored, or lost their lease, before the reconnect", len(self._outcomes) - len(kept)
            )
        known = {one.id for one in kept} | {delivery.id for _, delivery in self._claims}
        running = self._slot.running()
        if running is not None:
            known.add(running.id)
        stray = [task_id for task_id, _ in held if task_id not in known]
        if stray:
            self._broker.give_back(self.holder, stray)
        self._outcomes = kept
        self._generation = self._broker.generation
        self._in_doubt = False

    def _store_all(self) -> None:
        with contextlib.suppress(Exception):
            self._give_back_claims()
            self._step(0)

    # Running

    def _run_batch(self, deliveries: list[Delivery]) -> None:
        if len(deliveries) >= self._batch.size() and len(deliveries) > 1:
            self._say(MORE)
        began = time.monotonic()
        held = len(deliveries)
        with self._lock:
            self._claims.extend(enumerate(deliveries))
            self._slot.load(deliveries)
        self._active.set()
        ran = 0
        name = self.holder.name
        while not self._stopping:
            with self._lock:
                if not self._claims:
                    break
                index, delivery = self._claims.popleft()
                self._slot.start(index, held, delivery.attempt)
                self._running_since = start = time.monotonic()
            if delivery.at_most_once or delivery.losses or self._tracks(delivery):
                shown = self._show(delivery)
                if delivery.at_most_once and not shown:  # or a server that crashes now would hand it out again
                    with self._lock:
                        self._running_since = None
                        self._outcomes.append(Return(delivery.id, delivery.attempt))
                    continue
            if signals.task_received.receivers:
                signals.task_received.emit(self.holder.name, request=delivery)
            execution = execute(delivery, worker=name)
            with self._lock:
                self._running_since = None
                if not execution.stored:
                    self._outcomes.append(execution.done)
            ran += 1
            self.processed += 1
            if isinstance(execution.done, Return) and delivery.name not in tasks:
                self._unknown.add(delivery.name)
            if execution.failed or _some_connection_is_broken():
                close_old_connections()  # what broke in this task is not the next one's trouble
            if execution.after is not None:
                self._tell(execution)
            if time.monotonic() - start > TRUST_FOR or self._too_big():
                self._slot.stop(held)
                self._give_back_claims()
        self._active.clear()
        self._slot.stop(held)  # what has run is told until its outcomes are stored and the next batch is loaded
        self._slot.count(self.processed)
        self._give_back_claims()
        self._batch.ran(ran, time.monotonic() - began)
        self._tidy()

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

    def _tell(self, execution: Execution) -> None:
        """Somebody wants to hear of this outcome: store it at once, then tell, unless it was refused."""
        if not execution.stored and execution.done.id in self._step(0).refused:
            return
        if execution.after is not None:
            execution.after()

    def _give_back_claims(self) -> None:
        """Return what is claimed and not begun, with its place in the queue."""
        with self._lock:
            ids = [delivery.id for _, delivery in self._claims]
            self._claims.clear()
            if ids:
                try:
                    self._broker.give_back(self.holder, ids)
                except OperationalError:
                    self._in_doubt = True  # found out and given back after the reconnect
        if ids:
            self._say(MORE)

    def _watch(self) -> None:
        """The side thread: acts only while a task takes its time."""
        while not self._ended.is_set():
            self._slot.beat()
            if self._supervisor is not None and os.getppid() != self._supervisor:
                os._exit(1)  # the supervisor died: nobody keeps the lease
            if not self._active.wait(1.0):
                continue
            if self._ended.wait(LOOK):
                return
            since = self._running_since
            if since is None:
                continue
            ran = time.monotonic() - since
            if ran > GIVE_BACK_AFTER and self._claims:
                self._give_back_claims()
            elif ran > LOOK and self._outcomes:
                with contextlib.suppress(OperationalError), self._lock:
                    self._exchange(0)

    # Between batches

    def _wait_for_work(self) -> None:
        self._batch.idle()
        until = time.monotonic() + LINGER
        while not self._done() and time.monotonic() < until:
            if self._woken(LINGER_LOOK):
                return
            deliveries = self._step(self._batch.size()).deliveries
            if deliveries:
                self._run_batch(deliveries)
                return
        self._say(IDLE)
        while not self._done() and not self._woken(1.0):
            pass

    def _woken(self, timeout: float) -> bool:
        readable, _, _ = select.select([self._channel], [], [], timeout)
        if not readable:
            return False
        if not self._channel.recv(64):
            self._stopping = True  # the supervisor is gone
        return True

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):
            self._channel.send(word)

    def _tidy(self) -> None:
        now = time.monotonic()
        if now - self._checked_connections >= CHECK_CONNECTIONS:
            self._checked_connections = now
            close_old_connections()
            reset_queries()

    def _done(self) -> bool:
        options = self._options
        if options.max_tasks is not None and self.processed >= options.max_tasks:
            return True
        if self._too_big():
            logger.info(
                "Child %d uses %d KiB, more than %d: it is replaced", os.getpid(), resident_kib(), options.max_memory
            )
            return True
        return self._stopping

    def _too_big(self) -> bool:
        return self._options.max_memory is not None and resident_kib() > self._options.max_memory


def _some_connection_is_broken() -> bool:
    """Did a statement of the site's fail, even if the task made nothing of it?"""
    return any(connection.errors_occurred for connection in connections.all(initialized_only=True))
