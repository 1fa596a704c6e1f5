"""A worker's lease: while it is renewed in time, what the worker has claimed is nobody else's."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..backends.base import Broker, WorkerInfo
from ..conf import settings
from ..exceptions import OperationalError

logger = logging.getLogger("django_tasks.worker")


class Lease:
    """Begun, renewed, and lost to who rescues what a silent worker holds. Used by the steward alone."""

    def __init__(self, broker: Broker, on_lost: Callable[[], None]) -> None:
        #: The id of this start of the worker; 0 before the first lease.
        self.worker = 0
        #: Does the worker run nothing, so that it may be renewed half as often?
        self.rests = False
        self._at_once = False
        self._broker = broker
        self._on_lost = on_lost
        self._renewed = time.monotonic()
        #: When the database last said that it is ours.
        self._confirmed = float("-inf")

    @property
    def due_at(self) -> float:
        """When to renew it, by ``time.monotonic()``."""
        if self._at_once:
            return 0.0
        interval = settings.WORKER_HEARTBEAT_INTERVAL
        return self._renewed + (min(2 * interval, settings.WORKER_LEASE / 2) if self.rests else interval)

    def hurry(self) -> None:
        """It is to be renewed at once."""
        self._at_once = True

    @property
    def is_confirmed(self) -> bool:
        """Is it ours by what the database said last?"""
        return time.monotonic() - self._confirmed <= settings.WORKER_LEASE

    def begin(self, info: WorkerInfo) -> None:
        """Begin one. Raises :class:`~django_tasks.exceptions.OperationalError`."""
        self.worker = self._broker.register(info)
        self._keep()
        self._confirmed = self._renewed

    def renew(self, processed: int, *, draining: bool) -> bool:
        """Renew it; ``False`` if it was lost. Raises :class:`~django_tasks.exceptions.OperationalError`."""
        if self._broker.renew(self.worker, processed=processed, draining=draining):
            self._keep()
            self._confirmed = self._renewed
            return True
        logger.error("The lease ran out and the tasks were taken from this worker: it stops them and begins anew")
        self._lose()
        return False

    def check(self) -> None:
        """Give it up if it could not be renewed for too long."""
        if time.monotonic() - self._renewed > settings.WORKER_LEASE:
            logger.error("The lease could not be renewed for %.0f s: the tasks are stopped", settings.WORKER_LEASE)
            self._lose()

    def _lose(self) -> None:
        self._confirmed = float("-inf")
        self._keep()
        self._on_lost()

    def _keep(self) -> None:
        self._renewed = time.monotonic()
        self._at_once = False


def patiently(begin: Callable[[], None], ended: Callable[[], bool], wait: Callable[[float], object]) -> bool:
    """Call ``begin`` until database and broker can be reached; False if ``ended`` came first."""
    delay = 0.5
    while not ended():
        try:
            begin()
            return True
        except OperationalError as error:
            logger.error("%s. %s; trying again in %.1f s (Ctrl-C ends).", error, error.cure, delay)
            wait(delay)
            delay = min(delay * 2, 10.0)
    return False
