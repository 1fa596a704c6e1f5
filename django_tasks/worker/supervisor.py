"""Processes and signals: starts the children, replaces those that die, and ends the worker in order.

The main thread never talks to a database: whatever happens there, signals are answered and the dead are replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from queue import Empty, SimpleQueue
from signal import Signals
from types import FrameType

from django.db import connections

from .. import signals
from ..backends import close_all
from ..backends.base import Queues, WorkerInfo
from ..backends.message import Holder
from ..conf import settings
from ..result import signal_name
from ..routing import validate_queue
from ..time_limits import validate_limits
from . import families
from .aftermath import Ended, tell
from .autoscale import Autoscale
from .board import Board
from .child import Child
from .concurrent import capacity
from .counts import Counts
from .health import Health
from .loop import LoopChild
from .pools import Pool, consumed
from .processes import Process
from .puller import CANCEL, Options, Puller
from .remote import Remote
from .roster import Roster
from .site_connections import close_pools
from .slots import Slot
from .stacks import Line, asking_signal, collect, dump_on_signal
from .steward import LAST_WORDS, Steward
from .threads import ThreadChild
from .verdicts import Verdicts
from .wards import Ward

logger = logging.getLogger("django_tasks.worker")

#: Seconds between looks at the children's health.
LOOK = 0.5
#: A child that dies sooner than this many seconds after its start is replaced ever more slowly.
TOO_SOON = 1.0
SLOWEST = 10.0
#: Coroutines that are cancelled when the worker ends have so many seconds to tidy up.
TIDY_UP = 1.0


class Supervisor:
    """One worker. :meth:`run` returns its exit code."""

    def __init__(self, info: WorkerInfo, options: Options, health: Health | None = None) -> None:
        self.options = options
        self.health = health or Health()
        self.steward = Steward(
            info,
            on_lease_lost=self._lease_lost,
            on_drained=self._drained if options.burst else None,
            on_retiring=self._ring,
            on_terminate=self.terminate,
        )
        if options.autoscale is not None:
            self.steward.feel_pressure()
        self.steward.commands = Remote(self)
        self.health.watch(self.steward)
        self.board = Board()
        self._processes: dict[int, Process] = {}
        self._next_slot = 0
        self._backoff = 0.0
        self._spawn_not_before = 0.0
        #: How many processes each pool is to have.
        self._wanted = [pool.processes for pool in options.pools]
        self._autoscale = options.autoscale
        #: What other threads want the main one to do.
        self._orders: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._verdicts = Verdicts(self.steward.store, options.shutdown_timeout)
        #: None while it works, then when the shutdown began.
        self._ending: float | None = None
        self._grace = options.shutdown_timeout
        self._cold = False
        self._anew = False
        self._bell_in, self._bell_out = os.pipe()
        os.set_blocking(self._bell_in, False)
        os.set_blocking(self._bell_out, False)

    @property
    def info(self) -> WorkerInfo:
        """What it is."""
        return self.steward.info

    def run(self) -> int:
        """Work until a signal ends it; 0 is an orderly end."""
        self._install_signals()
        signals.worker_init.emit(self.info.name, instance=self, options=self.options)
        if not self._register():
            self.health.close()
            return 0
        self.steward.start()
        gc.collect()
        gc.freeze()  # what is loaded by now stays shared with the children
        self.health.started()
        signals.worker_ready.emit(self.info.name, instance=self)
        logger.info("%s is ready.", self.info.name)
        while self._ending is None or self._processes:
            self._obey()
            self._keep_up()
            self._wait(self._patience())
            self._reap()
            self._check()
            if self._ending is not None:
                self._press()
        self.steward.end(LAST_WORDS)
        self.health.close()
        signals.worker_shutdown.emit(self.info.name, instance=self)
        logger.info("%s has stopped.", self.info.name)
        return 0

    # Signals

    def _install_signals(self) -> None:
        signal.set_wakeup_fd(self._bell_out, warn_on_full_buffer=False)
        for number, handler in (
            (signal.SIGTERM, self._on_stop),
            (signal.SIGINT, self._on_stop),
            (signal.SIGQUIT, self._on_quit),
            (signal.SIGCHLD, self._on_child),
            (signal.SIGUSR1, self._on_dump),
        ):
            signal.signal(number, handler)
        signal.signal(asking_signal(), signal.SIG_IGN)  # a child is not asked before it can answer

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if self._ending is None:
            self.stop(number)
        else:
            self._grace = 0.0

    def _on_quit(self, number: int, frame: FrameType | None) -> None:
        self.stop_now()

    def _on_child(self, number: int, frame: FrameType | None) -> None:
        pass  # the wake-up descriptor has woken the loop

    def _on_dump(self, number: int, frame: FrameType | None) -> None:
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr, all_threads=True)
        for process in self._processes.values():
            families.send(process.pid, signal.SIGUSR1)

    def stop(self, number: int = signal.SIGTERM, how: str = "Warm") -> None:
        """End the worker: running tasks are finished within the shutdown timeout, the rest goes back.

        Safe in a signal handler and from any thread: the loop does what there is to do.
        """
        if self._ending is None:
            self._ending = time.monotonic()
            self.health.ending()
        self.steward.draining = True
        signals.worker_shutting_down.emit(self.info.name, sig=signal.Signals(number).name, how=how, exitcode=0)
        self._ring()

    def stop_now(self) -> None:
        """End the worker at once: what runs is killed, and goes back with the rest; nobody is to blame.

        Safe in a signal handler and from any thread.
        """
        self._grace = 0.0
        self._cold = True
        self.stop(signal.SIGQUIT, "Cold")

    # The loop

    def _register(self) -> bool:
        def wait(seconds: float) -> None:
            end = time.monotonic() + seconds
            while self._ending is None and (left := end - time.monotonic()) > 0:
                self._wait(min(LOOK, left))

        return self.steward.register_patiently(lambda: self._ending is not None, wait)

    def _wait(self, seconds: float = LOOK) -> None:
        self.health.main_turned()
        self.health.tell()
        select.select([self._bell_in], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell_in, 4096)

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._bell_out, b"!")

    def _keep_up(self) -> None:
        """Have as many children as wanted."""
        if self._anew:
            self._begin_anew()
        if self._ending is not None or time.monotonic() < self._spawn_not_before:
            return
        self._scale()
        for place, wanted in enumerate(self._wanted):
            present = [each for each in self._processes.values() if each.place == place and not each.leaves]
            for _ in range(wanted - len(present)):
                self._spawn(place)
            for process in sorted(present, key=lambda each: each.ward.slot.busy)[: max(0, len(present) - wanted)]:
                process.tell_to_stop()

    def _spawn(self, place: int) -> None:
        self._next_slot += 1
        ours, theirs = socket.socketpair()
        pool = self.options.pools[place]
        slot: Slot | Roster = Slot() if pool.kind == "prefork" else Roster(capacity(pool.concurrency))
        line = Line()
        ward = Ward(Holder(self.steward.worker, self._next_slot, self.info.name), slot, ours, line)
        ward.place, ward.queues = place, self.board.queues(pool.queues)
        ward.cancels = pool.kind == "asyncio"
        untold = self._verdicts.take_untold()
        signals.worker_before_create_process.emit(self)
        with self.steward.gate:  # no other thread is anywhere while we fork, and no connection crosses
            self.steward.close_connections()
            connections.close_all()
            close_pools()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the gate is what it warns of
                pid = os.fork()
            if pid == 0:
                self._become_child(ward.holder, pool, slot, ward.counts, ours, theirs, line, untold)
        theirs.close()
        line.opened()
        self._processes[pid] = Process(pid, ward, time.monotonic(), place)
        self.steward.take_on(ward)

    def _become_child(
        self,
        holder: Holder,
        pool: Pool,
        slot: Slot | Roster,
        counts: Counts,
        ours: socket.socket,
        theirs: socket.socket,
        line: Line,
        untold: Sequence[Ended],
    ) -> None:
        code = 1
        try:
            _die_with(self.info.pid)
            os.setpgid(0, 0)  # what it starts is killed with it; Ctrl-C in a terminal is the supervisor's
            signal.set_wakeup_fd(-1)
            ours.close()
            for process in self._processes.values():
                process.ward.close()
            os.close(self._bell_in)
            os.close(self._bell_out)
            self.health.leave()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            dump_on_signal()
            child = self._child(holder, pool, slot, theirs)
            child.counts = counts
            line.answer(child.coroutines)
            signal.signal(signal.SIGTERM, lambda number, frame: child.stop())
            if self._ending is not None:  # the signal came before its handler
                child.stop()
            signals.worker_process_init.emit(self.info.name)
            tell(untold, self.info.name)
            child.run()
            code = 0
        except BaseException:
            logger.exception("A child of %s failed", self.info.name)
        finally:
            with contextlib.suppress(Exception):
                signals.worker_process_shutdown.emit(self.info.name, pid=os.getpid(), exitcode=code)
                close_all()
                connections.close_all()
                logging.shutdown()
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _child(self, holder: Holder, pool: Pool, window: Slot | Roster, channel: socket.socket) -> Puller:
        options = replace(self.options.child, queues=pool.queues)
        if isinstance(window, Slot):
            return Child(holder, window, channel, options, board=self.board, supervisor=self.info.pid)
        cls = ThreadChild if pool.kind == "threads" else LoopChild
        return cls(
            holder,
            window,
            channel,
            options,
            board=self.board,
            concurrency=pool.concurrency,
            supervisor=self.info.pid,
        )

    def _reap(self) -> None:
        """Hear which processes ended or were stopped; as PID 1 that may be anybody's."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            process = self._processes.get(pid)
            if process is None:
                continue
            if os.WIFSTOPPED(status):
                process.stopped_since = time.monotonic()
            elif os.WIFCONTINUED(status):
                process.stopped_since = None
            else:
                self._ended(process, status)

    def _ended(self, process: Process, status: int) -> None:
        del self._processes[process.pid]
        code = os.waitstatus_to_exitcode(status)
        lived = time.monotonic() - process.born
        if code == 0:
            reason = f"Child {process.pid} ended"
        else:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            reason = f"Child {process.pid} {how}"
            logger.log(logging.INFO if process.killed else logging.ERROR, "%s", reason)
        # A child that dies of a task is no sign that the next one will: such tasks are few, and each dies few times.
        fault_of_ours = code and lived < TOO_SOON and not process.ward.slot.busy
        self._backoff = min(max(self._backoff * 2, 0.2), SLOWEST) if fault_of_ours else 0.0
        self._spawn_not_before = time.monotonic() + self._backoff
        self.steward.child_ended(process.ward, reason=reason, charge=not process.killed, verdicts=process.verdicts)

    def _check(self) -> None:
        """End what is stuck, and what has run out of time."""
        for process in self._processes.values():
            if process.killed:
                continue
            if how := process.stuck:
                logger.error("Child %d is %s: it is replaced", process.pid, how)
                families.kill_family(process.pid)
                continue
            self._verdicts.look(process)

    def _patience(self) -> float:
        """Return the seconds until the next time limit ends, at most those between two looks."""
        deadlines = [run.deadline for each in self._processes.values() for run in each.ward.slot.runs() if run.limit]
        return min([LOOK, *(max(0.01, one - time.monotonic()) for one in deadlines)])

    def _press(self) -> None:
        """Tell the children to stop, and end those for which the shutdown timeout does not wait; nobody is to blame."""
        now = time.monotonic()
        late = self._ending is not None and now - self._ending >= self._grace
        for process in self._processes.values():
            process.tell_to_stop()
            if late and (self._cold or not self._cancels(process, now)):
                process.kill()

    def _cancels(self, process: Process, now: float) -> bool:
        """Has a child coroutines that were just told to end, so that they can tidy up?"""
        if self.options.pools[process.place].kind != "asyncio":
            return False
        if process.cancelled_at is None:
            process.cancelled_at = now
            with contextlib.suppress(OSError):
                process.ward.channel.send(CANCEL)
        return now - process.cancelled_at < TIDY_UP

    def _scale(self) -> None:
        if self._autoscale is not None:
            place, now = self._prefork(), time.monotonic()
            pressed, idle = self.steward.pressure
            self._want(place, self._autoscale.wanted(self._wanted[place], pressed=pressed, idle=idle, now=now))

    def _want(self, place: int, processes: int) -> None:
        if more := processes - self._wanted[place]:
            self._wanted[place] = processes
            self.steward.restate(concurrency=self.info.concurrency + more)

    def _prefork(self) -> int:
        """Return the place of the pool whose processes can be more or fewer. Raises ``ValueError``."""
        for place, pool in enumerate(self.options.pools):
            if pool.kind == "prefork":
                return place
        raise ValueError(f"--pool {self.info.pool} has a fixed size; only a pool prefork grows and shrinks")

    def _obey(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self._orders.get_nowait()()

    def _order(self, work: Callable[[], object]) -> None:
        self._orders.put(work)
        self._ring()

    # Orders, from any thread

    def grow(self, n: int = 1) -> None:
        """Have ``n`` more child processes. Raises ``ValueError`` when the pool is of a fixed size."""
        place = self._prefork()
        self._order(lambda: self._resize(place, n))

    def shrink(self, n: int = 1) -> None:
        """Have ``n`` fewer child processes, idle ones first, at least one left; running tasks are finished.

        Raises ``ValueError`` when so many are not there, or the pool is of a fixed size.
        """
        place = self._prefork()
        if n >= self._wanted[place]:
            raise ValueError(f"cannot shrink by {n}: the pool has {self._wanted[place]} processes, and one has to stay")
        self._order(lambda: self._resize(place, -n))

    def _resize(self, place: int, by: int) -> None:
        self._want(place, max(1, self._wanted[place] + by))
        if self._autoscale is not None:  # as Celery does: who resizes by hand moves the bounds along
            self._autoscale = self._autoscale.including(self._wanted[place])

    def autoscale(self, max: int, min: int) -> None:
        """Keep between ``min`` and ``max`` child processes, as many as there is work for, from now on.

        Raises ``ValueError`` when 1 ≤ min ≤ max does not hold, or the pool is of a fixed size.
        """
        self._prefork()
        scale = Autoscale(max, min, settings.WORKER_AUTOSCALE_IDLE)
        self._order(lambda: setattr(self, "_autoscale", scale))
        self.steward.feel_pressure()

    def restart_children(self) -> None:
        """Replace every child; each finishes what it runs, beside the one that takes its place."""

        def tell_all() -> None:
            for process in self._processes.values():
                process.tell_to_stop()

        self._order(tell_all)

    def terminate(self, task_id: str, attempt: int, signal: str | int = "SIGTERM") -> bool:
        """End a running attempt as REVOKED, whatever it does; return whether a child runs it now.

        Only if that child still runs exactly this attempt when it comes to it. Whatever ``signal`` is named, a process
        is ended by SIGKILL, since its own handlers of others would keep it alive; ``task_revoked`` tells the one that
        was asked for. Raises ``ValueError`` for what is no signal.
        """
        number = Signals[signal_name(signal)]
        found = any((task_id, attempt) == run[:2] for _, run in self.steward.running())
        self._order(lambda: self._verdicts.terminate(self._processes.values(), (task_id, attempt), number))
        return found

    def set_time_limits(self, task_name: str, hard: float | None, soft: float | None) -> None:
        """Give a task other limits, in seconds, than it declares, for attempts that begin from now on.

        Raises ``TypeError`` or ``ValueError`` for what are no limits.
        """
        self.board.limit(task_name, validate_limits(hard, soft))
        self.steward.wake_all()

    def add_consumer(self, queue: str) -> None:
        """Consume another queue from now on, or one that was cancelled. Raises ``ValueError`` for no queue's name."""
        self.board.add(validate_queue(queue))
        self._consume()

    def cancel_consumer(self, queue: str) -> None:
        """Take nothing from a queue any more; what runs is finished. Raises ``ValueError`` for no queue's name."""
        self.board.cancel(validate_queue(queue))
        self._consume()

    def quiet(self) -> None:
        """Take nothing new until :meth:`resume`; what runs goes on."""
        self._be_quiet(True)

    def resume(self) -> None:
        """Take tasks again."""
        self._be_quiet(False)

    def _be_quiet(self, quiet: bool) -> None:
        self.board.quiet(quiet)
        self.steward.quiet = quiet
        self.steward.order(self.steward.beat_now)  # whoever looks at the workers is to see it
        self._consume()

    def _consume(self) -> None:
        pools = self.options.pools
        self.steward.restate(queues=self.board.queues(consumed(pools)) or Queues(("",)))
        self.steward.change_queues({place: self.board.queues(pool.queues) for place, pool in enumerate(pools)})

    # Called by the steward's thread

    @property
    def autoscales(self) -> tuple[int, int] | None:
        """The most and the fewest child processes that it may have, if their number follows the work."""
        scale = self._autoscale
        return None if scale is None else (scale.maximum, scale.minimum)

    def stacks(self) -> dict[int, str]:
        """Return by process ids what the threads of each child do now; nothing of one that cannot say. Takes a second
        at the longest."""

        def send(pids: Set[int]) -> None:
            for pid in pids & self._processes.keys():
                families.send(pid, asking_signal())

        lines = {process.pid: process.ward.line for process in list(self._processes.values())}
        return collect(
            {pid: line for pid, line in lines.items() if line is not None}, lambda pids: self._order(lambda: send(pids))
        )

    def child_pids(self) -> dict[int, int]:
        """Return the process ids of the children by their slots."""
        return {process.ward.holder.slot: process.pid for process in list(self._processes.values())}

    def _lease_lost(self) -> None:
        self._anew = True
        self._ring()

    def _drained(self) -> None:
        if self._ending is None:
            self.stop()

    def _begin_anew(self) -> None:
        """The tasks are not ours any more: stop them, and go on as a new worker."""
        for process in self._processes.values():
            process.kill()
        while self._processes:
            self._wait(0.05)
            self._reap()
        self._anew = False
        if self._ending is None:
            with self.steward.gate:
                registered = self._register()
            if not registered:
                return


def _die_with(supervisor: int) -> None:
    """Linux: be killed when the supervisor dies. Elsewhere the child's side thread notices."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != supervisor:  # it has died already
        os._exit(1)
