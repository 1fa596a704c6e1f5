"""Logging of a worker: Django's ``LOGGING`` rules; where it leaves our loggers without a handler, a plain one is
added."""

from __future__ import annotations

import logging
import sys

from .. import signals
from ..conf import settings
from ..utils.log import LoggingProxy, TaskContextFilter

#: Our loggers: ``django_tasks.worker``, ``django_tasks.executor`` and, below ``django_tasks.task``, those of tasks.
ROOT = "django_tasks"

FORMAT = "[%(asctime)s: %(levelname)s/%(process)d] %(task_name)s[%(task_id)s]: %(message)s"
PLAIN_FORMAT = "[%(asctime)s: %(levelname)s/%(process)d] %(message)s"


class _Formatter(logging.Formatter):
    """Names the task in records of a task, and only there."""

    def __init__(self) -> None:
        super().__init__(FORMAT)
        self._plain = logging.Formatter(PLAIN_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        inside = getattr(record, "task_id", None) not in (None, "", "???") and record.name != "django_tasks.executor"
        return super().format(record) if inside else self._plain.format(record)


def configure(level: str, logfile: str | None) -> None:
    """Set the level of our loggers and make sure that what they say is seen.

    A receiver of ``setup_logging`` takes over completely, as in Celery. With ``WORKER_REDIRECT_STDOUTS``, what is
    printed from now on is logged, too.
    """
    _set_up(level, logfile)
    if settings.WORKER_REDIRECT_STDOUTS:
        # Handlers made so far keep the real streams.
        sys.stdout = sys.stderr = LoggingProxy(logging.getLogger(f"{ROOT}.redirected"))


def _set_up(level: str, logfile: str | None) -> None:
    if signals.setup_logging.receivers:
        signals.setup_logging.emit(None, loglevel=level, logfile=logfile, format=FORMAT, colorize=False)
        return
    logger = logging.getLogger(ROOT)
    logger.setLevel(level)
    if logfile is not None or not logger.hasHandlers():
        handler: logging.Handler = logging.FileHandler(logfile) if logfile else logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Formatter())
        handler.addFilter(TaskContextFilter())
        logger.addHandler(handler)
    signals.after_setup_logger.emit(None, logger=logger, loglevel=level, logfile=logfile, format=FORMAT, colorize=False)
    task_logger = logging.getLogger(f"{ROOT}.task")
    signals.after_setup_task_logger.emit(
        None, logger=task_logger, loglevel=level, logfile=logfile, format=FORMAT, colorize=False
    )
