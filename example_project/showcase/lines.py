"""The jobs of the showcase while they run: what was sent, how far it is, whether it ended well."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from django_tasks import AsyncResult
from showcase.errors import ShowcaseError
from showcase.processes import ManagedProcess
from showcase.progress import Display

#: Seconds between two looks at the results.
LOOK_EVERY = 0.1


@dataclass
class Line:
    """A job and the results of the tasks that it sent."""

    title: str
    results: list[AsyncResult]
    #: For a job of one task that tells its progress: how much there is to do.
    steps: int = 0

    @property
    def total(self) -> int:
        return self.steps or len(self.results)

    def done(self) -> int:
        """Return how much of the total is done."""
        if not self.steps:
            return sum(result.ready() for result in self.results)
        [result] = self.results
        if result.ready():
            return self.steps
        info = result.info
        return int(info.get("current", 0)) if isinstance(info, dict) else 0


def watch(lines: Sequence[Line], display: Display, *, worker: ManagedProcess, timeout: float) -> None:
    """Show the lines until all tasks have ended, well or not.

    Raises ``ShowcaseError`` when that takes more than ``timeout`` seconds or the worker ends.
    """
    deadline = time.monotonic() + timeout
    while True:
        for line in lines:
            display.show(line.title, line.done(), line.total)
        if all(result.ready() for line in lines for result in line.results):
            break
        if time.monotonic() > deadline:
            waiting = ", ".join(f"{line.title}: {line.done():,} of {line.total:,}" for line in lines)
            raise ShowcaseError(f"The tasks are not done after {timeout:g} s ({waiting}).")
        worker.check_running()
        time.sleep(LOOK_EVERY)
    for line in lines:
        display.show(line.title, line.total, line.total)


def check_success(lines: Sequence[Line]) -> None:
    """Raise ``ShowcaseError`` when a task has failed."""
    for line in lines:
        for result in line.results:
            try:
                result.get(timeout=5)
            except Exception as error:
                raise ShowcaseError(f"{line.title}: task {result.id} ended as {result.state}: {error!r}") from error
