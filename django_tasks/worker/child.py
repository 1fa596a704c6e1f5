"""The loop that runs tasks: claim a batch, run it one by one, then one step finishes it and claims the next."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from typing import Any

from django.db import close_old_connections

from ..backends.base import Taker
from ..backends.message import Claim, Delivery, Holder, Return, claim_of
from ..exceptions import OperationalError
from ..executor import Execution, execute
from ..journal import journals
from ..registry import tasks
from ..time_limits import TimeLimits
from .batch import Batch
from .board import Board
from .memory import resident_kib
from .puller import (
    GIVE_BACK_AFTER,
    HEARD,
    IDLE,
    LINGER,
    LINGER_LOOK,
    LISTENS,
    LOOK,
    MORE,
    NEW,
    TRUST_FOR,
    ChildOptions,
    Puller,
)
from .slots import Slot

logger = logging.getLogger("django_tasks.worker")


class Child(Puller):
    """Runs tasks one by one until it is told to stop, or has run its share."""

    def __init__(
        self,
        holder: Holder,
        slot: Slot,
        channel: socket.socket,
        options: ChildOptions,
        *,
        board: Board,
        supervisor: int | None = None,
    ) -> None:
        super().__init__(holder, slot, channel, options, board=board, supervisor=supervisor)
        self._slot = slot
        self._batch = Batch(options.most_claims)
        #: Guarded by the lock, too.
        self._claims: deque[tuple[int, Delivery]] = deque()
        self._running_since: float | None = None
        self._active = threading.Event()
        self._taker: Taker | None = None

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
            self._drop_taker()

    # Claiming and storing

    def _known_claims(self) -> set[Claim]:
        return {*(claim_of(delivery) for _, delivery in self._claims), *(run[:2] for run in self._slot.runs())}

    def _store_all(self) -> None:
        with contextlib.suppress(Exception):
            self._give_back_claims()
            self._step(0)
            self._tell_broker()

    # Running

    def _run_batch(self, deliveries: list[Delivery]) -> None:
        if len(deliveries) >= self._batch.size() and len(deliveries) > 1:
            self._say(MORE)
        self._site.before_task(self._broker.generation)
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
            if not self._announce(delivery):
                with self._lock:
                    self._running_since = None
                    self._outcomes.append(Return(delivery.id, delivery.attempt))
                continue
            limits = self._limits.of(delivery)
            execution = execute(delivery, worker=name) if limits is None else self._execute_limited(delivery, limits)
            with self._lock:
                self._running_since = None
                if not execution.stored:
                    self._outcomes.append(execution.done)
                elif claim_of(delivery) in self._counted:
                    self._freed([claim_of(delivery)])
            ran += 1
            self._count(delivery, execution, time.monotonic() - start)
            if isinstance(execution.done, Return) and delivery.name not in tasks:
                self._unknown.add(delivery.name)
            if execution.failed or self._site.some_are_broken():
                close_old_connections()  # what broke in this task is not the next one's trouble
            if execution.after is not None:
                self._tell(execution, limits)
            if time.monotonic() - start > TRUST_FOR or self._too_big():
                self._slot.stop(held)
                self._give_back_claims()
        self._active.clear()
        self._slot.stop(held)  # what has run is told until its outcomes are stored and the next batch is loaded
        self._slot.count(self.processed)
        self._give_back_claims()
        self._batch.ran(ran, time.monotonic() - began)
        self._site.after_task()

    def _execute_limited(self, delivery: Delivery, limits: TimeLimits) -> Execution:
        self._slot.limit(limits.hard)
        execution = execute(delivery, worker=self.holder.name, limits=limits)
        self._slot.limit(None)  # storing may take longer, and is not the task's doing
        return execution

    def _tell(self, execution: Execution, limits: TimeLimits | None) -> None:
        """Somebody wants to hear of this outcome: store it at once, then tell, unless it was refused."""
        if not execution.stored and execution.done.id in self._step(0).refused:
            return
        if execution.after is not None:
            if limits is not None:
                self._slot.limit(limits.hard)  # handlers are the task's, too
            execution.after()
            self._slot.limit(None)

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
            self._look_for_supervisor()
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
            elif ran > LOOK and (self._outcomes or journals.is_due()):
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
        if self._asks():
            self._say(LISTENS)
            while not self._done() and not self._woken(1.0, self._taker):
                pass
            if deliveries := self._answer():
                self._run_batch(deliveries)
            return
        self._say(IDLE)
        while not self._done() and not self._woken(1.0):
            pass

    def _woken(self, timeout: float, taker: Taker | None = None) -> bool:
        descriptors: list[Any] = [self._channel] if taker is None else [self._channel, taker]
        readable, _, _ = select.select(descriptors, [], [], timeout)
        if self._channel in readable and not self._channel.recv(64):
            self._stopping = True  # the supervisor is gone
        return bool(readable)

    def _asks(self) -> bool:
        """Have the next task handed to this process, where the broker does so; will it be?"""
        if self._queues is None or self._options.burst:
            return False
        try:
            with self._lock:
                if self._taker is None:
                    self._taker = self._broker.taker()
                return self._taker is not None and self._taker.ask(self.holder, self._queues, self._not_to_claim())
        except OperationalError:  # a hint will do
            self._drop_taker()
            return False

    def _answer(self) -> list[Delivery]:
        """Wait no longer; return what was handed to this process."""
        assert self._taker is not None  # noqa: S101 - it was asked
        try:
            with self._lock:
                deliveries, new_queue = self._taker.answer()
                self._take_in(deliveries)
        except BaseException as error:
            self._in_doubt = True
            self._drop_taker()
            if isinstance(error, OperationalError):
                return []
            raise
        self._say(HEARD + NEW if new_queue else HEARD)
        return deliveries

    def _drop_taker(self) -> None:
        if self._taker is not None:
            self._taker.close()
            self._taker = None

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
