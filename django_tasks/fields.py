"""Column types that mean the same on every database and under every ``USE_TZ``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django.db import models
from django.utils import timezone


def utc_text(moment: datetime) -> str:
    """Write an aware moment as columns of SQLite and MySQL hold it: UTC, without saying so.

    SQLite compares texts, and its own clock writes milliseconds: the same moment must be the same text.
    """
    value = moment.astimezone(UTC).replace(tzinfo=None)
    return value.isoformat(sep=" ", timespec="microseconds" if value.microsecond % 1000 else "milliseconds")


class UTCDateTimeField(models.DateTimeField):  # type: ignore[type-arg]
    """A moment: always an aware ``datetime`` in Python, always UTC in the column, whatever ``USE_TZ`` says.

    The engine compares these columns with the database's own clock in SQL, so their meaning may not depend on a
    setting.
    """

    def get_prep_value(self, value: Any) -> Any:
        value = self.to_python(value)
        if isinstance(value, datetime) and timezone.is_naive(value):
            value = timezone.make_aware(value)
        return value

    def to_python(self, value: Any) -> Any:
        if isinstance(value, datetime):
            return value
        return super().to_python(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if not prepared:
            value = self.get_prep_value(value)
        if not isinstance(value, datetime):
            return value
        if connection.vendor == "postgresql":
            return value
        return utc_text(value)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> datetime | None:
        if value is None:
            return None
        if connection.vendor == "postgresql":
            if value.tzinfo is None:
                value = value.replace(tzinfo=ZoneInfo(connection.timezone_name))
            return value.astimezone(UTC)  # type: ignore[no-any-return]
        # Whatever zone the database's adapter attached, the column holds UTC.
        return value.replace(tzinfo=UTC)  # type: ignore[no-any-return]


class NameField(models.CharField):  # type: ignore[type-arg]
    """A name, and in capitals another one, on every database: MySQL's own order of letters takes both for the same."""

    def db_type(self, connection: Any) -> str | None:
        kind = super().db_type(connection)
        return f"{kind} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin" if connection.vendor == "mysql" else kind


class PartialIndex(models.Index):
    """An index of only the rows that fulfil ``where``; where the database has none such, of all rows, led by
    ``instead``, or none at all if that is ``None``.

    Django leaves a conditional index out on MySQL and MariaDB, with a warning; the queries behind most of ours need it
    there, too.
    """

    #: What makes, or removes, no index; MySQL and MariaDB alone are asked.
    _NOTHING: ClassVar = "DO 0"

    def __init__(
        self, *, fields: Sequence[str], name: str, where: models.Q, instead: Sequence[str] | None = ()
    ) -> None:
        super().__init__(fields=fields, name=name)
        self.where = where
        self.instead = None if instead is None else tuple(instead) or tuple(fields)

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "where": self.where, "instead": self.instead}

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        index = self._for(schema_editor)
        return index.create_sql(model, schema_editor, using, **kwargs) if index is not None else self._NOTHING

    def remove_sql(self, model: Any, schema_editor: Any, **kwargs: Any) -> Any:
        index = self._for(schema_editor)
        return index.remove_sql(model, schema_editor, **kwargs) if index is not None else self._NOTHING

    def _for(self, schema_editor: Any) -> models.Index | None:
        if schema_editor.connection.features.supports_partial_indexes:
            return models.Index(name=self.name, fields=self.fields, condition=self.where)
        return models.Index(name=self.name, fields=self.instead) if self.instead is not None else None


class PartialUnique(models.UniqueConstraint):
    """A unique constraint on only the rows that fulfil ``where``, which must leave no row out but those with NULL.

    Where the database has no partial indexes, a plain one means the same, since NULLs differ from each other: only it
    holds more. Django would leave it out there, with a warning.
    """

    def __init__(self, *, fields: Sequence[str], name: str, where: models.Q) -> None:
        super().__init__(fields=fields, name=name)
        self.where = where

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        path, args, kwargs = super().deconstruct()
        return path, args, {**kwargs, "where": self.where}

    def constraint_sql(self, model: Any, schema_editor: Any) -> Any:
        return self._for(schema_editor).constraint_sql(model, schema_editor)

    def create_sql(self, model: Any, schema_editor: Any) -> Any:
        return self._for(schema_editor).create_sql(model, schema_editor)

    def remove_sql(self, model: Any, schema_editor: Any) -> Any:
        return self._for(schema_editor).remove_sql(model, schema_editor)

    def _for(self, schema_editor: Any) -> models.UniqueConstraint:
        where = self.where if schema_editor.connection.features.supports_partial_indexes else None
        return models.UniqueConstraint(fields=self.fields, name=self.name, condition=where)
