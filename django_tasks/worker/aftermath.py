"""Telling a task's handlers and receivers that it was ended from outside.

The supervisor runs no code of the site, and the process that ran the task is gone: so the child that takes its place
tells, once the outcome is in the ledger. If there is none, because the worker ends, nobody is told.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from .. import client
from ..backends.results import Record
from ..exceptions import OperationalError
from ..listeners import tell_ended

logger = logging.getLogger("django_tasks.worker")

#: Seconds to wait for the outcome in the ledger, and between looks.
PATIENCE, LOOK = 5.0, 0.02


class Ended(NamedTuple):
    """An attempt that was ended from outside; ``signal`` is the one that somebody asked for, if somebody did."""

    id: str
    attempt: int
    signal: int | None = None


def tell(ended: Sequence[Ended], worker: str) -> None:
    """Tell of attempts that were ended from outside, if that is how they ended."""
    for one in ended:
        record = _stored(one)
        if record is not None and record.attempt == one.attempt:
            try:
                tell_ended(record, worker, one.signal)
            except Exception:
                logger.exception("Nobody could be told of the end of task %s", one.id)


def _stored(running: Ended) -> Record | None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with contextlib.suppress(OperationalError):
            record = client.read(running.id)
            if record is not None and record.finished:
                return record
        time.sleep(LOOK)
    return None
