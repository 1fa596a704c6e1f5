"""How a worker hears from a cluster that something happened.

No command waits for keys of two slots, so each slot has a connection of its own, and one descriptor joins them.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Sequence
from typing import Any

from ..base import Queues
from ..database.wakers import Poller
from .leases import Leases
from .server import Elsewhere
from .wakers import PATIENCE, TokenWaker, Wait

#: Can the connections be joined here?
JOINS = hasattr(selectors.DefaultSelector, "fileno")
#: Most slots of queues that are waited for; where there are more, an idle worker asks again and again.
MOST = 64
#: Seconds after which a slot that is on its way to another server is asked for again.
AGAIN = 0.5
#: Seconds for which a worker that is busy goes on waiting: most are idle again by then.
BUSY_FOR = 0.5


class ClusterWaker(TokenWaker):
    """Waits for each slot.

    While a slot moves nobody can wait there: every look for where it is now is a hint, too.
    """

    def __init__(self, leases: Leases, worker: int, queues: Queues, *, idle: bool) -> None:
        super().__init__(leases, worker, queues, idle=idle)
        self._selector = selectors.DefaultSelector()
        self._poller = Poller()
        self._waits: dict[int, Wait] = {}
        #: When to look again where a slot is, by ``time.monotonic()``.
        self._later: dict[int, float] = {}
        self._busy_since = time.monotonic()
        #: The keys of queues that were sorted last, and these by their slots.
        self._sorted: tuple[list[str], dict[int, list[str]]] = [], {}
        try:
            self.resume()
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int | None:
        if self._asks_around():
            return None
        selector: Any = self._selector  # what joins nothing has no such method
        return int(selector.fileno())

    def interval(self, idle_for: float) -> float:
        if self._asks_around():
            return self._poller.interval(idle_for)
        return AGAIN if self._later else super().interval(idle_for)

    def listen(self, idle: bool) -> None:
        if not idle and self._idle:
            self._busy_since = time.monotonic()
        super().listen(idle)

    def woken(self) -> bool:
        return super().woken() or self._asks_around()

    def resume(self) -> None:
        slots = self._slots()
        self._later = {slot: moment for slot, moment in self._later.items() if slot in slots}
        for slot in self._waits.keys() - slots.keys():
            if self._idle and not self._waits[slot].asks:  # its queue is used no more
                self._drop(slot)
        for slot, keys in slots.items():
            wait = self._waits.get(slot) or self._open(slot, keys)
            if wait is not None and not wait.asks:
                wait.ask(keys, PATIENCE * len(slots))  # all together send no more than one would

    def close(self) -> None:
        for slot in list(self._waits):
            self._drop(slot)
        self._selector.close()

    def _open(self, slot: int, keys: Sequence[str]) -> Wait | None:
        if time.monotonic() < self._later.get(slot, 0.0):
            return None
        self._later.pop(slot, None)
        wait = self._waits[slot] = Wait(self._server, keys[0])
        self._selector.register(wait, selectors.EVENT_READ, slot)
        return wait

    def _drop(self, slot: int) -> None:
        wait = self._waits.pop(slot)
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(wait)
        wait.close()

    def _answered(self) -> Wait | None:
        for found, _ in self._selector.select(0):
            wait: Wait = self._waits[found.data]
            if wait.asks:
                return wait
            self._drop(found.data)  # Redis has ended a connection that was of no use
        return None

    def _hear(self, wait: Wait) -> bool:
        try:
            return super()._hear(wait)
        except Elsewhere:
            [slot] = [slot for slot, one in self._waits.items() if one is wait]
            self._drop(slot)
            self._later[slot] = time.monotonic() + AGAIN
            return self._idle

    def _end_outdated(self) -> None:
        if not self._idle and time.monotonic() - self._busy_since < BUSY_FOR:
            return
        slots = self._slots()
        for slot, wait in self._waits.items():
            if wait.asks and wait.keys != slots.get(slot):
                wait.end()

    def _asks_around(self) -> bool:
        """Are there too many queues to wait for?"""
        return self._idle and len(self._sort()) > MOST

    def _slots(self) -> dict[int, list[str]]:
        """Return what to wait for, by slots."""
        slots = {} if self._asks_around() else dict(self._sort())
        shared = self._server.slot(self._own)
        slots[shared] = [*slots.get(shared, ()), *self._shared_keys()]
        return slots

    def _sort(self) -> dict[int, list[str]]:
        """Return the keys of queues by their slots."""
        known, slots = self._sorted
        keys = self._queue_keys()
        if keys != known:
            slots = {}
            for key in keys:
                slots.setdefault(self._server.slot(key), []).append(key)
            self._sorted = keys, slots
        return slots
