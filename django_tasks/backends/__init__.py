"""Brokers: what carries tasks from senders to workers. :mod:`~django_tasks.backends.base` holds the contract.

:func:`get_broker` and :func:`get_results` give this process's instances, made at first use as the settings say.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from ..conf import settings

if TYPE_CHECKING:
    from .database import DatabaseBroker
    from .results import DatabaseResults

_lock = threading.Lock()
_brokers: dict[str, DatabaseBroker] = {}
#: Brokers of the parent process: closing their connections here would hang up on the parent, so they are kept as they
#: are.
_of_parent: list[DatabaseBroker] = []


def get_broker(alias: str | None = None) -> DatabaseBroker:
    """Return the broker of this process; ``alias`` is for tools that work on another database than the settings
    name."""
    alias = alias or settings.DATABASE
    broker = _brokers.get(alias)
    if broker is None:
        from .database import DatabaseBroker

        with _lock:
            broker = _brokers.get(alias) or _brokers.setdefault(alias, DatabaseBroker(alias))
    return broker


def get_results(alias: str | None = None) -> DatabaseResults:
    """Return the store of results."""
    from .results import DatabaseResults

    return DatabaseResults(alias or settings.DATABASE)


def close_all() -> None:
    """Close this process's brokers; the next use makes new ones."""
    with _lock:
        while _brokers:
            _brokers.popitem()[1].close()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _of_parent.extend(_brokers.values())
    _brokers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
