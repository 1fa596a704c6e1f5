"""A child process as its worker's steward sees it."""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass, field

from ..backends.base import Queues
from ..backends.message import Claim, Holder
from .counts import Counts
from .puller import FREED, IDLE, LISTENS, WAKE
from .slots import Window
from .stacks import Line


@dataclass(slots=True, eq=False)
class Ward:
    """One child as the steward sees it."""

    holder: Holder
    slot: Window
    channel: socket.socket
    #: Where it is asked for its stacks; ``None`` if it is this process.
    line: Line | None = None
    #: What became of what it ran.
    counts: Counts = field(default_factory=Counts)
    #: Which of the worker's pools it belongs to.
    place: int = 0
    #: What it consumes now; ``None`` is nothing.
    queues: Queues | None = field(default_factory=Queues)
    #: It cancels coroutines that were revoked, when told to look.
    cancels: bool = False
    idle: bool = False
    #: It hears of work by itself while it is idle.
    listens: bool = False
    #: It takes nothing new, and ends when what it runs has ended.
    retires: bool = False
    #: Its process has ended; what it held is taken back soon.
    gone: bool = False
    #: What of it is shown as running, and what was taken from it unbegun.
    shown: set[Claim] = field(default_factory=set)
    relieved: frozenset[Claim] = frozenset()
    #: Reads as idle until its first word.
    since: float = field(default_factory=time.monotonic)

    @property
    def busy(self) -> bool:
        """Does it run anything? One with room for more may be idle and busy."""
        return not self.idle or self.slot.busy

    def wake(self) -> None:
        """Have it look for work, and at what it was told."""
        with contextlib.suppress(OSError):
            self.channel.send(WAKE)

    def close(self) -> None:
        """Hang up."""
        self.channel.close()
        if self.line is not None:
            self.line.close()

    def hear(self) -> bytes | None:
        """Return what it said since the last time: ``None`` for nothing, empty if its process has ended."""
        try:
            return self.channel.recv(4096)
        except BlockingIOError:
            return None
        except OSError:
            return b""


def says_idle(said: bytes) -> bool:
    """Is a child idle that said this last? One that runs something and has room for more may say afterwards that a
    place has become free."""
    return said.rstrip(FREED).endswith((IDLE, LISTENS))
