"""Attempts that are ended from outside: their hard time limit has passed, or somebody has them terminated.

What runs such an attempt cannot be trusted to say what became of it, so the supervisor does. In the pool ``prefork``
its process is killed; where it has neighbours, it is decided now, and its process ends once they are done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from signal import Signals

from .. import states
from ..backends.message import Claim, Outcome
from ..error_reports import failure
from ..exceptions import TaskRevokedError, TimeLimitExceeded
from . import families, processes
from .aftermath import Ended
from .processes import Process
from .roster import Roster
from .slots import Running
from .wards import Ward

logger = logging.getLogger("django_tasks.worker")


class Verdicts:
    """Used by the supervisor's main thread alone."""

    def __init__(self, store: Callable[[Ward, Outcome], object], patience: float) -> None:
        self._store = store
        #: For so many seconds the neighbours of a decided attempt are waited for.
        self._patience = patience
        #: What the next child tells of.
        self._untold: list[Ended] = []

    def take_untold(self) -> list[Ended]:
        """Return what was ended since the last call, for a new child to tell of."""
        untold, self._untold = self._untold, []
        return untold

    def look(self, process: Process) -> None:
        """End what has run out of time, and a process with decided attempts that runs nothing else any more."""
        now = time.monotonic()
        for running in process.ward.slot.runs():
            if running.limit and now >= running.deadline and running[:2] not in process.decided:
                self._end_overdue(process, running)
        if process.decided:
            self._end_decided(process)

    def terminate(self, among: Iterable[Process], claim: Claim, number: Signals) -> None:
        """End this attempt as REVOKED, if one of these processes still runs it; ``number`` is what was asked for."""
        for process in among:
            for running in process.ward.slot.runs():
                if running[:2] != claim or claim in process.decided or process.killed:
                    continue
                verdict = failure(running, TaskRevokedError("terminated"), state=states.REVOKED)
                if self._end(process, running, verdict, number):
                    logger.warning(
                        "Task %s is terminated: %s. Child %d is replaced.", running.id, number.name, process.pid
                    )

    def _end_overdue(self, process: Process, running: Running) -> None:
        ran = time.monotonic() - running.since
        verdict = failure(running, TimeLimitExceeded(running.limit), runtime=ran)
        if self._end(process, running, verdict):
            logger.error(
                "Task %s is ended: its time limit of %.3g s has passed. Child %d is replaced.",
                running.id, running.limit, process.pid,
            )  # fmt: skip

    def _end(self, process: Process, running: Running, verdict: Outcome, number: int | None = None) -> bool:
        """End an attempt with this outcome, if its child still runs exactly that."""
        if isinstance(process.ward.slot, Roster):
            # It cannot be ended without its neighbours. So it is decided now; what it still does counts for nothing.
            self._store(process.ward, verdict)
            process.decided.add(running[:2])
            process.decided_since = process.decided_since or time.monotonic()
            process.tell_to_stop()
        elif _kill_exactly(process, running):
            process.verdicts.append(verdict)
        else:
            return False
        self._untold.append(Ended(running.id, running.attempt, number))
        return True

    def _end_decided(self, process: Process) -> None:
        """Kill it once nothing else runs there, or has had its time."""
        slot = process.ward.slot
        others = set(slot.begun()) - process.decided  # until their outcomes are stored
        late = time.monotonic() - process.decided_since > self._patience
        if not others or late or slot.silent_for > processes.STUCK_AFTER / 2:
            process.kill()


def _kill_exactly(process: Process, running: Running) -> bool:
    """Kill a child if it still runs exactly this attempt; False, and nothing is done, if it does not."""
    families.stop(process.pid)  # or it could begin the next task between the look and the kill
    if running[:2] not in [run[:2] for run in process.ward.slot.runs()]:
        families.go_on(process.pid)
        return False
    process.kill()
    return True
