"""Shows how far the jobs are: bars in a terminal, where rich is installed; lines of text elsewhere."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from rich.progress import TaskID


class Display(Protocol):
    """Takes how far each line is, as often as one likes."""

    def show(self, title: str, done: int, total: int) -> None:
        """Note that ``done`` of ``total`` is done of the line called ``title``."""


def display() -> AbstractContextManager[Display]:
    """Return what suits the terminal."""
    if not sys.stdout.isatty():
        return TextDisplay()
    try:
        return BarDisplay()
    except ImportError:
        return TextDisplay()


class BarDisplay:
    """A bar for each line, drawn by rich. Raises ``ImportError`` when rich is not installed."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self._lines: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, title: str, done: int, total: int) -> None:
        if title not in self._lines:
            self._lines[title] = self._progress.add_task(title, total=total)
        self._progress.update(self._lines[title], completed=done)


class TextDisplay:
    """A line of text whenever another quarter is done."""

    QUARTERS = 4

    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def show(self, title: str, done: int, total: int) -> None:
        quarters = self.QUARTERS * done // total if total else self.QUARTERS
        if quarters > self._said.get(title, 0):
            self._said[title] = quarters
            print(f"   {title:<14} {done:>7,} of {total:,}", flush=True)
