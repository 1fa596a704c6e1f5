"""What tasks say to the log while they run, kept beside them (``TASK_LOG_LEVEL``, ``log_level=``).

A worker that is to keep anything has one handler on its loggers; each attempt has a journal of bounded size, and what
the journals hold is stored with the outcomes, or every few seconds while a task runs: never line by line.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from .conf import settings
from .context import current_request
from .redaction import Secrets, secrets_of
from .registry import tasks
from .serialization import storable

#: Characters of one record that are kept.
RECORD_LIMIT: Final = 8_192
#: Seconds between two writings of what a running task has said.
WRITE_EVERY: Final = 2.0
#: The logger of what becomes of tasks, which is told beside their logs.
_OURS: Final = "django_tasks.executor"


class Line(NamedTuple):
    """One record; or, with level 0, how many are missing in its place."""

    #: Seconds since 1970 by this machine's clock.
    at: float
    #: As in :mod:`logging`: 20 is INFO.
    level: int
    logger: str
    text: str


class Part(NamedTuple):
    """Some lines of one attempt, to be stored."""

    task_id: str
    attempt: int
    lines: list[Line]

    @property
    def text(self) -> str:
        """The lines as JSON."""
        return json.dumps(self.lines, ensure_ascii=False)


class Taken(NamedTuple):
    """What is to be stored, and the ids of tasks that leave no line in the ledger, and so no log."""

    parts: list[Part]
    gone: list[str]


class Journal:
    """The records of one attempt. Of too many, the first and the last ones stay."""

    def __init__(self, task_id: str, attempt: int, level: int, hidden: Secrets | None) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.level = level
        self._hidden = hidden
        self._lock = threading.Lock()
        self._room = self._tail_room = settings.TASK_LOG_LIMIT // 2
        self._first: list[Line] = []
        self._last: deque[Line] = deque()
        self._left_out = 0
        self._is_closed = False
        #: Has something of it been stored?
        self.is_stored = False

    def add(self, record: logging.LogRecord) -> None:
        """Take a record in. Safe in any thread."""
        line = Line(round(record.created, 3), record.levelno, storable(record.name)[:255], self._text(record))
        with self._lock:
            if self._is_closed:
                return
            if not self._last and len(line.text) <= self._room:
                self._room -= len(line.text)
                self._first.append(line)
                return
            self._last.append(line)
            self._tail_room -= len(line.text)
            while self._tail_room < 0 and len(self._last) > 1:
                self._tail_room += len(self._last.popleft().text)
                self._left_out += 1

    def take(self) -> list[Line]:
        """Return what was not taken yet; the last ones only once it is closed."""
        with self._lock:
            taken, self._first = self._first, []
            if self._is_closed:
                if self._left_out:
                    taken.append(Line(self._last[0].at, 0, "", str(self._left_out)))
                    self._left_out = 0
                taken += self._last
                self._last.clear()
            return taken

    def close(self) -> None:
        """The attempt has ended."""
        with self._lock:
            self._is_closed = True

    def _text(self, record: logging.LogRecord) -> str:
        try:
            text = record.getMessage()
        except Exception as error:
            text = f"{record.msg!r} % {type(error).__name__}"
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        elif record.exc_text:
            text += f"\n{record.exc_text}"
        text = storable(text if self._hidden is None else self._hidden.scrub(text))
        return text if len(text) <= RECORD_LIMIT else f"{text[: RECORD_LIMIT - 1]}…"


class Journals:
    """The journals of this process."""

    def __init__(self) -> None:
        #: Is anything kept here? Set once, when a worker starts.
        self.active = False
        self._lock = threading.Lock()
        self._open: set[Journal] = set()
        self._closed: list[Journal] = []
        self._gone: list[str] = []
        #: What could not be stored.
        self._unstored: list[Part] = []
        self._written = 0.0

    def begin(self, task: Any, task_id: str, attempt: int, args: Sequence[Any], kwargs: Any) -> Journal | None:
        """Return the journal of an attempt that begins; ``None`` if nothing of it is kept."""
        level = level_of(task)
        if level is None:
            return None
        journal = Journal(task_id, attempt, level, secrets_of(task, args, kwargs))
        with self._lock:
            self._open.add(journal)
        return journal

    def end(self, journal: Journal, *, kept: bool) -> None:
        """An attempt has ended; ``kept``: is there a line for it in the to-do list or in the ledger?"""
        journal.close()
        with self._lock:
            self._open.discard(journal)
            if kept:
                self._closed.append(journal)
            elif journal.is_stored or journal.attempt > 1:
                self._gone.append(journal.task_id)

    def is_due(self) -> bool:
        """Is it time to store what running tasks have said?"""
        return bool(self._open or self._unstored) and time.monotonic() - self._written >= WRITE_EVERY

    def take(self) -> Taken:
        """Return what is to be stored now: all of the attempts that have ended, and from time to time of the others."""
        with self._lock:
            ready, self._closed = self._closed, []
            gone, self._gone = self._gone, []
            if self.is_due():
                self._written = time.monotonic()
                ready += self._open
            parts, self._unstored = self._unstored, []
        for journal in ready:
            if lines := journal.take():
                journal.is_stored = True
                parts.append(Part(journal.task_id, journal.attempt, lines))
        return Taken(parts, gone)

    def put_back(self, taken: Taken) -> None:
        """It could not be stored now."""
        with self._lock:
            self._unstored = [*taken.parts, *self._unstored]
            self._gone = [*taken.gone, *self._gone]


class JournalHandler(logging.Handler):
    """Gives what a task says to its journal."""

    def emit(self, record: logging.LogRecord) -> None:
        request = current_request.get()
        while request is not None and request._journal is None:  # a task that is called by another as a function
            request = request._outer
        if request is not None and record.levelno >= request._journal.level and record.name != _OURS:
            request._journal.add(record)


#: Those of this process.
journals: Final = Journals()


def level_of(task: Any) -> int | None:
    """Return from which level on the records of a task are kept; ``None``: none are."""
    name = settings.TASK_LOG_LEVEL if task.log_level is None else task.log_level
    return logging.getLevelNamesMapping()[name] if name else None


def start() -> None:
    """Keep from now on what tasks say, if the settings or a registered task ask for it."""
    if all(level_of(task) is None for task in tasks.values()):
        return
    journals.active = True
    loggers = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    # What a record passes on its way up are exactly one of these: where its way ends.
    for each in (logging.root, *(one for one in loggers if not one.propagate)):
        if not any(isinstance(handler, JournalHandler) for handler in each.handlers):
            each.addHandler(JournalHandler())
