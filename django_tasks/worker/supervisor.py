"""Processes and signals: starts the children, replaces those that die, and ends the worker in order.

The main thread never talks to a database: whatever happens there, signals are answered and the dead are replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
import warnings
from dataclasses import dataclass
from types import FrameType

from django.db import connections

from .. import signals
from ..backends import close_all
from ..backends.base import WorkerInfo
from ..backends.message import Holder
from .child import WAKE, Child, Options
from .slots import Slot
from .steward import LAST_WORDS, Steward, Ward

logger = logging.getLogger("django_tasks.worker")

#: Seconds between looks at the children's health.
LOOK = 0.5
#: A child that is stopped (SIGSTOP) or silent outside a task for so many seconds is replaced.
STUCK_AFTER = 10.0
#: A child that dies sooner than this many seconds after its start is replaced ever more slowly.
TOO_SOON = 1.0
SLOWEST = 10.0


@dataclass(slots=True, eq=False)
class Process:
    """One child process."""

    pid: int
    ward: Ward
    born: float
    stopped_since: float | None = None
    #: It was told to stop.
    told: bool = False
    #: The supervisor killed it: its running task is not to blame.
    killed: bool = False


class Supervisor:
    """One worker. :meth:`run` returns its exit code."""

    def __init__(self, info: WorkerInfo, options: Options) -> None:
        self.info = info
        self.options = options
        self.steward = Steward(
            info, on_lease_lost=self._lease_lost, on_drained=self._drained if options.burst else None
        )
        self._processes: dict[int, Process] = {}
        self._next_slot = 0
        self._backoff = 0.0
        self._spawn_not_before = 0.0
        self._wanted = options.concurrency
        #: None while it works, then when the shutdown began.
        self._ending: float | None = None
        self._grace = options.shutdown_timeout
        self._anew = False
        self._bell_in, self._bell_out = os.pipe()
        os.set_blocking(self._bell_in, False)
        os.set_blocking(self._bell_out, False)

    def run(self) -> int:
        """Work until a signal ends it; 0 is an orderly end."""
        self._install_signals()
        signals.worker_init.emit(self.info.name, instance=self, options=self.options)
        if not self._register():
            return 0
        self.steward.start()
        gc.collect()
        gc.freeze()  # what is loaded by now stays shared with the children
        signals.worker_ready.emit(self.info.name, instance=self)
        logger.info("%s is ready.", self.info.name)
        while self._ending is None or self._processes:
            self._keep_up()
            self._wait()
            self._reap()
            self._check()
            if self._ending is not None:
                self._press()
        self.steward.end(LAST_WORDS)
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
        ):
            signal.signal(number, handler)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if self._ending is None:
            self.stop(number)
        else:
            self._grace = 0.0

    def _on_quit(self, number: int, frame: FrameType | None) -> None:
        self._grace = 0.0
        self.stop(number, "Cold")

    def _on_child(self, number: int, frame: FrameType | None) -> None:
        pass  # the wake-up descriptor has woken the loop

    def stop(self, number: int = signal.SIGTERM, how: str = "Warm") -> None:
        """End the worker: running tasks are finished within the shutdown timeout, the rest goes back.

        Safe in a signal handler and from any thread: the loop does what there is to do.
        """
        if self._ending is None:
            self._ending = time.monotonic()
        self.steward.draining = True
        signals.worker_shutting_down.emit(self.info.name, sig=signal.Signals(number).name, how=how, exitcode=0)
        self._ring()

    # The loop

    def _register(self) -> bool:
        return self.steward.register_patiently(lambda: self._ending is not None, self._wait)

    def _wait(self, seconds: float = LOOK) -> None:
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
        while len(self._processes) < self._wanted:
            self._spawn()

    def _spawn(self) -> None:
        self._next_slot += 1
        ours, theirs = socket.socketpair()
        slot = Slot()
        ward = Ward(Holder(self.steward.worker, self._next_slot, self.info.name), slot, ours)
        signals.worker_before_create_process.emit(self)
        with self.steward.gate:  # no other thread is anywhere while we fork, and no connection crosses
            self.steward.close_connections()
            connections.close_all()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # the gate is what it warns of
                pid = os.fork()
            if pid == 0:
                self._become_child(ward.holder, slot, ours, theirs)
        theirs.close()
        self._processes[pid] = Process(pid, ward, time.monotonic())
        self.steward.take_on(ward)

    def _become_child(self, holder: Holder, slot: Slot, ours: socket.socket, theirs: socket.socket) -> None:
        code = 1
        try:
            _die_with(self.info.pid)
            os.setpgid(0, 0)  # what it starts is killed with it; Ctrl-C in a terminal is the supervisor's
            signal.set_wakeup_fd(-1)
            ours.close()
            for process in self._processes.values():
                process.ward.channel.close()
            os.close(self._bell_in)
            os.close(self._bell_out)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            child = Child(holder, slot, theirs, self.options.child, supervisor=self.info.pid)
            signal.signal(signal.SIGTERM, lambda number, frame: child.stop())
            if self._ending is not None:  # the signal came before its handler
                child.stop()
            signals.worker_process_init.emit(self.info.name)
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
        fault_of_ours = code and lived < TOO_SOON and process.ward.slot.running() is None
        self._backoff = min(max(self._backoff * 2, 0.2), SLOWEST) if fault_of_ours else 0.0
        self._spawn_not_before = time.monotonic() + self._backoff
        self.steward.child_ended(process.ward, reason=reason, charge=not process.killed)

    def _check(self) -> None:
        """Kill children that are stuck; their tasks go back at once."""
        now = time.monotonic()
        for process in self._processes.values():
            stopped = process.stopped_since is not None and now - process.stopped_since > STUCK_AFTER
            slot = process.ward.slot
            silent = slot.silent_for > 3 * STUCK_AFTER and slot.running() is None
            if stopped or silent:
                logger.error("Child %d is %s: it is replaced", process.pid, "stopped" if stopped else "silent")
                _kill_group(process.pid)

    def _press(self) -> None:
        """Tell the children to stop, and end those for which the shutdown timeout does not wait; nobody is to blame."""
        late = self._ending is not None and time.monotonic() - self._ending >= self._grace
        for process in self._processes.values():
            if not process.told:
                process.told = True
                _kill(process.pid, signal.SIGTERM)
                with contextlib.suppress(OSError):
                    process.ward.channel.send(WAKE)  # an idle one need not sleep on
            if late:
                process.killed = True
                _kill_group(process.pid)

    # Called by the steward's thread

    def _lease_lost(self) -> None:
        self._anew = True
        self._ring()

    def _drained(self) -> None:
        if self._ending is None:
            self.stop()

    def _begin_anew(self) -> None:
        """The tasks are not ours any more: stop them, and go on as a new worker."""
        for process in self._processes.values():
            process.killed = True
            _kill_group(process.pid)
        while self._processes:
            self._wait(0.05)
            self._reap()
        self._anew = False
        if self._ending is None:
            with self.steward.gate:
                registered = self._register()
            if not registered:
                return


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _kill_group(pid: int) -> None:
    """Kill a child and what it has started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        _kill(pid, signal.SIGKILL)


def _die_with(supervisor: int) -> None:
    """Linux: be killed when the supervisor dies. Elsewhere the child's side thread notices."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != supervisor:  # it has died already
        os._exit(1)
