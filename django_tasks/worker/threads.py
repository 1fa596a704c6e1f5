"""The pool of threads: one process, many tasks that wait for something."""

from __future__ import annotations

import threading
import time
from collections import deque

from ..backends.message import Delivery
from .concurrent import Concurrent, close_connections


class ThreadChild(Concurrent):
    """Runs each task in one of ``concurrency`` threads, each with its own database connections."""

    def _open(self) -> None:
        self._queue: deque[Delivery] = deque()
        self._someone = threading.Condition()
        self._over = False
        self._threads: list[threading.Thread] = []
        self._waiting = 0

    @property
    def thread_count(self) -> int:
        """How many threads there may be."""
        return self.concurrency

    def _start(self, delivery: Delivery) -> None:
        with self._someone:
            self._queue.append(delivery)
            if len(self._queue) > self._waiting and len(self._threads) < self.thread_count:
                thread = threading.Thread(target=self._work, name=f"task-{len(self._threads) + 1}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._someone.notify()

    def _work(self) -> None:
        try:
            while (delivery := self._next()) is not None:
                self.run_in_thread(delivery)
        finally:
            close_connections()

    def _next(self) -> Delivery | None:
        with self._someone:
            self._waiting += 1
            try:
                while not self._queue and not self._over:
                    self._someone.wait()
            finally:
                self._waiting -= 1
            if not self._queue:
                return None
            return self._queue.popleft()

    def _any_waits(self) -> bool:
        return bool(self._queue)

    def _take_back(self, older_than: float) -> list[Delivery]:
        before = time.monotonic() - older_than
        taken = []
        with self._someone:
            while self._queue and self._queue[0].claimed <= before:
                taken.append(self._queue.popleft())
        return taken

    def _close(self) -> None:
        with self._someone:
            self._over = True
            self._someone.notify_all()
        for thread in self._threads:
            thread.join(timeout=1)
