"""A sender that goes on sending while things break, and remembers what it was told."""

from __future__ import annotations

import threading
import uuid
from types import TracebackType
from typing import Self

from django.db import connections

from django_tasks import AsyncResult
from django_tasks.exceptions import OperationalError
from tests.integration.jobs import work


class Load:
    """Sends tasks in a thread of its own, one every ``pause`` seconds, from ``with`` to its end.

    What ``apply_async()`` returned for is *accepted*; what it raised ``OperationalError`` for is *unknown*: it may have
    been stored or not. Any other exception ends the thread and fails the test.
    """

    def __init__(self, *, seconds: float, pause: float) -> None:
        self.accepted: list[AsyncResult[int]] = []
        self.unknown: list[AsyncResult[int]] = []
        self._seconds = seconds
        self._pause = pause
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._send, name="load")
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join()
        if self._error is not None:
            raise self._error from error

    def _send(self) -> None:
        try:
            while not self._ending.wait(self._pause):
                task_id = str(uuid.uuid4())
                try:
                    self.accepted.append(work.apply_async((self._seconds,), task_id=task_id))
                except OperationalError:
                    self.unknown.append(AsyncResult(task_id))
        except BaseException as error:
            self._error = error
        finally:
            connections.close_all()
