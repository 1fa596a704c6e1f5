"""The pool of coroutines: one process, one event loop, hundreds of ``async def`` tasks; other tasks have threads."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from asgiref.sync import SyncToAsync, ThreadSensitiveContext

from ..backends.message import Claim, Delivery, Return, claim_of
from ..conf import settings
from ..exceptions import OperationalError
from ..executor import Execution, Stop, aexecute
from ..registry import tasks
from .puller import CANCEL, REVOKED
from .site_connections import SiteConnections
from .threads import ThreadChild

logger = logging.getLogger("django_tasks.worker")

#: A coroutine whose hard time limit has passed is cancelled, and has so many seconds to end of it.
CANCEL_GRACE = 0.5
#: Threads in which coroutines use Django's ORM, each with its own connections. Their transactions live within one call.
ORM_THREADS = 8
#: Seconds between signs of life of the loop, and after which silence somebody is said to block it.
PULSE, BLOCKED_AFTER = 1.0, 5.0


class LoopChild(ThreadChild):
    """Runs coroutines in a loop, and everything else in a bounded number of threads beside it."""

    def _open(self) -> None:
        super()._open()
        self._coroutines: dict[Claim, asyncio.Task[None]] = {}
        self._stops: dict[Claim, Stop] = {}
        self._pulse = time.monotonic()
        self._told_blocked = False
        self._asides = ThreadPoolExecutor(ORM_THREADS, "loop-aside")
        self._orm = itertools.cycle([OrmThread(self._site, number) for number in range(ORM_THREADS)])
        ready = threading.Event()
        self._loop_thread = threading.Thread(target=self._run_loop, args=(ready,), name="loop", daemon=True)
        self._loop_thread.start()
        ready.wait()

    @property
    def thread_count(self) -> int:
        return min(self.concurrency, settings.WORKER_ASYNCIO_THREADS)

    def coroutines(self) -> Mapping[str, asyncio.Task[Any]]:
        return {claim[0]: task for claim, task in list(self._coroutines.items())}

    def _run_loop(self, ready: threading.Event) -> None:
        async def live() -> None:
            self._loop = asyncio.get_running_loop()
            self._loop_ends = asyncio.Event()
            ready.set()
            while not self._loop_ends.is_set():
                self._pulse = time.monotonic()
                try:
                    await asyncio.wait_for(self._loop_ends.wait(), PULSE)
                except TimeoutError:
                    continue

        asyncio.run(live())

    def _start(self, delivery: Delivery) -> None:
        task = tasks.get(delivery.name)
        # A transaction belongs to a thread.
        if task is not None and task.is_async and not task.atomic:
            self._loop.call_soon_threadsafe(self._spawn, delivery)
        else:
            super()._start(delivery)

    def _names_without_room(self) -> set[str]:
        """While all threads are taken, only coroutines are claimed."""
        if self._waiting or len(self._threads) < self.thread_count:
            return set()
        return {name for name, task in tasks.items() if not task.is_async or task.atomic}

    def _hear(self, word: bytes) -> None:
        if REVOKED in word:
            self._cancel_revoked()
        if CANCEL in word:
            self._loop.call_soon_threadsafe(self._cancel, list(self._held), Stop.SHUTDOWN)

    def _turn(self) -> None:
        super()._turn()
        silence = time.monotonic() - self._pulse
        if silence > BLOCKED_AFTER and not self._told_blocked:
            frame = sys._current_frames().get(self._loop_thread.ident or 0)
            where = "".join(traceback.format_stack(frame)) if frame is not None else ""
            logger.warning("A coroutine has blocked the event loop for %.0f s:\n%s", silence, where)
        self._told_blocked = silence > BLOCKED_AFTER

    def _close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop_ends.set)
        self._loop_thread.join(timeout=5)
        self._asides.shutdown()
        super()._close()

    # In the loop's thread

    def _spawn(self, delivery: Delivery) -> None:
        task = self._loop.create_task(self._run_coroutine(delivery), context=contextvars.Context())
        self._coroutines[claim_of(delivery)] = task

    async def _run_coroutine(self, delivery: Delivery) -> None:
        began = time.monotonic()
        claim = claim_of(delivery)
        execution = Execution(Return(delivery.id, delivery.attempt))
        orm = next(self._orm)
        orm.enter(self._broker.generation)
        timer: asyncio.TimerHandle | None = None
        try:
            if self.may_begin(delivery):
                index = self._held[claim]
                self.roster.start(index)
                if await self._announced(delivery):
                    limits = self._limits.of(delivery)
                    if limits is not None and limits.hard is not None:
                        # The supervisor acts when the coroutine does not heed its cancellation.
                        self.roster.limit(index, limits.hard, CANCEL_GRACE)
                        timer = self._loop.call_later(limits.hard, self._cancel, [claim], Stop.TIME_LIMIT)
                    execution = await aexecute(
                        delivery,
                        worker=self.holder.name,
                        limits=limits,
                        aside=self._in_thread,
                        stopped=lambda: self._stops.get(claim),
                    )
        except asyncio.CancelledError:
            pass  # before it began, or while its end was told: it goes back
        except Exception:
            logger.exception("Task %s could not be run", delivery.id)
        finally:
            if timer is not None:
                timer.cancel()
            self._coroutines.pop(claim, None)
            self._stops.pop(claim, None)
            orm.leave()
            self.has_run(delivery, execution, began)

    async def _announced(self, delivery: Delivery) -> bool:
        if not self.is_to_announce(delivery):
            return True
        return bool(await self._in_thread(self._announce, delivery))

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        run = contextvars.copy_context().run
        return self._loop.run_in_executor(self._asides, lambda: self.apart(lambda: run(function, *args)))

    def _cancel(self, claims: Iterable[Claim], stop: Stop) -> None:
        for claim in claims:
            task = self._coroutines.get(claim)
            if task is not None and claim not in self._stops:
                self._stops[claim] = stop
                task.cancel()

    # In the main thread

    def _cancel_revoked(self) -> None:
        try:
            found = self._broker.to_stop(self.holder.worker)
        except OperationalError:
            return  # the supervisor says so again
        if revoked := [(one.id, one.attempt) for one in found if one.slot == self.holder.slot]:
            self._loop.call_soon_threadsafe(self._cancel, revoked, Stop.REVOKED)


class OrmThread(ThreadPoolExecutor):
    """One thread in which coroutines use Django's ORM; asgiref alone has one for all coroutines together."""

    def __init__(self, site: SiteConnections, number: int) -> None:
        super().__init__(1, f"orm-{number + 1}")
        self._site = site
        self._used = False
        self._generation: int | None = None
        self._context = ThreadSensitiveContext()
        SyncToAsync.context_to_thread_executor[self._context] = self

    def enter(self, generation: int) -> None:
        """The coroutine that runs here uses this thread from now on."""
        if self._used and generation != self._generation:
            self.submit(self._site.before_task, generation)
        self._generation = generation
        SyncToAsync.thread_sensitive_context.set(self._context)

    def leave(self) -> None:
        """The coroutine has ended."""
        if self._used:
            super().submit(self._site.after_task)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self._used = True
        return super().submit(fn, *args, **kwargs)
