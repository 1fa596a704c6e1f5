"""One process that does everything: for debugging, and for systems without ``fork``.

Its heartbeat shares the interpreter with the tasks, so a task that blocks it for longer than the lease may run twice.
"""

from __future__ import annotations

import logging
import signal
import socket
import time

from .. import signals
from ..backends.base import WorkerInfo
from ..backends.message import Holder
from .child import Child, Options
from .slots import Slot
from .steward import LAST_WORDS, Steward, Ward

logger = logging.getLogger("django_tasks.worker")


class Solo:
    """One worker in one process. :meth:`run` returns its exit code."""

    def __init__(self, info: WorkerInfo, options: Options) -> None:
        self.info = info
        self.options = options
        self.steward = Steward(info, on_lease_lost=self._lease_lost, on_drained=self.stop if options.burst else None)
        self._child: Child | None = None
        self._stopped = False
        self._anew = False

    def run(self) -> int:
        """Work until a signal ends it, or the child has run its share; 0 is an orderly end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: self.stop())
        signals.worker_init.emit(self.info.name, instance=self, options=self.options)
        if not self._register():
            return 0
        self.steward.start()
        signals.worker_process_init.emit(self.info.name)
        signals.worker_ready.emit(self.info.name, instance=self)
        logger.info("%s is ready.", self.info.name)
        rounds = 0
        while not self._stopped:
            rounds += 1
            self._run_child(rounds)
            if self._anew:
                self._anew = False
                with self.steward.gate:
                    self._register()
            else:
                break  # told to stop, or it has run its share: there is no process to replace
        self.steward.end(LAST_WORDS)
        signals.worker_shutdown.emit(self.info.name, instance=self)
        logger.info("%s has stopped.", self.info.name)
        return 0

    def stop(self) -> None:
        """End after the running task. Safe in a signal handler and from any thread."""
        self._stopped = True
        self.steward.draining = True
        if self._child is not None:
            self._child.stop()

    def _register(self) -> bool:
        return self.steward.register_patiently(lambda: self._stopped, time.sleep)

    def _run_child(self, slot: int) -> None:
        ours, theirs = socket.socketpair()
        ward = Ward(Holder(self.steward.worker, slot, self.info.name), Slot(), ours)
        self._child = Child(ward.holder, ward.slot, theirs, self.options.child)
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
