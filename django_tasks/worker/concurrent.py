"""A child that runs many tasks at a time. Its main thread claims and stores; tasks run in threads, or in an event loop.

What differs from :class:`~django_tasks.worker.child.Child` is how claimed deliveries are run and when there is room for
more: no more is claimed than can begin, but for tasks that are known to be short.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from django.db import connections

from ..backends.message import Claim, Delivery, Holder, Outcome, Return, claim_of
from ..executor import Execution, execute
from ..journal import journals
from ..registry import tasks
from .batch import BUDGET, MOST
from .board import Board
from .memory import resident_kib
from .puller import (
    GIVE_BACK_AFTER,
    IDLE,
    LINGER,
    LINGER_LOOK,
    MORE,
    RETIRES,
    ChildOptions,
    Puller,
)
from .roster import Roster

logger = logging.getLogger("django_tasks.worker")

#: Claims beyond those that can begin at once are made only for tasks that take less than so many seconds.
SHORT = 0.01
#: Threads for handlers and signals of tasks that run elsewhere.
ASIDE = 8


def capacity(concurrency: int) -> int:
    """Return for how many claims a child needs a place: those that run, that wait, and whose outcome is on its way."""
    return 2 * concurrency + MOST


class Concurrent(Puller):
    """Claims for ``concurrency`` tasks at a time and stores what became of them."""

    def __init__(
        self,
        holder: Holder,
        roster: Roster,
        channel: socket.socket,
        options: ChildOptions,
        *,
        board: Board,
        concurrency: int,
        supervisor: int | None = None,
    ) -> None:
        super().__init__(holder, roster, channel, options, board=board, supervisor=supervisor)
        self.roster = roster
        self.concurrency = concurrency
        self._bell_in, self._bell_out = socket.socketpair()
        self._bell_in.setblocking(False)
        self._bell_out.setblocking(False)
        #: What is held, with its index in the roster. An attempt that was taken away may still run beside the next one.
        self._held: dict[Claim, int] = {}
        self._ran: SimpleQueue[tuple[Delivery, Execution, float]] = SimpleQueue()
        #: Who wants to hear of outcomes that are to be stored next.
        self._afters: dict[Claim, Callable[[], None]] = {}
        self._aside = ThreadPoolExecutor(ASIDE, "aside")
        self._mean: float | None = None
        #: What was claimed beyond those that run had to go back; so nothing is, until one of them has ended.
        self._jammed = False
        self._hungry = True
        self._lingers_until = 0.0
        self._retires = False
        self._claimed = 0

    # What differs by kind

    @abstractmethod
    def _open(self) -> None:
        """Start what runs tasks."""

    @abstractmethod
    def _start(self, delivery: Delivery) -> None:
        """Have it run as soon as there is room."""

    @abstractmethod
    def _any_waits(self) -> bool:
        """Is something claimed that has not begun?"""

    @abstractmethod
    def _take_back(self, older_than: float) -> list[Delivery]:
        """Return what has waited for longer than so many seconds, and is not to begin any more."""

    @abstractmethod
    def _close(self) -> None:
        """End what runs tasks; none does any more."""

    def _names_without_room(self) -> set[str]:
        """Return the names of tasks for which there is no room, though for others there is."""
        return set()

    def _hear(self, word: bytes) -> None:
        """Somebody said so."""

    # The main thread

    def stop(self) -> None:
        super().stop()
        self.ring()

    def ring(self) -> None:
        """Have the main thread look: something ended. Never waits; safe in any thread and in a signal handler."""
        with contextlib.suppress(OSError):  # full: it will look
            self._bell_out.send(b"!")

    def run(self) -> None:
        """Work until stopped, or its share is run, and nothing runs any more."""
        side = threading.Thread(target=self._watch, name="side", daemon=True)
        side.start()
        self._open()
        try:
            while not (self._is_closing() and not self._held):
                self._turn()
        finally:
            self._ended.set()
            side.join(timeout=5)
            self._close()
            with contextlib.suppress(Exception):
                self._tell_broker()
            self._aside.shutdown()  # those who wait to hear of an outcome hear of it
            self._bell_in.close()
            self._bell_out.close()

    def _watch(self) -> None:
        while not self._ended.wait(1.0):
            self._look_for_supervisor()

    def _turn(self) -> None:
        self._gather()
        back = self._take_back(0.0 if self._is_closing() else GIVE_BACK_AFTER)
        if back:
            self._outcomes += [Return(delivery.id, delivery.attempt) for delivery in back]
            self._jammed = True
        self._drop_outdated()
        room = self._room()
        if self._outcomes or (room and self._hungry) or journals.is_due():
            deliveries = self._step(room).deliveries
            for delivery in deliveries:
                self._begin(delivery)
            if deliveries:
                full = len(deliveries) == room
                self._hungry = True
                self._lingers_until = 0.0 if full else time.monotonic() + LINGER
                if full:
                    self._say(MORE)
            if back:
                self._say(MORE)
            elif room and self._hungry and not deliveries and time.monotonic() >= self._lingers_until:
                self._hungry = False
                self._say(IDLE)
        self._pause()

    def _pause(self) -> None:
        if self._is_closing() and not self._held:
            return
        if not self._ran.empty():
            return
        room = self._room()
        timeout = 1.0
        if self._hungry and room:
            timeout = LINGER_LOOK if time.monotonic() < self._lingers_until else 0.0
        elif self._any_waits():
            timeout = GIVE_BACK_AFTER / 2
        readable, _, _ = select.select([self._channel, self._bell_in], [], [], timeout)
        if self._bell_in in readable:
            with contextlib.suppress(BlockingIOError):
                self._bell_in.recv(4096)
        if self._channel in readable:
            said = self._channel.recv(64)
            if not said:
                self._stopping = True  # the supervisor is gone
            self._hungry = True
            self._lingers_until = 0.0
            self._hear(said)

    def _room(self) -> int:
        if self._is_closing():
            return 0
        spare = 0
        if self._mean is not None and self._mean < SHORT and not self._jammed:
            spare = int(BUDGET / max(self._mean, 1e-6))
        room = min(self.concurrency - len(self._held) + spare, self.roster.room, MOST)
        if self._options.most_claims is not None:
            room = min(room, self._options.most_claims)
        if self._options.max_tasks is not None:
            room = min(room, self._options.max_tasks - self._claimed)
        return max(0, room)

    def _is_closing(self) -> bool:
        """Is nothing new to be taken?"""
        if not self._retires:
            options = self._options
            share = options.max_tasks is not None and self._claimed >= options.max_tasks
            if share or self._too_big():
                if not share:
                    pid, limit = os.getpid(), options.max_memory
                    logger.info("Child %d uses %d KiB, more than %d: it is replaced", pid, resident_kib(), limit)
                self._retires = True
                self._say(RETIRES)
        return self._stopping or self._retires

    def _begin(self, delivery: Delivery) -> None:
        self._claimed += 1
        self._held[claim_of(delivery)] = self.roster.add(delivery)
        self._start(delivery)

    def _gather(self) -> None:
        """Take in what has run."""
        while True:
            try:
                delivery, execution, seconds = self._ran.get_nowait()
            except Empty:
                break
            done = execution.done
            self._jammed = False
            self._count(delivery, execution, seconds)
            self._mean = seconds if self._mean is None or seconds > self._mean else 0.5 * (self._mean + seconds)
            if isinstance(done, Return) and delivery.name not in tasks:
                self._unknown.add(delivery.name)
            if execution.stored:
                if claim_of(done) in self._counted:
                    self._freed([claim_of(done)])
                self._hungry = True  # the next step tells the broker
                self._forget(done)
                self._tell_of(execution.after)
                continue
            if execution.after is not None:
                self._afters[claim_of(done)] = execution.after
            self._outcomes.append(done)
        self.roster.count(self.processed)

    def _drop_outdated(self) -> None:
        """Only the last of the attempts of one task can be ours; and a step, which gets that, tells refusals by id."""
        last: dict[str, int] = {}
        for one in self._outcomes:
            last[one.id] = max(one.attempt, last.get(one.id, 0))
        if len(last) < len(self._outcomes):
            outdated = [one for one in self._outcomes if one.attempt < last[one.id]]
            self._outcomes = [one for one in self._outcomes if one.attempt == last[one.id]]
            self._refuse(one.id for one in outdated)
            self._settled(outdated, frozenset(last))

    def _settled(self, done: Sequence[Outcome | Return], refused: frozenset[str]) -> None:
        for one in done:
            self._forget(one)
            after = self._afters.pop(claim_of(one), None)
            if one.id not in refused:
                self._tell_of(after)

    def _forget(self, done: Outcome | Return) -> None:
        index = self._held.pop(claim_of(done), None)
        if index is not None:
            self.roster.remove(index)

    def _tell_of(self, after: Callable[[], None] | None) -> None:
        if after is not None:
            self._aside.submit(self.apart, after)

    def _not_to_claim(self) -> list[str]:
        return sorted(self._unknown | self._names_without_room())

    def _known_claims(self) -> set[Claim]:
        return set(self._held)

    # Threads that run code of the site

    def apart(self, work: Callable[[], object]) -> object:
        """Do it in this thread, and leave its database connections in order."""
        self._site.before_task(self._broker.generation)
        try:
            return work()
        finally:
            self._site.after_task()

    def run_in_thread(self, delivery: Delivery) -> None:
        """Run one delivery here, in a thread of its own."""
        began = time.monotonic()
        execution = Execution(Return(delivery.id, delivery.attempt))
        self._site.before_task(self._broker.generation)
        try:
            if self.may_begin(delivery):
                index = self._held[claim_of(delivery)]
                self.roster.start(index)
                if self._announce(delivery):
                    limits = self._limits.of(delivery)
                    if limits is not None:
                        self.roster.limit(index, limits.hard)
                    execution = execute(delivery, worker=self.holder.name, limits=limits)
        finally:
            self._site.after_task(failed=execution.failed)
            self.has_run(delivery, execution, began)

    def may_begin(self, delivery: Delivery) -> bool:
        """Is it still ours? What has waited too long was given back, by the supervisor if not by this process."""
        return time.monotonic() - delivery.claimed <= GIVE_BACK_AFTER

    def has_run(self, delivery: Delivery, execution: Execution, began: float) -> None:
        """Hand an outcome to the main thread. Never waits."""
        self.roster.end(self._held[claim_of(delivery)])
        self._ran.put((delivery, execution, time.monotonic() - began))
        self.ring()


def close_connections() -> None:
    """Close this thread's connections: it ends."""
    with contextlib.suppress(Exception):
        connections.close_all()
