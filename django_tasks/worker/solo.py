"""One process that does everything: for debugging, and for systems without ``fork``.

Its heartbeat shares the interpreter with the tasks, so a task that blocks it for longer than the lease may run twice.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time

from .. import signals
from ..backends.base import Queues, WorkerInfo
from ..backends.message import Holder
from ..routing import validate_queue
from ..time_limits import validate_limits
from .board import Board
from .child import Child
from .health import Health
from .pools import consumed
from .puller import Options
from .remote import Remote
from .slots import Slot
from .stacks import dump_on_signal, told
from .steward import LAST_WORDS, Steward
from .wards import Ward

logger = logging.getLogger("django_tasks.worker")


class Solo:
    """One worker in one process. :meth:`run` returns its exit code."""

    def __init__(self, info: WorkerInfo, options: Options, health: Health | None = None) -> None:
        self.options = options
        self.health = health or Health()
        self.steward = Steward(info, on_lease_lost=self._lease_lost, on_drained=self.stop if options.burst else None)
        self.steward.commands = Remote(self)
        self.health.watch(self.steward)
        # The main thread runs tasks, so the steward's loop stands for all; a task that blocks the interpreter stops it.
        self.steward.on_turn = self.health.tell
        self.steward.most_sleep = self.health.every
        self.steward.slows_down = False
        self.board = Board()
        self._child: Child | None = None
        self._rounds = 0
        self._stopped = False
        self._anew = False

    @property
    def info(self) -> WorkerInfo:
        """What it is."""
        return self.steward.info

    def run(self) -> int:
        """Work until a signal ends it, or the child has run its share; 0 is an orderly end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: self.stop(number))
        dump_on_signal()
        signals.worker_init.emit(self.info.name, instance=self, options=self.options)
        if not self._register():
            self.health.close()
            return 0
        self.steward.start()
        signals.worker_process_init.emit(self.info.name)
        self.health.started()
        signals.worker_ready.emit(self.info.name, instance=self)
        logger.info("%s is ready.", self.info.name)
        while not self._stopped:
            self._rounds += 1
            self._run_child(self._rounds)
            if self._anew:
                self._anew = False
                with self.steward.gate:
                    self._register()
            else:
                break  # told to stop, or it has run its share: there is no process to replace
        signals.worker_process_shutdown.emit(self.info.name, pid=os.getpid(), exitcode=0)
        self.steward.end(LAST_WORDS)
        self.health.close()
        signals.worker_shutdown.emit(self.info.name, instance=self)
        logger.info("%s has stopped.", self.info.name)
        return 0

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End after the running task. Safe in a signal handler and from any thread."""
        if not self._stopped:
            name = signal.Signals(number).name
            signals.worker_shutting_down.emit(self.info.name, sig=name, how="Warm", exitcode=0)
            self.health.ending()
        self._stopped = True
        self.steward.draining = True
        if self._child is not None:
            self._child.stop()

    def set_time_limits(self, task_name: str, hard: float | None, soft: float | None) -> None:
        """Give a task another soft limit, in seconds, than it declares. Raises ``ValueError`` for a hard one."""
        if hard is not None:
            raise ValueError(f"--pool solo has no other process that could end its task after {hard:g} s")
        self.board.limit(task_name, validate_limits(hard, soft))

    def add_consumer(self, queue: str) -> None:
        """Consume another queue from now on, or one that was cancelled. Raises ``ValueError`` for no queue's name."""
        self.board.add(validate_queue(queue))
        self._consume()

    def cancel_consumer(self, queue: str) -> None:
        """Take nothing from a queue any more. Raises ``ValueError`` for no queue's name."""
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
        queues = self.board.queues(consumed(self.options.pools))
        self.steward.restate(queues=queues or Queues(("",)))
        self.steward.change_queues({0: queues})

    def child_pids(self) -> dict[int, int]:
        """Return the process id of the one slot: its own."""
        return {self._rounds: os.getpid()}

    def stacks(self) -> dict[int, str]:
        """Return what the threads of this process do now, but for the one that asks."""
        return {os.getpid(): told()}

    def _register(self) -> bool:
        def wait(seconds: float) -> None:
            end = time.monotonic() + seconds
            while not self._stopped and (left := end - time.monotonic()) > 0:
                self.health.tell()
                time.sleep(min(0.5, left))

        return self.steward.register_patiently(lambda: self._stopped, wait)

    def _run_child(self, slot: int) -> None:
        ours, theirs = socket.socketpair()
        window = Slot()
        queues = self.board.queues(consumed(self.options.pools))
        ward = Ward(Holder(self.steward.worker, slot, self.info.name), window, ours, queues=queues)
        self._child = Child(ward.holder, window, theirs, self.options.child, board=self.board)
        self._child.counts = ward.counts
        if self._stopped:  # the signal came before there was a child to tell
            self._child.stop()
        self.steward.take_on(ward)
        self._child.run()
        self.steward.child_ended(ward, reason="The round ended", charge=False)
        theirs.close()

    def _lease_lost(self) -> None:
        self._anew = True
        if self._child is not None:
            self._child.stop()
