"""Commands from outside: fetched by the steward, obeyed here, answered through the broker.

This package's own commands only look at memory or ask the database a short question, so they run in the steward's
thread. Those that a site declares may do anything: they have a thread of their own, one at a time, and a bound. None of
them takes the worker down: what it raises is its reply.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from django.db import connections

from .. import panel
from ..backends import get_broker
from ..backends.base import WorkerInfo
from ..backends.control import Order
from ..registry import TaskRegistry, tasks
from .steward import Steward

logger = logging.getLogger("django_tasks.worker")

#: Seconds that a command of the site's may take; then its reply is an error, and the next one gets another thread.
COMMAND_TIMEOUT = 10.0
#: Threads that may hang in such commands at the same time; then there are no more.
MOST_HANGING = 4
#: Seconds for which what was obeyed is remembered beyond its expiry: the clocks of two processes differ.
REMEMBER = 60.0


class Worker(Protocol):
    """What commands may do to a worker; its methods may be called from any thread."""

    steward: Steward

    @property
    def info(self) -> WorkerInfo: ...

    def stop(self) -> None: ...

    def child_pids(self) -> dict[int, int]: ...


class Refused(Exception):
    """A command that cannot be obeyed, with the reason as its reply."""


@dataclass(frozen=True)
class State:
    """The worker as a command sees it; the first argument of every command."""

    #: The node name.
    hostname: str
    #: The tasks that this worker knows, by name.
    tasks: TaskRegistry
    #: ``runworker``'s own object: :class:`~django_tasks.worker.supervisor.Supervisor` or
    #: :class:`~django_tasks.worker.solo.Solo`.
    worker: Any
    #: The id of the command that is obeyed.
    command_id: int = 0

    @property
    def consumer(self) -> Consumer:
        """What stands for Celery's consumer: ``hostname``, ``pool``, ``add_task_queue()``, ``cancel_task_queue()``."""
        return Consumer(self.worker)


@dataclass(frozen=True)
class Consumer:
    """A worker by the names of Celery's consumer."""

    _worker: Any

    @property
    def hostname(self) -> str:
        """The node name."""
        return str(self._worker.info.name)

    @property
    def pool(self) -> Pool:
        """Its processes."""
        return Pool(self._worker)

    def add_task_queue(self, queue: str) -> None:
        """Consume another queue."""
        able(self._worker, "add_consumer")(queue)

    def cancel_task_queue(self, queue: str) -> None:
        """Take nothing from a queue any more."""
        able(self._worker, "cancel_consumer")(queue)


@dataclass(frozen=True)
class Pool:
    """A worker's processes by the names of Celery's pool."""

    _worker: Any

    @property
    def num_processes(self) -> int:
        """How many there are now."""
        return len(self._worker.child_pids())

    def grow(self, n: int = 1) -> None:
        """Have ``n`` more."""
        able(self._worker, "grow")(n)

    def shrink(self, n: int = 1) -> None:
        """Have ``n`` less."""
        able(self._worker, "shrink")(n)


def able(worker: Any, method: str) -> Callable[..., Any]:
    """Return a method of a worker. Raises :class:`Refused` if its pool has none such."""
    found = getattr(worker, method, None)
    if found is None:
        raise Refused(f"--pool {worker.info.pool} cannot do that: it has one process, which does everything.")
    return found  # type: ignore[no-any-return]


class Remote:
    """Obeys the commands for one worker. Used by the steward's thread alone."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._broker = get_broker()
        #: Ids of commands that were obeyed, and until when they could be told again.
        self._known: dict[int, float] = {}
        self._side = _Side(worker.steward)

    def obey(self) -> None:
        """Fetch what is new, and do it. Raises :class:`~django_tasks.exceptions.OperationalError`."""
        self._side.look()
        now = time.monotonic()
        self._known = {command: until for command, until in self._known.items() if until > now}
        for order in self._broker.commands(self._worker.steward.worker, self._known):
            # Before, not after: what brings the worker down must not do so again and again.
            self._known[order.id] = now + order.expires_in + REMEMBER
            self._obey(order)

    def _obey(self, order: Order) -> None:
        logger.info("Command %s (%d): %s", order.name, order.id, dict(order.arguments))
        info = panel.commands.get(order.name)
        state = State(self._worker.info.name, tasks, self._worker, order.id)
        if info is None:
            self._answer(order, {"error": repr(KeyError(order.name))})
        elif info.builtin:
            self._answer(order, _answer_of(order.name, partial(info.function, state, **order.arguments)))
        else:
            work = partial(info.function, state, **order.arguments)
            self._side.put(_Job(order.name, work, partial(self._answer, order)))

    def _answer(self, order: Order, answer: Any) -> None:
        if order.wants_replies:
            body = json.dumps(answer, default=str)
            worker = self._worker.steward.worker
            self._worker.steward.order_surely(lambda: self._broker.reply(order.id, worker, body))


@dataclass(eq=False)
class _Job:
    name: str
    work: Callable[[], Any]
    answer: Callable[[Any], None]
    began: float = 0.0
    given_up: bool = False


class _Side:
    """Runs the site's commands one after the other, each in a thread of its own. Used by the steward's thread alone."""

    def __init__(self, steward: Steward) -> None:
        self._steward = steward
        self._waiting: deque[_Job] = deque()
        self._running: _Job | None = None
        self._hanging = 0

    def put(self, job: _Job) -> None:
        self._waiting.append(job)
        self._go_on()

    def look(self) -> None:
        """Give up on what takes too long."""
        job = self._running
        if job is None or time.monotonic() < job.began + COMMAND_TIMEOUT:
            return
        logger.error("Command %s takes longer than %.0f s: it is left alone", job.name, COMMAND_TIMEOUT)
        job.given_up = True
        self._hanging += 1
        self._running = None
        job.answer({"error": repr(TimeoutError(f"It takes longer than {COMMAND_TIMEOUT:g} s."))})
        self._go_on()

    def _go_on(self) -> None:
        while self._running is None and self._waiting:
            job = self._waiting.popleft()
            if self._hanging >= MOST_HANGING:
                job.answer({"error": repr(RuntimeError(f"{self._hanging} earlier commands still hang."))})
                continue
            job.began = time.monotonic()
            self._running = job
            self._steward.heed_at(job.began + COMMAND_TIMEOUT)
            threading.Thread(target=self._run, args=(job,), name=f"command {job.name}", daemon=True).start()

    def _run(self, job: _Job) -> None:
        answer = _answer_of(job.name, job.work)
        connections.close_all()  # those of this thread
        self._steward.order(lambda: self._finished(job, answer))

    def _finished(self, job: _Job, answer: Any) -> None:
        if job.given_up:
            self._hanging -= 1
            return
        self._running = None
        job.answer(answer)
        self._go_on()


def _answer_of(name: str, work: Callable[[], Any]) -> Any:
    try:
        answer = work()
        json.dumps(answer, default=str)
    except Refused as error:
        return {"error": str(error)}
    except BaseException as error:  # in a thread of its own, nobody else would hear of it
        logger.exception("Command %s failed", name)
        return {"error": repr(error)}
    return answer
