"""What a worker tells of its health: a file that it touches, two pages for probes, and messages to systemd.

*Alive* is a worker whose loops turn, however busy its children are and whether the database answers or not: to restart
it would mend nothing. *Ready* is one that can take tasks now.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .probe import Probe

#: Seconds after which a loop that did not turn is stalled. A driver may wait for a silent database for less.
STALLED_AFTER = 60.0
#: Seconds between two touches of the file.
TOUCH_EVERY = 1.0
#: Seconds for which systemd is asked to wait on while the database cannot be reached.
MORE_TIME = 30


class Loop(Protocol):
    """A loop that must turn, in a thread of its own; moments by ``time.monotonic()``."""

    #: When it turned last.
    turned: float
    draining: bool

    @property
    def trouble(self) -> str:
        """Why the database cannot be worked with; empty if it can."""


class Health:
    """A worker's health, and how it is told. :meth:`tell` is called by the loop that stands for all."""

    def __init__(
        self, *, file: str | None = None, probe: tuple[str, int] | None = None, notifier: Notifier | None = None
    ) -> None:
        self._file = Path(file) if file else None
        self._touched = 0.0
        self._notifier = notifier or Notifier.of_environment()
        #: By name; the first one stands for the database, too.
        self._loops: dict[str, Loop] = {}
        #: When the main loop turned last; ``None`` while nobody says so.
        self._main: float | None = None
        self._ready = False
        self._ending = False
        self._probe: Probe | None = None
        if self._file is not None:
            self._touch()
        if probe is not None:
            from .probe import Probe  # what a web server needs is not loaded by a worker that is none

            self._probe = Probe(*probe, self.pages())

    def watch(self, loop: Loop, name: str = "steward") -> None:
        """Judge by this loop, too."""
        self._loops[name] = loop

    @property
    def every(self) -> float:
        """Seconds after which :meth:`tell` must be called again, at most."""
        return min(TOUCH_EVERY if self._file is not None else 5.0, self._notifier.every)

    def main_turned(self) -> None:
        """The main loop turned."""
        self._main = time.monotonic()

    def started(self) -> None:
        """The worker takes tasks from now on."""
        self._ready = True
        self._notifier.send("READY=1")

    def ending(self) -> None:
        """The worker takes nothing new."""
        self._ending = True
        self._notifier.send("STOPPING=1")

    def tell(self) -> None:
        """Say that the worker lives, if it does, to whoever wants to hear it."""
        if self.stalled():
            return
        if self._file is not None and time.monotonic() - self._touched >= TOUCH_EVERY:
            self._touch()
        if self._ready:
            self._notifier.beat()
        elif not self._ending:
            self._notifier.beat(f"EXTEND_TIMEOUT_USEC={MORE_TIME * 1_000_000}")

    def stalled(self) -> str:
        """Return which loop does not turn; empty if all do."""
        now = time.monotonic()
        loops = {name: loop.turned for name, loop in self._loops.items()} if self._ready else {}
        for name, turned in {"main loop": self._main or now, **loops}.items():
            if now - turned > STALLED_AFTER:
                return f"stalled: the {name} has not turned for {now - turned:.0f} s"
        return ""

    def unready(self) -> str:
        """Return why the worker takes no tasks; empty if it does."""
        if stalled := self.stalled():
            return stalled
        loop = next(iter(self._loops.values()), None)
        if self._ending or (loop is not None and loop.draining):
            return "ending"
        if not self._ready or loop is None:
            return "starting: the database was not reached yet"
        return loop.trouble

    def pages(self) -> dict[str, Callable[[], str]]:
        """Return the pages of the probe: by path what is wrong, or nothing."""
        return {"/livez": self.stalled, "/readyz": self.unready}

    def leave(self) -> None:
        """In a child after the fork: its parent's health is not its own."""
        if self._probe is not None:
            self._probe.leave()

    def close(self) -> None:
        """The worker has ended."""
        if self._probe is not None:
            self._probe.close()
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)

    def _touch(self) -> None:
        assert self._file is not None  # noqa: S101 - both callers have looked
        self._touched = time.monotonic()
        try:
            os.utime(self._file)
        except FileNotFoundError:
            self._file.write_text(f"{os.getpid()}\n")


class Notifier:
    """Messages to systemd. https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html"""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = watchdog
        self._said = 0.0

    @classmethod
    def of_environment(cls) -> Notifier:
        """Return the one for this process, and hide it from those that it starts."""
        address, interval = os.environ.pop("NOTIFY_SOCKET", ""), os.environ.pop("WATCHDOG_USEC", "")
        meant = os.environ.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        return cls(address, int(interval) / 1_000_000 if interval.isdecimal() and meant else 0.0)

    @property
    def every(self) -> float:
        """Seconds between two beats."""
        return self._watchdog / 2 if self._address and self._watchdog else 5.0

    def send(self, message: str) -> None:
        """Send a message, if anybody wants it."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(message.encode(), self._address)

    def beat(self, message: str = "WATCHDOG=1") -> None:
        """Send a message if it is time for one."""
        now = time.monotonic()
        if message == "WATCHDOG=1" and not self._watchdog:
            return
        # A turn earlier than it must be: the next one may come late.
        if now - self._said >= self.every * 0.9:
            self._said = now
            self.send(message)
