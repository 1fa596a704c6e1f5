"""A column for a time zone."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any
from zoneinfo import available_timezones

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models

from ..schedules.zones import validate_zone

__all__ = ["ZoneField", "default_zone_name", "zone_name"]


def default_zone_name() -> str:
    """Return Django's ``TIME_ZONE``, by which a crontab runs that names no zone."""
    return settings.TIME_ZONE or "UTC"


def zone_name(zone: tzinfo | str) -> str:
    """Return the IANA name of a zone. Raises ``ValueError`` for one that has none, or that nobody knows."""
    found = validate_zone(zone, name="timezone")
    name = getattr(found, "key", None) or getattr(found, "zone", None)  # pytz says zone
    file = getattr(found, "_filename", None)
    if name is None and isinstance(file, str):  # dateutil knows only the file: its name is the end of the path
        parts = file.split("/")
        name = next((one for i in range(len(parts)) if (one := "/".join(parts[i:])) in available_timezones()), None)
    if name is None and found is not None and found.tzname(None) == "UTC":  # datetime.UTC, dateutil's
        name = "UTC"
    if not isinstance(name, str):
        raise ValueError(f"timezone is {zone!r}, which has no name to store; allowed: a zone such as 'Europe/Berlin'")
    return name


class ZoneField(models.CharField):  # type: ignore[type-arg]
    """A time zone: a ``ZoneInfo`` in Python, its IANA name in the column. Either may be assigned.

    A name in the table that nobody knows stays text: it is an error of its schedule then, not of the whole query.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"max_length": 63, **options})

    def to_python(self, value: Any) -> Any:
        if value is None or value == "" or (isinstance(value, tzinfo) and hasattr(value, "key")):
            return value
        try:
            return validate_zone(zone_name(value))
        except (TypeError, ValueError) as error:
            raise ValidationError(str(error), code="invalid") from error

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        try:
            return validate_zone(value)
        except ValueError:
            return value

    def get_prep_value(self, value: Any) -> Any:
        return value if value is None or value == "" else zone_name(value)

    def value_to_string(self, obj: Any) -> str:
        return str(self.value_from_object(obj))
