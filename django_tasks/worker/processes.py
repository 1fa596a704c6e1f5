"""A child process as its supervisor sees it, with what the supervisor does to it."""

from __future__ import annotations

import contextlib
import signal
import time
from dataclasses import dataclass, field

from ..backends.message import Claim, Outcome
from . import families
from .puller import WAKE
from .roster import Roster
from .wards import Ward

#: A child that is stopped (SIGSTOP) or silent outside a task for so many seconds is replaced.
STUCK_AFTER = 10.0


@dataclass(slots=True, eq=False)
class Process:
    """One child process."""

    pid: int
    ward: Ward
    born: float
    #: Which of the worker's pools it belongs to.
    place: int = 0
    stopped_since: float | None = None
    #: It was told to stop.
    told: bool = False
    #: The supervisor killed it: its running task is not to blame.
    killed: bool = False
    #: What became of attempts that were ended from outside.
    verdicts: list[Outcome] = field(default_factory=list)
    #: Attempts of which the outcome is decided, though they still run beside others.
    decided: set[Claim] = field(default_factory=set)
    #: Since when it has such; what else it runs is waited for, not for ever.
    decided_since: float = 0.0
    #: When its coroutines were told to end.
    cancelled_at: float | None = None

    @property
    def leaves(self) -> bool:
        """Does it take nothing new, so that another may begin in its place?"""
        return self.told or self.ward.retires

    @property
    def stuck(self) -> str:
        """What it has been for too long, ``stopped`` or ``silent``; empty if all is well."""
        if self.stopped_since is not None and time.monotonic() - self.stopped_since > STUCK_AFTER:
            return "stopped"
        slot = self.ward.slot
        # One task may hold its own interpreter for as long as it likes, but not that of others.
        if slot.silent_for > 3 * STUCK_AFTER and (isinstance(slot, Roster) or not slot.busy):
            return "silent"
        return ""

    def tell_to_stop(self) -> None:
        """Have it take nothing new, and end when it has done what it runs."""
        if not self.told:
            self.told = True
            families.send(self.pid, signal.SIGTERM)
            with contextlib.suppress(OSError):
                self.ward.channel.send(WAKE)  # an idle one need not sleep on

    def kill(self) -> None:
        """End it with all that it has started; what it runs is not to blame."""
        self.killed = True
        families.kill_family(self.pid)
