"""Has anybody written to the database? SQLite tells in microseconds; a look at ten thousand rows takes much longer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from ..conf import settings


class Footprints:
    """What this process's connection knows of commits, since it was asked last."""

    def __init__(self) -> None:
        self._connection: Any = None
        #: A number that every commit of another connection changes, and how many rows this one has changed.
        #: https://www.sqlite.org/pragma.html#pragma_data_version
        self._seen: tuple[int, int] | None = None

    @contextmanager
    def followed(self) -> Iterator[bool]:
        """Give whether anything may have been written since the last time that what is within came to its end.

        Always true where the database cannot tell.
        """
        wrapper = connections[settings.DATABASE]
        if wrapper.vendor != "sqlite":
            yield True
            return
        seen = self._look()
        connection = wrapper.connection  # numbers of different ones have nothing to do with each other
        yield connection is not self._connection or seen != self._seen
        self._connection, self._seen = connection, seen

    @contextmanager
    def of_no_account(self) -> Iterator[None]:
        """What this thread writes within is not to be told of."""
        wrapper = connections[settings.DATABASE]
        if wrapper.vendor != "sqlite" or self._seen is None or wrapper.connection is not self._connection:
            yield
            return
        before = self._look()[1]
        yield
        if wrapper.connection is self._connection:
            version, own = self._seen
            self._seen = version, own + self._look()[1] - before

    def _look(self) -> tuple[int, int]:
        with connections[settings.DATABASE].cursor() as cursor:
            cursor.execute("PRAGMA data_version")
            [version] = cursor.fetchone()
            cursor.execute("SELECT total_changes()")
            [own] = cursor.fetchone()
            return version, own
