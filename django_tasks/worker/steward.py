"""The worker's business with the broker: its lease, rescue, wake-ups, and tidying. One thread, its own connection.

It runs beside the supervisor's main thread, which must never wait for a database, and in a process of its own kind:
no task code runs here, so no task can hold its interpreter.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from .. import limits, signals, task_names
from ..backends import get_broker
from ..backends.base import Queues, Waker, WorkerInfo
from ..backends.message import Claim, Holder, Outcome, Survey
from ..conf import settings
from ..exceptions import OperationalError
from ..registry import tasks
from .accounts import WRITE_EVERY, Scribe
from .chores import Chores
from .lease import Lease, patiently
from .puller import FREED, GIVE_BACK_AFTER, HEARD, LISTENS, MORE, NEW, RETIRES, REVOKED
from .slots import Running
from .wards import Ward, says_idle

logger = logging.getLogger("django_tasks.worker")

#: A task is shown as running once it runs for so many seconds; looked at as often.
VISIBLE_AFTER = 0.8
#: The supervisor gives a blocked child's claims back after so many seconds; the child itself would have done so before.
GIVE_BACK_FOR_CHILD_AFTER = 2 * GIVE_BACK_AFTER
#: Seconds after a child became idle at which it is looked once more: what was sent meanwhile, by somebody who had not
#: seen that anybody is idle, may not have been committed at the first look.
SURVEY_AFTER_IDLE = 1.0
#: Seconds after a wake-up at which it is looked whether more is due, if another child is idle.
SURVEY_AFTER_WAKE = 0.1
#: What is due but cannot be claimed here (its name is unknown) is looked at again after so many seconds.
SURVEY_AFTER_VAIN = 1.0
#: Seconds that a killed child's tasks may take to be handed back before the worker exits all the same.
LAST_WORDS = 10.0
#: Seconds between looks for commands: where no hint would tell of one, where hints do, and between two hints.
COMMANDS_EVERY, COMMANDS_NET, COMMANDS_AFTER_HINT = 0.5, 30.0, 0.1
#: Seconds between looks for running tasks that were revoked.
STOP_EVERY = 1.0
#: Seconds between looks whether more children would have work, if there may be more.
PRESSURE_EVERY = 0.5
#: Seconds after the end of a child that heard of work by itself at which the broker has learned of that end, whatever
#: the network between them lost.
LATE = 30.0
#: Seconds between looks at the limits, while something waits for them or could: the net below every hint.
ADMIT_EVERY = 1.0
#: Seconds after which the loop turns, even if there is nothing to do: somebody may watch whether it does.
MOST_SLEEP = 5.0


def _nothing() -> None:
    pass


class Commands(Protocol):
    """Who obeys commands from outside (:class:`~django_tasks.worker.remote.Remote`)."""

    def obey(self) -> None:
        """Fetch what is new, and do it."""


class Steward:
    """Keeps one worker's lease and looks after its children."""

    def __init__(
        self,
        info: WorkerInfo,
        *,
        on_lease_lost: Callable[[], None],
        on_drained: Callable[[], None] | None = None,
        on_retiring: Callable[[], None] = lambda: None,
        on_terminate: Callable[[str, int, str], object] | None = None,
    ) -> None:
        self.info = info
        self._restating = threading.Lock()
        #: True once the worker takes nothing new.
        self.draining = False
        #: True while it takes nothing new, until it is told to take tasks again.
        self.quiet = False
        #: Who obeys commands; nobody until somebody is named.
        self.commands: Commands | None = None
        self._on_drained = on_drained
        self._on_retiring = on_retiring
        self._on_terminate = on_terminate
        #: Revoked attempts that were told, and may end by themselves.
        self._told_to_stop: set[Claim] = set()
        self._broker = get_broker()
        self._lease = Lease(self._broker, on_lease_lost)
        self._wards: dict[int, Ward] = {}
        self._listened: deque[Holder] = deque()
        self._retired = 0
        self._scribe = Scribe(self._broker.metrics)
        #: When the worker began, by ``time.monotonic()``.
        self.began = time.monotonic()
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._bell_in, self._bell_out = socket.socketpair()
        self._bell_in.setblocking(False)
        #: Held while the steward works; the supervisor takes it to fork.
        self.gate = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ending = False
        self._waker: Waker | None = None
        self._idle_since = time.monotonic()
        self._declared_idle = False
        self._next_due: float | None = None
        #: How many tasks had been run when a survey last found something due; ``None`` if it found nothing.
        self._found_due_at: int | None = None
        self._chores = Chores(self._broker)
        self._due = dict.fromkeys(("look", "survey", "waker", "commands", "numbers"), 0.0)
        self._due["pressure"] = self._due["stop"] = self._due["late"] = float("inf")
        self._due["admit"] = 0.0
        #: Is there anything that limits hold back, or may there soon be?
        self._gated = any(task._flow is not None and task._flow.is_limited for task in tasks.values())
        self._heeded = 0.0
        #: Is somebody to know whether more children would have work?
        self.feels_pressure = False
        #: Is something due while all children are busy? And is one idle?
        self.pressure = (False, False)
        self._trouble = 0.0
        self._problem = ""
        #: Does it renew its lease half as often while nothing runs? Not where a task can keep it from catching up.
        self.slows_down = True
        #: When its loop turned last, by ``time.monotonic()``, and after how many seconds it does so at the latest.
        self.turned = time.monotonic()
        self.most_sleep = MOST_SLEEP
        #: Called at each turn.
        self.on_turn: Callable[[], object] = _nothing

    # Called by the supervisor's main thread

    @property
    def worker(self) -> int:
        """The id of this start of the worker; 0 before its first lease."""
        return self._lease.worker

    def register_patiently(self, ended: Callable[[], bool], wait: Callable[[float], object]) -> bool:
        """Begin a lease as soon as the database can be reached; False if ``ended`` came first."""

        def begin() -> None:
            limits.declare(tasks.values())
            self._lease.begin(self.info._replace(task_names=task_names.declare(tasks)))

        return patiently(begin, ended, wait)

    def start(self) -> None:
        """Run beside the caller."""
        self._thread = threading.Thread(target=self._run, name="steward", daemon=True)
        self._thread.start()

    def order(self, work: Callable[[], None]) -> None:
        """Have ``work`` done by the steward's thread soon."""
        self._orders.put(work)
        self._bell_out.send(b"!")

    def order_surely(self, work: Callable[[], object]) -> None:
        """As :meth:`order`; when the broker is away, again later."""
        self.order(lambda: self._insist(work))

    def take_on(self, ward: Ward) -> None:
        """Look after a new child."""
        ward.channel.setblocking(False)
        ward.counts.tell_skew(self._scribe.skew or 0.0)
        self.order(lambda: self._wards.__setitem__(ward.holder.slot, ward))

    def child_ended(self, ward: Ward, *, reason: str, charge: bool, verdicts: Sequence[Outcome] = ()) -> None:
        """A child is gone: take back what it held. ``charge`` its running task with the loss.

        ``verdicts`` are outcomes of attempts that were ended from outside.
        """

        def work() -> None:
            if verdicts:
                self._broker.step(verdicts, holder=ward.holder)
            self._wards.pop(ward.holder.slot, None)
            begun = dict(ward.slot.begun())
            charged = [run.id for run in ward.slot.runs() if begun.get(run.id) == run.attempt] if charge else []
            lost = self._broker.lose(
                ward.holder,
                charged,
                begun=begun,
                max_losses=settings.TASK_MAX_WORKER_LOSSES,
                reason=reason,
            )
            self._scribe.ended([*charged, *(one.id for one in verdicts)])
            # Nothing comes after this that may fail and be repeated.
            self._scribe.accounts.read(ward.holder.slot, ward.counts)
            self._scribe.accounts.forget(ward.holder.slot)
            self._retired += ward.slot.processed
            ward.close()
            if ward.listens:
                self._listened.append(ward.holder)
                self._due["late"] = time.monotonic() + LATE
            if lost:
                logger.warning("%s: %d tasks were taken back", reason, lost)
                self._wake_one()
                self._due["admit"] = 0.0

        self.order(lambda: self._insist(work))

    def store(self, ward: Ward, verdict: Outcome) -> None:
        """Store what became of an attempt that its child cannot be trusted to end."""

        def work() -> None:
            if not self._broker.step([verdict], holder=ward.holder).refused:
                self._scribe.ended([verdict.id])

        self.order_surely(work)

    def end(self, timeout: float) -> None:
        """End the lease and the thread."""

        def work() -> None:
            if not self._orders.empty():  # what children held is taken back first, however long the database was away
                self.order(lambda: self._insist(work))
                return
            self._write_numbers()
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

    @property
    def trouble(self) -> str:
        """Why the database cannot be worked with at the moment; empty if it can."""
        if self._trouble:
            return self._problem
        return "" if self._lease.is_confirmed else "the lease has run out and is not renewed yet"

    # Called by commands, in the steward's thread

    def clock_skew(self) -> float:
        """Return by how many seconds the database's clock is ahead of this machine's."""
        return self._broker.metrics.skew()

    def running(self) -> list[tuple[int, Running]]:
        """Return what the children run, each with its slot."""
        return [(ward.holder.slot, run) for ward in self._wards.values() if not ward.gone for run in ward.slot.runs()]

    def unstarted(self) -> list[str]:
        """Return what the children have claimed and not begun."""
        return [id_ for ward in self._wards.values() if not ward.gone for id_, _ in ward.slot.unstarted()]

    def totals(self) -> dict[str, int]:
        """Return how many tasks of each name this worker has run."""
        self._read_counts()
        return {name: count for name, count in self._scribe.accounts.totals.items() if name}

    def feel_pressure(self) -> None:
        """Find out from now on whether more children would have work. Safe in any thread."""
        self.feels_pressure = True
        self.order(lambda: self._due.__setitem__("pressure", 0.0))

    def heed_at(self, moment: float) -> None:
        """Look for commands at this moment, by ``time.monotonic()``, at the latest."""
        self._due["commands"] = min(self._due["commands"], moment)

    def beat_now(self) -> None:
        """Renew the lease at once."""
        self._lease.hurry()

    # The thread

    def _run(self) -> None:
        while not self._ending:
            self._sleep()
            self.turned = time.monotonic()
            self.on_turn()
            with self.gate:
                try:
                    self._tick()
                    if self._trouble:  # a broker that was away may have lost its data, our lease among it
                        self._lease.hurry()
                        self._chores.hurry()
                    self._trouble = 0.0
                except OperationalError as error:
                    self._trouble = min(max(self._trouble * 2, 0.1), 5.0)
                    self._problem = str(error)
                    logger.error("%s. Trying again in %.1f s.", error, self._trouble)
                    self._drop_waker()
                except Exception as error:
                    self._trouble = 5.0
                    self._problem = repr(error)
                    logger.exception("The steward met an error of its own")
            if self._trouble:
                time.sleep(self._trouble * random.uniform(0.5, 1.5))
            if not self._ending:
                self._lease.check()
        with self.gate:
            self.close_connections()

    def _sleep(self) -> None:
        now = time.monotonic()
        self._lease.rests = self.slows_down and not self._busy()
        timers = [self._lease.due_at, self._chores.due_at, *self._due.values()]
        if self._next_due is not None:
            timers.append(self._next_due)
        timeout = min(max(0.0, min(timers) - now), self.most_sleep)
        wards = [ward.channel for ward in self._wards.values() if not ward.gone]
        listening: list[Any] = [self._bell_in, *wards]
        if self._waker is not None and (descriptor := self._waker.fileno()) is not None:
            listening.append(descriptor)
        with contextlib.suppress(OSError, ValueError):  # a channel or the waker's connection is gone: found out below
            select.select(listening, [], [], timeout)

    def _tick(self) -> None:
        if time.monotonic() >= self._lease.due_at:
            self._beat()  # before all that may fail: a worker whose lease ends loses what its children do well
        self._hear_children()
        self._obey()
        if self._ending:
            return
        self._listen()
        self._heed()
        now = time.monotonic()
        if now >= self._due["look"]:
            self._due["look"] = now + (VISIBLE_AFTER / 2 if self._busy() else 3600.0)
            self._look()
        if now >= self._chores.due_at and self._chores.do():
            self._wake_one()
            self._due["admit"] = 0.0
        if now >= self._due["numbers"]:
            self._write_numbers()
        if now >= self._due["stop"]:
            self._due["stop"] = now + STOP_EVERY if self._busy() else float("inf")
            self._stop_revoked()
        if now >= self._due["late"]:
            self._take_back_late()
        if self.feels_pressure and now >= self._due["pressure"]:
            self._due["pressure"] = now + PRESSURE_EVERY
            idle = self._any_idle()
            self.pressure = (not idle and self._broker.survey(self.info.queues).due, idle)
            self._on_retiring()
        if self._any_idle() and (now >= self._due["survey"] or (self._next_due is not None and now >= self._next_due)):
            self._survey()
        if now >= self._due["admit"]:
            self._admit()

    # Numbers

    def _write_numbers(self) -> None:
        self._due["numbers"] = time.monotonic() + WRITE_EVERY
        self._read_counts()
        self._due["numbers"] = time.monotonic() + self._scribe.write()
        for ward in self._wards.values():
            ward.counts.tell_skew(self._scribe.skew or 0.0)

    def _read_counts(self) -> None:
        for ward in self._wards.values():
            self._scribe.accounts.read(ward.holder.slot, ward.counts)

    def _beat(self) -> None:
        if self._lease.renew(self.processed, draining=self.draining or self.quiet):
            signals.heartbeat_sent.emit(self)
            self._chores.hurry(self._lease.due_at)  # a broker may have asked for both in one

    # Children

    def _hear_children(self) -> None:
        for ward in self._wards.values():
            if ward.gone:
                continue
            said = ward.hear()
            if said is None:
                continue
            if not said:
                ward.gone, ward.idle = True, False  # the supervisor learns of its death, too: child_ended()
                continue
            if RETIRES in said:
                ward.retires, ward.idle = True, False
                self._on_retiring()
            elif says_idle(said):
                ward.idle, ward.listens = True, said.endswith(LISTENS)
                self._idle_since = time.monotonic()
                self._due["survey"] = time.monotonic() + SURVEY_AFTER_VAIN if self._in_vain() else 0.0
            elif HEARD in said:
                ward.idle = False
            if NEW in said:
                self.wake_all()
            if MORE in said:
                self._wake_one()
            if FREED in said or (HEARD in said and self._gated):
                self._due["admit"] = 0.0
        if self._busy():
            self._due["stop"] = min(self._due["stop"], time.monotonic() + STOP_EVERY)
            self._due["look"] = min(self._due["look"], time.monotonic() + VISIBLE_AFTER / 2)

    def _take_back_late(self) -> None:
        """Take back what was handed to those who were gone already."""
        reason = "its process was gone when the task was handed to it"
        while self._listened:
            if self._broker.lose(self._listened[0], [], max_losses=settings.TASK_MAX_WORKER_LOSSES, reason=reason):
                self._wake_one()
            self._listened.popleft()
        self._due["late"] = float("inf")

    def _look(self) -> None:
        """See what runs for long: show it, and relieve a blocked child of what it holds behind it."""
        now = time.monotonic()
        started: dict[Claim, float] = {}
        for ward in self._wards.values():
            if not ward.slot.busy:
                continue
            waiting = ward.slot.unstarted(longer_than=GIVE_BACK_FOR_CHILD_AFTER)
            if ids := [task_id for task_id, attempt in waiting if (task_id, attempt) not in ward.relieved]:
                ward.relieved = frozenset(waiting)
                if self._broker.give_back(ward.holder, ids):
                    self._wake_one()
            long = {run[:2]: now - run.since for run in ward.slot.runs() if now - run.since > VISIBLE_AFTER}
            started.update({key: ran for key, ran in long.items() if key not in ward.shown})
            ward.shown = set(long)
        if started:
            self._broker.mark_started(started)

    def _stop_revoked(self) -> None:
        """Have running tasks ended that somebody revoked: what can end by itself first, and a look later the rest."""
        found = [one for one in self._broker.to_stop(self.worker) if one.slot in self._wards]
        for one in found:
            ward = self._wards[one.slot]
            if ward.cancels and (one.id, one.attempt) not in self._told_to_stop:
                with contextlib.suppress(OSError):
                    ward.channel.send(REVOKED)
            elif one.signal is not None and self._on_terminate is not None:
                self._on_terminate(one.id, one.attempt, one.signal)
        self._told_to_stop = {(one.id, one.attempt) for one in found}

    def _busy(self) -> bool:
        return any(ward.busy for ward in self._wards.values())

    def _any_idle(self) -> bool:
        return not self.draining and any(ward.idle for ward in self._wards.values())

    def _wake_one(self, among: Collection[Queues] | None = None) -> None:
        """Wake one idle child; where children consume different queues, one of each kind, or of those ``among``."""
        if self.draining:
            return
        woken: set[Queues | None] = set()
        for ward in self._wards.values():
            if ward.idle and ward.queues not in woken and (among is None or ward.queues in among):
                woken.add(ward.queues)
                ward.idle = False
                ward.wake()
                self._due["look"] = min(self._due["look"], time.monotonic() + VISIBLE_AFTER / 2)

    def restate(self, **changed: Any) -> None:
        """It consumes something else, or has another number of places; let everybody see it. Safe in any thread."""
        with self._restating:
            self.info = self.info._replace(**changed)

        def work() -> None:
            if "queues" in changed:
                self._drop_waker()
            if not self.quiet:  # what it will consume again
                self._broker.restate(self.worker, queues=self.info.queues, concurrency=self.info.concurrency)

        self.order_surely(work)

    def change_queues(self, by_place: Mapping[int, Queues | None]) -> None:
        """From now on the pools consume these. Safe in any thread."""

        def work() -> None:
            for ward in self._wards.values():
                ward.queues = by_place[ward.place]
            self._due["survey"] = 0.0
            self.wake_all()

        self.order(work)

    def wake_all(self) -> None:
        """Have every child look at what it was told. Safe in any thread."""
        for ward in list(self._wards.values()):
            ward.wake()

    # Work

    def _listen(self) -> None:
        """Ask the waker; it says that something may have been sent."""
        if not self._any_idle():
            if self._declared_idle:
                self._declare_idle(False)
            self._due["waker"] = self._due["survey"] = time.monotonic() + 3600.0
            self._next_due = None  # nobody could run it; found again when somebody is idle
            if self._waker is not None and self._waker.fileno() is not None:
                self._waker.woken()  # a hint left unread would end every sleep at once; of commands it still tells
            if self._waker is None or not self._waker.tells_commands:
                self._due["commands"] = min(self._due["commands"], self._heeded + COMMANDS_EVERY)
            return
        if self._waker is None:
            self._waker = self._broker.waker()
            self._due["survey"] = self._due["commands"] = 0.0
        waits = any(ward.idle and not ward.listens for ward in self._wards.values())
        if waits != self._declared_idle:
            self._declare_idle(waits)
            self._due["survey"] = self._due["waker"] = 0.0
        if self._waker.outdated():
            self.wake_all()
        now = time.monotonic()
        descriptor = self._waker.fileno()
        if descriptor is not None or now >= self._due["waker"]:
            woken = self._waker.woken()
            self._due["waker"] = now + self._waker.interval(now - self._idle_since)
            if woken:
                if descriptor is not None:
                    self._wake_one()  # somebody sent a task and said so: no need to ask
                    self._waker.resume()
                    if self._gated:  # unless a limit holds it back
                        self._due["admit"] = 0.0
                else:
                    self._due["survey"] = 0.0
                    self._due["commands"] = min(self._due["commands"], self._heeded + COMMANDS_AFTER_HINT)
        self._due["survey"] = min(self._due["survey"], now + self._waker.net)

    def _heed(self) -> None:
        """Obey commands: at once where a hint told of one, else at a steady pace."""
        waker, now = self._waker, time.monotonic()
        told = waker is not None and waker.tells_commands and waker.commanded()
        if not (told or now >= self._due["commands"]):
            return
        hinted = waker is not None and (waker.tells_commands or self._any_idle())
        self._heeded = now
        self._due["commands"] = now + (COMMANDS_NET if hinted else COMMANDS_EVERY)
        if self.commands is not None:
            self.commands.obey()

    def _survey(self) -> None:
        """Look whether something is due, and when the next thing will be: the net below every hint."""
        survey, where = self._survey_for_idle()
        now = time.monotonic()
        vain = self._in_vain()
        self._found_due_at = self.processed if survey.due else None
        fresh = now - self._idle_since < SURVEY_AFTER_IDLE
        self._due["survey"] = now + (SURVEY_AFTER_IDLE if fresh or self._waker is None else self._waker.net)
        self._next_due = now + survey.next_due if survey.next_due is not None else None
        paced = False
        if survey.limited:
            self._gated = True
            paced = self._admit()
        if survey.due and not (vain and self._on_drained is not None):
            # One child may not be enough, and behind the first task of a priority others become due unseen.
            self._due["survey"] = now + SURVEY_AFTER_WAKE
            self._wake_one(where)
        elif self._on_drained is not None and not self._busy() and not paced:
            self._on_drained()

    def _admit(self) -> bool:
        """Let through what limits allow; look again when they may allow more. Is something only a matter of time?"""
        now = time.monotonic()
        if self.draining:
            self._due["admit"] = now + 3600.0
            return False
        idle = sum(ward.idle for ward in self._wards.values())
        found = self._broker.admit(self.info.queues, free=idle)
        if found.admitted:
            self._wake_one()
        if found.waiting or self._busy():
            self._due["admit"] = now + min(ADMIT_EVERY if found.again_in is None else found.again_in, ADMIT_EVERY)
        else:
            self._due["admit"] = now + 3600.0  # a survey finds out
        return found.admitted > 0 or found.paced

    def _survey_for_idle(self) -> tuple[Survey, list[Queues]]:
        """Look at what idle children consume; return what there is, and where it is due."""
        choices = {ward.queues for ward in self._wards.values() if ward.idle and ward.queues is not None}
        found = {queues: self._broker.survey(queues) for queues in choices}
        later = [one.next_due for one in found.values() if one.next_due is not None]
        due = [queues for queues, one in found.items() if one.due]
        limited = any(one.limited for one in found.values())
        return Survey(bool(due), min(later, default=None), limited), due

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

    def _insist(self, work: Callable[[], object]) -> None:
        """Do it; when the broker is away, again later."""
        try:
            work()
        except OperationalError:
            self.order(lambda: self._insist(work))
            raise
