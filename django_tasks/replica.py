"""From which database rows are read: from that of the tasks, but for pages that only show, which a replica may serve
(``ADMIN_READ_DB``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from .conf import settings

#: Seconds for which who changed something is shown the database of the tasks: a replica may be so far behind it.
LAG: Final = 30

_alias: ContextVar[str | None] = ContextVar("django_tasks_reads_from", default=None)


def reads_from() -> str:
    """Return the alias of the database from which tasks, and all about them, are read here."""
    return _alias.get() or settings.DATABASE


@contextmanager
def reading_from(alias: str) -> Iterator[None]:
    """Read from another database within this block, in which nothing is changed."""
    token = _alias.set(alias)
    try:
        yield
    finally:
        _alias.reset(token)


def replica() -> str | None:
    """Return the alias of the replica from which pages read that only show; ``None`` if there is none."""
    alias = settings.ADMIN_READ_DB
    return None if alias == settings.DATABASE else alias
