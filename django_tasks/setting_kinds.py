"""What values a setting may have: each kind says in words what is allowed, and reads what was given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from string import Formatter
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from django.conf import settings as django_settings

from . import addresses, states
from .retry import validate_publish_policy

T = TypeVar("T")

#: What a queue may be called.
QUEUE_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: Every priority there is; higher runs first.
PRIORITIES: Final = range(-100, 101)

_SERIALIZER_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
DOTTED_NAME: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
#: What the overview of the admin is made of.
PANELS: Final = ("problems", "cards", "charts", "queues", "failures", "workers", "slowest", "busiest", "periodic")
#: What an address in ``ADMIN_LINKS`` may hold.
LINK_NAMES: Final = ("id", "name", "queue", "root_id", "trace_id", "worker")
#: What stores are called elsewhere.
_STORES_OF_CELERY: Final = {"database://": "database", "django-db": "database", "django-cache": "cache://default"}


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What values a setting may have."""

    #: In words: ``a whole number from 1``.
    allowed: str
    #: Takes what was given and returns what the program sees, or raises ``ValueError``, with a reason where one helps.
    parse: Callable[[Any], T]
    #: How a refused value is shown; it must not give secrets away.
    shown: Callable[[Any], str] = repr


def _refuse_unless(condition: object, reason: str = "") -> None:
    if not condition:
        raise ValueError(reason)


def boolean(value: Any) -> bool:
    _refuse_unless(isinstance(value, bool))
    return bool(value)


def true(value: Any) -> bool:
    _refuse_unless(value is True)
    return True


def integer(lowest: int, highest: int | None = None) -> Kind[int]:
    def parse(value: Any) -> int:
        _refuse_unless(isinstance(value, int) and not isinstance(value, bool))
        _refuse_unless(value >= lowest and (highest is None or value <= highest))
        return int(value)

    return Kind(f"a whole number from {lowest}" + ("" if highest is None else f" to {highest}"), parse)


def seconds(lowest: float) -> Kind[float]:
    def parse(value: Any) -> float:
        if isinstance(value, timedelta):
            value = value.total_seconds()
        _refuse_unless(isinstance(value, int | float) and not isinstance(value, bool))
        _refuse_unless(lowest <= value < float("inf"))
        return float(value)

    return Kind(f"a number of seconds from {lowest:g}, or a timedelta", parse)


def time_limit() -> Kind[float]:
    def parse(value: Any) -> float:
        limit = seconds(0).parse(value)
        _refuse_unless(limit)
        return limit

    return Kind("a number of seconds above 0, or a timedelta", parse)


def optional(kind: Kind[T], meaning: str = "") -> Kind[T | None]:
    none = f"None ({meaning})" if meaning else "None"
    return Kind(f"{none} or {kind.allowed}", lambda value: None if value is None else kind.parse(value), kind.shown)


def matching(pattern: re.Pattern[str], allowed: str) -> Kind[str]:
    def parse(value: Any) -> str:
        _refuse_unless(isinstance(value, str) and pattern.fullmatch(value))
        return str(value)

    return Kind(allowed, parse)


def one_of(*values: str) -> Kind[str]:
    def parse(value: Any) -> str:
        _refuse_unless(isinstance(value, str) and value in values)
        return str(value)

    return Kind(" or ".join(map(repr, values)), parse)


def several(pattern: re.Pattern[str], allowed: str, *, at_least: int = 0) -> Kind[tuple[str, ...]]:
    def parse(value: Any) -> tuple[str, ...]:
        _refuse_unless(isinstance(value, list | tuple | set | frozenset))
        _refuse_unless(all(isinstance(item, str) and pattern.fullmatch(item) for item in value))
        _refuse_unless(len(value) >= at_least)
        return tuple(value)

    return Kind(allowed, parse)


def database(value: Any) -> str:
    _refuse_unless(isinstance(value, str))
    known = {"default", *django_settings.DATABASES}
    _refuse_unless(value in known, f"DATABASES has {', '.join(sorted(known))}.")
    return str(value)


def token(value: Any) -> str | None:
    _refuse_unless(value is None or (isinstance(value, str) and len(value) >= 16))
    return None if value is None else str(value)


def broker_url(value: Any) -> str:
    _refuse_unless(isinstance(value, str))
    if not addresses.is_database(value):
        addresses.parse(value)
    return str(value)


