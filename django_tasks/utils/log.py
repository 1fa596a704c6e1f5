"""Loggers for tasks, and records that tell which task they come from.

As in Celery (https://docs.celeryq.dev/en/stable/userguide/tasks.html#logging), with ``django_tasks`` in place of
``celery``. Logging is set up by Django's ``LOGGING``; to have ``%(task_id)s`` and ``%(task_name)s`` in a format::

    "filters": {"task": {"()": "django_tasks.utils.log.TaskContextFilter"}}

and that filter on the handler.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterable
from typing import ClassVar, Final

from ..context import current_task_ids

__all__ = [
    "ColorFormatter",
    "LoggingProxy",
    "TaskContextFilter",
    "TaskFormatter",
    "add_task_to_handlers",
    "escape",
    "get_logger",
    "get_task_logger",
]

#: What a record says of its task when there is none.
NO_TASK: Final = "???"
#: Characters after which redirected output is logged although its line goes on.
LINE_LIMIT: Final = 8192
#: The parents of all our loggers, and not for use by others.
RESERVED_LOGGER_NAMES: Final = frozenset({"django_tasks", "django_tasks.task"})

base_logger: Final = logging.getLogger("django_tasks")
task_logger: Final = logging.getLogger("django_tasks.task")
worker_logger: Final = logging.getLogger("django_tasks.worker")

# Control characters, line ends beyond ASCII, what turns the direction of text, and lone surrogates.
_HARMFUL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: object) -> str:
    r"""Return ``text`` fit for one line of a log: what breaks it or steers a terminal becomes ``\n``, ``\x1b``."""
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def get_logger(name: str) -> logging.Logger:
    """Return a logger that passes its records on to ``django_tasks``, unless its name gives it a parent of its own."""
    logger = logging.getLogger(name)
    if logger.parent is not logging.root or logger is base_logger:
        return logger
    return _with_parent(logger, base_logger)


def get_task_logger(name: str) -> logging.Logger:
    """Return a logger for a module of tasks: its records go to the handlers of ``django_tasks.task``, and on up.

    Raises ``RuntimeError`` for the names of the parents themselves, as Celery does.
    """
    if name in RESERVED_LOGGER_NAMES:
        raise RuntimeError(f"Logger name {name!r} is reserved!")
    return _with_parent(logging.getLogger(name), task_logger)


def _with_parent(logger: logging.Logger, parent: logging.Logger) -> logging.Logger:
    above: logging.Logger | None = logger
    while above is not None:
        if above is parent:
            return logger
        above = above.parent
    logger.parent = parent
    return logger


def _mark(record: logging.LogRecord) -> None:
    """Set ``task_id`` and ``task_name``, unless the call to the logger gave them as ``extra``."""
    if "task_id" not in record.__dict__:
        ids = current_task_ids()
        task_id, task_name = (NO_TASK, NO_TASK) if ids is None else map(escape, ids)
        record.__dict__.update(task_id=task_id, task_name=record.__dict__.get("task_name", task_name))


class TaskContextFilter(logging.Filter):
    """Gives every record ``task_id`` and ``task_name``: of the task that runs, else ``???``. Lets all of them pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        _mark(record)
        return True


def add_task_to_handlers() -> None:
    """Put a :class:`TaskContextFilter` on every handler there is, so that every format may name the task.

    The worker does so at its start; doing it again is harmless. (A record factory could not do it: ``logging`` refuses
    an ``extra`` that a record has already.)
    """
    loggers = [
        logging.root,
        *(each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)),
    ]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        if not any(isinstance(present, TaskContextFilter) for present in handler.filters):
            handler.addFilter(TaskContextFilter())


class ColorFormatter(logging.Formatter):
    """Colours each line by its level, on terminals: ``use_color=None`` means if standard error is one."""

    #: Level name to the terminal's code of its colour.
    colors: ClassVar[dict[str, str]] = {
        "DEBUG": "\x1b[34m",
        "WARNING": "\x1b[33m",
        "ERROR": "\x1b[31m",
        "CRITICAL": "\x1b[35m",
    }

    def __init__(self, fmt: str | None = None, use_color: bool | None = None, datefmt: str | None = None) -> None:
        super().__init__(fmt, datefmt)
        self.use_color = sys.stderr.isatty() if use_color is None else use_color

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        color = self.colors.get(record.levelname) if self.use_color else None
        return f"{color}{text}\x1b[0m" if color else text


class TaskFormatter(ColorFormatter):
    """A formatter whose format may have ``%(task_id)s`` and ``%(task_name)s``, with or without a filter."""

    def format(self, record: logging.LogRecord) -> str:
        _mark(record)
        return super().format(record)


class LoggingProxy:
    """A text file that writes each line to a logger: the worker's standard output under ``WORKER_REDIRECT_STDOUTS``.

    May be written to from any thread; each has lines of its own. What the logger's handlers themselves write to it goes
    to the real standard error, or they would call each other for ever.
    """

    mode = "w"
    name = None
    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, logger: logging.Logger, loglevel: int = logging.WARNING) -> None:
        self.logger = logger
        self.loglevel = loglevel
        self.closed = False
        self._mine = threading.local()

    def write(self, text: str) -> int:
        """Log every line that is complete now, empty ones left out; return the length of ``text``."""
        if self.closed:
            return len(text)
        if getattr(self._mine, "logging", False):
            return sys.__stderr__.write(text) if sys.__stderr__ is not None else len(text)
        *lines, rest = (getattr(self._mine, "rest", "") + text).split("\n")
        if len(rest) > LINE_LIMIT:
            lines.append(rest)
            rest = ""
        self._mine.rest = rest
        self._log(lines)
        return len(text)

    def _log(self, lines: Iterable[str]) -> None:
        self._mine.logging = True
        try:
            for line in lines:
                if line.strip():
                    self.logger.log(self.loglevel, "%s", escape(line))
        finally:
            self._mine.logging = False

    def writelines(self, lines: Iterable[str]) -> None:
        """Log each of ``lines``."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Log this thread's last line although it is not complete."""
        if not (self.closed or getattr(self._mine, "logging", False)):
            rest, self._mine.rest = getattr(self._mine, "rest", ""), ""
            self._log([rest])

    def close(self) -> None:
        """Log this thread's last line, and drop whatever is written from now on."""
        self.flush()
        self.closed = True

    def isatty(self) -> bool:
        """Tell that no terminal is behind it."""
        return False

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True
