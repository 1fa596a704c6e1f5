"""Brokers: what carries tasks from senders to workers. :mod:`~django_tasks.backends.base` holds the contract.

:func:`get_broker` and :func:`get_results` give this process's instances, made at first use as the settings say.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..addresses import is_database, parse
from ..conf import settings

if TYPE_CHECKING:
    from .database import DatabaseBroker
    from .redis.fitness import Unfit
    from .redis.moving import Mover
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
        with _lock:
            broker = _brokers.get(alias) or _brokers.setdefault(alias, _new_broker(alias))
    return broker


def _new_broker(alias: str) -> DatabaseBroker:
    if is_database(settings.BROKER_URL):
        from .database import DatabaseBroker

        return DatabaseBroker(alias)
    from .redis import RedisBroker

    return RedisBroker(alias)


def get_results(alias: str | None = None) -> DatabaseResults:
    """Return the store of results."""
    if is_database(settings.BROKER_URL):
        from .results import DatabaseResults

        return DatabaseResults(alias or settings.DATABASE)
    from .redis.results import RedisResults

    return RedisResults(alias or settings.DATABASE)


def unfit(url: str) -> list[Unfit]:
    """Return what is wrong with the server of a broker; ``[]`` if it is fit, or the database.

    Raises ``OperationalError`` if it cannot be reached.
    """
    if is_database(url):
        return []
    from .redis.fitness import problems
    from .redis.server import Server

    server = Server(parse(url), settings.BROKER_CONNECTION_TIMEOUT)
    try:
        return problems(server)
    finally:
        server.close()


def mover(source: str, target: str) -> Mover:
    """Return what moves tasks between two brokers. Raises ``ValueError`` for the same two."""
    from .redis.moving import Mover

    return Mover(source, target)


@contextmanager
def substituted(broker: DatabaseBroker) -> Iterator[None]:
    """Let all of this process use ``broker`` for its alias within this block, as tests do."""
    with _lock:
        before, _brokers[broker.alias] = _brokers.get(broker.alias), broker
    try:
        yield
    finally:
        with _lock:
            if _brokers.get(broker.alias) is broker:
                del _brokers[broker.alias]
                if before is not None:
                    _brokers[broker.alias] = before


def close_all() -> None:
    """Close this process's brokers; the next use makes new ones."""
    with _lock:
        while _brokers:
            _brokers.popitem()[1].close()
    from . import stores

    stores.close_all()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _of_parent.extend(_brokers.values())
    _brokers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
