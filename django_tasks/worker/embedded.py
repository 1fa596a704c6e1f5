"""``runworker --beat``: a beat in a thread of the worker, for development and for sites with one process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from django.db import connections

from ..beat import Service
from .health import Health

#: Seconds that the worker waits for the beat's last turn.
PATIENCE = 10.0


class EmbeddedService(Service):
    """A beat that works only while the worker does not fork, and leaves no connection open that a fork would share."""

    def __init__(self, worker: str, gate: threading.Lock) -> None:
        super().__init__(name=f"beat.{worker}"[:255])
        self._gate = gate

    def turn(self) -> float:
        with self._gate:
            try:
                return super().turn()
            finally:
                connections.close_all()

    def answer(self) -> None:
        with self._gate:
            super().answer()

    def close(self) -> None:
        with self._gate:
            super().close()


@contextlib.contextmanager
def embedded_beat(worker: str, gate: threading.Lock, health: Health) -> Iterator[None]:
    """Let a beat run beside what is done within, ``beat.`` and the worker's node name. ``gate`` is held by whoever
    forks; ``health`` tells if it is stuck."""
    service = EmbeddedService(worker, gate)
    health.watch(service, "beat")
    thread = threading.Thread(target=service.start, args=(True,), name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        service.stop()
        thread.join(PATIENCE)
