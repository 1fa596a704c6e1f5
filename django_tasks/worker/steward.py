"""The worker's business with the broker: its lease, rescue, wake-ups, and tidying. One thread, its own connection.

It runs beside the supervisor's main thread, which must never wait for a database, and in a process of its own kind:
no task
code runs here, so no task can hold its interpreter.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from .. import signals
from ..backends import get_broker
from ..backends.base import Waker, WorkerInfo
from ..backends.message import Holder
from ..conf import settings
from ..exceptions import OperationalError
from ..registry import tasks
from .child import GIVE_BACK_AFTER, IDLE, MORE, WAKE
from .slots import Slot

logger = logging.getLogger("django_tasks.worker")

#: A task is shown as running once it runs for so many seconds; looked at as often.
VISIBLE_AFTER = 0.8
#: The supervisor gives a blocked child's claims back after so many seconds; the child itself would have done so before.
GIVE_BACK_FOR_CHILD_AFTER = 2 * GIVE_BACK_AFTER
#: Seconds after a wake-up at which it is looked whether more is due, if another child is idle.
SURVEY_AFTER_WAKE = 0.1
#: What is due but cannot be claimed here (its name is unknown) is looked at again after so many seconds.
SURVEY_AFTER_VAIN = 1.0
#: Seconds that a killed child's tasks may take to be handed back before the worker exits all the same.
LAST_WORDS = 10.0
#: Seconds between prunings, and the longest that one may take.
PRUNE_EVERY, PRUNE_FOR = 60.0, 2.0


@dataclass(slots=True, eq=False)
class Ward:
    """One child as the steward sees it."""

    holder: Holder
    slot: Slot
    channel: socket.socket
    idle: bool = False
    #: Its process has ended; what it held is taken back soon.
    gone: bool = False
    shown: tuple[str, int] | None = None
    relieved: str | None = None
    #: Reads as idle until its first word.
    since: float = field(default_factory=time.monotonic)


class Steward:
    """Keeps one worker's lease and looks after its children."""

    def __init__(
        self, info: WorkerInfo, *, on_lease_lost: Callable[[], None], on_drained: Callable[[], None] | None = None
    ) -> None:
        self.info = info
        self.worker = 0
        #: True once the worker takes nothing new.
        self.draining = False
        self._on_lease_lost = on_lease_lost
        self._on_drained = on_drained
        self._broker = get_broker()
        self._wards: dict[int, Ward] = {}
        self._retired = 0
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._bell_in, self._bell_out = socket.socketpair()
        self._bell_in.setblocking(False)
        #: Held while the steward works; the supervisor takes it to fork.
        self.gate = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ending = False
        self._waker: Waker | None = None
        self._renewed = time.monotonic()
        self._idle_since = time.monotonic()
        self._declared_idle = False
        self._next_due: float | None = None
        #: How many tasks had been run when a survey last found something due; ``None`` if it found nothing.
        self._found_due_at: int | None = None
        self._due = dict.fromkeys(("beat", "rescue", "look", "prune", "survey", "waker"), 0.0)
        self._trouble = 0.0

    # Called by the supervisor's main thread

    def register(self) -> None:
        """Begin a lease. Raises :class:`~django_tasks.exceptions.OperationalError`."""
        self.worker = self._broker.register(self.info)
        self._renewed = time.monotonic()
        self._due["beat"] = time.monotonic() + settings.WORKER_HEARTBEAT_INTERVAL

    def register_patiently(self, ended: Callable[[], bool], wait: Callable[[float], object]) -> bool:
        """Begin a lease as soon as the database can be reached; False if ``ended`` came first."""
        delay = 0.5
        while not ended():
            try:
                self.register()
                return True
            except OperationalError as error:
                cure = "Start the database or correct DATABASES"
                logger.error("%s. %s; trying again in %.1f s (Ctrl-C ends).", error, cure, delay)
                wait(delay)
                delay = min(delay * 2, 10.0)
        return False

    def start(self) -> None:
        """Run beside the caller."""
        self._thread = threading.Thread(target=self._run, name="steward", daemon=True)
        self._thread.start()

    def order(self, work: Callable[[], None]) -> None:
        """Have ``work`` done by the steward's thread soon."""
        self._orders.put(work)
        self._bell_out.send(b"!")

    def take_on(self, ward: Ward) -> None:
        """Look after a new child."""
        ward.channel.setblocking(False)
        self.order(lambda: self._wards.__setitem__(ward.holder.slot, ward))

    def child_ended(self, ward: Ward, *, reason: str, charge: bool) -> None:
        """A child is gone: take back what it held. ``charge`` its running task with the loss."""

        def work() -> None:
            self._wards.pop(ward.holder.slot, None)
            self._retired += ward.slot.processed
            running = ward.slot.running()
            charged = [running.id] if running is not None and charge else []
            lost = self._broker.lose(
                ward.holder,
                charged,
                begun=ward.slot.begun(),
                max_losses=settings.TASK_MAX_WORKER_LOSSES,
                reason=reason,
            )
            ward.channel.close()
            if lost:
                logger.warning("%s: %d tasks were taken back", reason, lost)
                self._wake_one()

        self.order(lambda: self._insist(work))

    def end(self, timeout: float) -> None:
        """End the lease and the thread."""

        def work() -> None:
            if not self._orders.empty():  # what children held is taken back first, however long the database was away
                self.order(lambda: self._insist(work))
                return
            self._broker.unregister(self.worker)
            self._ending = True

        self.order(lambda: self._insist(work))
        if self._thread is not None:
            self._thread.join(timeout)

    def close_connections(self) -> None:
        """Close every connection, before a fork; they are made anew when needed. Call with the gate held."""
        if self._waker is not None:
            self._waker.close()
            self._waker = None
        self._broker.close()

    @property
    def processed(self) -> int:
        """Tasks that this worker has run."""
        return self._retired + sum(ward.slot.processed for ward in list(self._wards.values()))

    # The thread

    def _run(self) -> None:
        while not self._ending:
            self._sleep()
            with self.gate:
                try:
                    self._tick()
                    self._trouble = 0.0
                except OperationalError as error:
                    self._trouble = min(max(self._trouble * 2, 0.1), 5.0)
                    logger.error("%s. Trying again in %.1f s.", error, self._trouble)
                    self._drop_waker()
                except Exception:
                    self._trouble = 5.0
                    logger.exception("The steward met an error of its own")
            if self._trouble:
                time.sleep(self._trouble * random.uniform(0.5, 1.5))
            self._check_lease()
        with self.gate:
            self.close_connections()

    def _sleep(self) -> None:
        now = time.monotonic()
        timers = list(self._due.values())
        if self._next_due is not None:
            timers.append(self._next_due)
        timeout = max(0.0, min(timers) - now)
        wards = [ward.channel for ward in self._wards.values() if not ward.gone]
        listening: list[Any] = [self._bell_in, *wards]
        # While all are busy nobody hears a hint, and one left unread would end every sleep at once.
        if self._waker is not None and self._any_idle() and (descriptor := self._waker.fileno()) is not None:
            listening.append(descriptor)
        with contextlib.suppress(OSError, ValueError):  # a channel or the waker's connection is gone: found out below
            select.select(listening, [], [], timeout)

    def _tick(self) -> None:
        self._hear_children()
        self._obey()
        if self._ending:
            return
        self._listen()
        now = time.monotonic()
        if now >= self._due["beat"]:
            self._beat()
        if now >= self._due["look"]:
            self._due["look"] = now + (VISIBLE_AFTER / 2 if self._busy() else 3600.0)
            self._look()
        if now >= self._due["rescue"]:
            self._due["rescue"] = now + settings.WORKER_RESCUE_INTERVAL * random.uniform(0.9, 1.1)
            if self._broker.rescue(max_losses=settings.TASK_MAX_WORKER_LOSSES):
                self._wake_one()
            if self._broker.adopt(tasks):
                self._wake_one()
        if now >= self._due["prune"]:
            self._due["prune"] = now + PRUNE_EVERY * random.uniform(0.8, 1.2)
            self._broker.prune(settings.RESULT_EXPIRES, deadline=now + PRUNE_FOR)
        if self._any_idle() and (now >= self._due["survey"] or (self._next_due is not None and now >= self._next_due)):
            self._survey()

    # Lease

    def _beat(self) -> None:
        if self._broker.renew(self.worker, processed=self.processed, draining=self.draining):
            self._renewed = time.monotonic()
            self._due["beat"] = self._renewed + settings.WORKER_HEARTBEAT_INTERVAL
            signals.heartbeat_sent.emit(self)
        else:
            logger.error("The lease ran out and the tasks were taken from this worker: it stops them and begins anew")
            self._lost()

    def _check_lease(self) -> None:
        if not self._ending and time.monotonic() - self._renewed > settings.WORKER_LEASE:
            logger.error("The lease could not be renewed for %.0f s: the tasks are stopped", settings.WORKER_LEASE)
            self._lost()

    def _lost(self) -> None:
        self._renewed = time.monotonic()
        self._due["beat"] = self._renewed + settings.WORKER_HEARTBEAT_INTERVAL
        self._on_lease_lost()

    # Children

    def _hear_children(self) -> None:
        for ward in self._wards.values():
            if ward.gone:
                continue
            try:
                said = ward.channel.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                said = b""
            if not said:
                ward.gone, ward.idle = True, False  # the supervisor learns of its death, too: child_ended()
                continue
            if said.endswith(IDLE):
                ward.idle = True
                self._idle_since = time.monotonic()
                self._due["survey"] = time.monotonic() + SURVEY_AFTER_VAIN if self._in_vain() else 0.0
            if MORE in said:
                self._wake_one()
        if self._busy():
            self._due["look"] = min(self._due["look"], time.monotonic() + VISIBLE_AFTER / 2)

    def _look(self) -> None:
        """See what runs for long: show it, and relieve a blocked child of what it holds behind it."""
        now = time.monotonic()
        started: dict[tuple[str, int], float] = {}
        for ward in self._wards.values():
            running = ward.slot.running()
            if running is None:
                continue
            ran = now - running.since
            if ran > GIVE_BACK_FOR_CHILD_AFTER and ward.relieved != running.id and (ids := ward.slot.unstarted()):
                ward.relieved = running.id
                if self._broker.give_back(ward.holder, ids):
                    self._wake_one()
            if ran > VISIBLE_AFTER and ward.shown != running[:2]:
                ward.shown = running[:2]
                started[running.id, running.attempt] = ran
        if started:
            self._broker.mark_started(started)

    def _busy(self) -> bool:
        return any(not ward.idle for ward in self._wards.values())

    def _any_idle(self) -> bool:
        return not self.draining and any(ward.idle for ward in self._wards.values())

    def _wake_one(self) -> None:
        if self.draining:
            return
        for ward in self._wards.values():
            if ward.idle:
                ward.idle = False
                with contextlib.suppress(OSError):
                    ward.channel.send(WAKE)
                self._due["look"] = min(self._due["look"], time.monotonic() + VISIBLE_AFTER / 2)
                return

    # Work

    def _listen(self) -> None:
        """Ask the waker; it says that something may have been sent."""
        if not self._any_idle():
            if self._declared_idle:
                self._declare_idle(False)
            self._due["waker"] = self._due["survey"] = time.monotonic() + 3600.0
            self._next_due = None  # nobody could run it; found again when somebody is idle
            return
        if self._waker is None:
            self._waker = self._broker.waker()
            self._due["survey"] = 0.0
        if not self._declared_idle:
            self._declare_idle(True)
            self._due["survey"] = self._due["waker"] = 0.0
        now = time.monotonic()
        descriptor = self._waker.fileno()
        if descriptor is not None or now >= self._due["waker"]:
            self._due["waker"] = now + self._waker.interval(now - self._idle_since)
            if self._waker.woken():
                if descriptor is not None:
                    self._wake_one()  # somebody sent a task and said so: no need to ask
                else:
                    self._due["survey"] = 0.0
        if self._due["survey"] > now + 5.0:
            self._due["survey"] = now + 5.0

    def _survey(self) -> None:
        """Look whether something is due, and when the next thing will be: the net below every hint."""
        survey = self._broker.survey(self.info.queues)
        now = time.monotonic()
        vain = self._in_vain()
        self._found_due_at = self.processed if survey.due else None
        self._due["survey"] = now + 5.0
        self._next_due = now + survey.next_due if survey.next_due is not None else None
        if survey.due and not (vain and self._on_drained is not None):
            # One child may not be enough, and behind the first task of a priority others become due unseen.
            self._due["survey"] = now + SURVEY_AFTER_WAKE
            self._wake_one()
        elif self._on_drained is not None and not self._busy():
            self._on_drained()

    def _in_vain(self) -> bool:
        """Did the last survey find something due, and nobody could run it?"""
        return self._found_due_at == self.processed and not self._busy()

    def _declare_idle(self, idle: bool) -> None:
        self._broker.set_idle(self.worker, idle)
        self._declared_idle = idle

    def _drop_waker(self) -> None:
        if self._waker is not None:
            with contextlib.suppress(Exception):
                self._waker.close()
            self._waker = None

    # Orders

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._bell_in.recv(4096)
        while True:
            try:
                work = self._orders.get_nowait()
            except Empty:
                return
            work()

    def _insist(self, work: Callable[[], None]) -> None:
        """Do it; when the broker is away, again later."""
        try:
            work()
        except OperationalError:
            self.order(lambda: self._insist(work))
            raise