def result_backend(value: Any) -> str:
    _refuse_unless(isinstance(value, str))
    value = _STORES_OF_CELERY.get(value, value)
    scheme = addresses.scheme_of(value)
    if scheme == "cache":
        alias = value.partition("://")[2]
        known = ", ".join(sorted(django_settings.CACHES))
        _refuse_unless(alias in django_settings.CACHES, f"CACHES has {known}; cache:// is followed by one of them.")
    elif scheme:
        addresses.parse(value)
    else:
        _refuse_unless(value == "database" or ("." in value and DOTTED_NAME.fullmatch(value)))
    return str(value)


def shown_url(url: Any) -> str:
    """Return what is no secret in a URL."""
    scheme = addresses.scheme_of(url).partition("+")[0]
    if scheme:
        return f"'{scheme}://…'"
    return repr(url) if not isinstance(url, str) or not {"@", ":"} & set(url) else "'…'"


def routes(value: Any) -> Any:
    # Their shape only; django_tasks.routing reads them, and says what is wrong inside.
    _refuse_unless(value is None or isinstance(value, Mapping | list | tuple | str) or callable(value))
    return value


def flag_or_path(value: Any) -> bool | str:
    _refuse_unless(isinstance(value, bool) or (isinstance(value, str) and DOTTED_NAME.fullmatch(value)))
    return value  # type: ignore[no-any-return]


def links(value: Any) -> Mapping[str, str]:
    _refuse_unless(isinstance(value, Mapping))
    for label, address in value.items():
        _refuse_unless(isinstance(label, str) and label and isinstance(address, str))
        _refuse_unless(address.startswith(("https://", "http://", "/")), f"{label} leads to {address!r}.")
        try:
            names = [name for _, name, form, way in Formatter().parse(address) if name is not None or form or way]
        except ValueError as exc:
            raise ValueError(f"{label}: {exc}.") from exc
        unknown = [name for name in names if name not in LINK_NAMES]
        _refuse_unless(not unknown, f"{label} has {{{unknown[0]}}}." if unknown else "")
    return MappingProxyType(dict(value))


def release(value: Any) -> str:
    _refuse_unless(isinstance(value, str) and 0 < len(value) <= 40 and value.isprintable() and value.strip() == value)
    return str(value)


def schedule(value: Any) -> Mapping[str, Any]:
    # Its shape only; django_tasks.periodic.entries reads it, and says what is wrong inside.
    _refuse_unless(isinstance(value, Mapping))
    return MappingProxyType(dict(value))


def publish_policy(value: Any) -> Mapping[str, Any]:
    try:
        return MappingProxyType(validate_publish_policy(value))
    except TypeError as exc:
        raise ValueError(f"{exc}.") from exc


def result_expires(value: Any) -> Mapping[str, timedelta | None]:
    if not isinstance(value, Mapping):
        return MappingProxyType(dict.fromkeys(sorted(states.FINISHED), _lifetime(value)))
    given = {str(state).upper(): _lifetime(each) for state, each in value.items()}
    unknown = given.keys() - states.FINISHED - {"DEFAULT"}
    _refuse_unless(not unknown, f"{', '.join(sorted(unknown))} is no final state.")
    rest = {"DEFAULT": given["DEFAULT"]} if "DEFAULT" in given else _KEPT
    return MappingProxyType(
        {
            state: given[state] if state in given else rest.get(state, rest["DEFAULT"])
            for state in sorted(states.FINISHED)
        }
    )


def _lifetime(value: Any) -> timedelta | None:
    if value is None:
        return None
    if not isinstance(value, timedelta):
        _refuse_unless(isinstance(value, int | float) and not isinstance(value, bool))
        try:
            value = timedelta(seconds=value)
        except OverflowError as exc:
            raise ValueError from exc
    _refuse_unless(value >= timedelta(0))
    return value or None  # 0 means for ever, as in Celery


_KEPT: Final[Mapping[str, timedelta | None]] = {"FAILURE": timedelta(days=30), "DEFAULT": timedelta(days=7)}

BOOLEAN: Final = Kind("True or False", boolean)
QUEUE: Final = matching(QUEUE_NAME, "1 to 64 of the characters A-Z a-z 0-9 _ . : -")
SERIALIZER: Final = matching(_SERIALIZER_NAME, "the name of a registered serializer, such as 'json'")
COMPRESSION: Final = optional(matching(_SERIALIZER_NAME, "the name of a registered compression, such as 'gzip'"))
