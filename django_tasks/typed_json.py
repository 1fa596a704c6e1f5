"""JSON that keeps the types of Python's everyday values, and refuses what it cannot keep.

datetime, date, time, timedelta, Decimal, UUID and bytes travel as ``{"__type__": …, "__value__": …}``, kombu's markers
(``timedelta`` and ``dict`` are ours), so that payloads can be read by Celery and the other way round. Nothing is
imported or called because the text names it.

Small plain values take the quick way through ``orjson`` if it is installed; whatever it might do differently from the
portable way below is found by cheap tests of its output and goes the portable way.
"""

from __future__ import annotations

import base64
import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from importlib import import_module
from typing import Any, Final

from django.utils.functional import Promise

from .exceptions import DecodeError, EncodeError

try:
    orjson: Any = import_module("orjson")
except ImportError:
    orjson = None

__all__ = [
    "MAX_DEPTH",
    "check_depth",
    "decode",
    "decode_portably",
    "encode",
    "encode_portably",
    "is_plain",
    "tag",
    "untag",
]

#: How deep arrays and objects may be nested, those of the markers included.
MAX_DEPTH: Final = 64

# Characters above which text is read by the standard library: for hostile text orjson needs 90 times its size.
_QUICK_LIMIT: Final = 65_536
_TYPE: Final = "__type__"
_VALUE: Final = "__value__"
_MARKED: Final = frozenset({_TYPE, _VALUE})
_SCALARS: Final = frozenset({str, int, bool, type(None)})
_OPTIONS: Final = (
    orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
    if orjson
    else 0
)


# Writing -------------------------------------------------------------------------------------------------------------


def encode(value: Any) -> str:
    """Return ``value`` as JSON text, fit for a text column: no NUL, no lone surrogate.

    Tuples become lists, as in Celery; an ``Enum`` its value; a lazy translation its text; a QuerySet of plain values
    (``values_list("pk", flat=True)``) a list.

    Raises ``EncodeError``, which tells the place, for everything else.
    """
    if orjson is not None:
        try:
            written = orjson.dumps(value, option=_OPTIONS)
        except TypeError:  # a type, an integer or a text which it does not know; also too deep
            pass
        else:
            if _is_faithful(written, value):
                return str(written, "utf-8")
    return encode_portably(value)


def _is_faithful(written: bytes, value: Any) -> bool:
    # orjson writes NaN as null and a UUID as a string (four hyphens), and knows nothing of our markers.
    if (b"null" in written or written.count(b"-") > 3 or b"__type__" in written) and not is_plain(value):
        return False
    return written.count(b"[") + written.count(b"{") <= MAX_DEPTH or _depth(value) <= MAX_DEPTH


def encode_portably(value: Any) -> str:
    """Do what :func:`encode` does, with the standard library's encoder where need be."""
    plain = value if is_plain(value) else tag(value)
    if orjson is not None:
        try:
            return str(orjson.dumps(plain), "utf-8")
        except TypeError:  # an integer above 64 bits, a lone surrogate
            pass
    try:
        text = _ENCODER.encode(plain)
    except ValueError as exc:  # an integer of more digits than Python converts
        raise EncodeError(f"Cannot serialize the value: {exc}") from exc
    try:
        text.encode()
    except UnicodeEncodeError:
        text = _ASCII_ENCODER.encode(plain)
    return text


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_ASCII_ENCODER: Final = json.JSONEncoder(allow_nan=False, check_circular=False, separators=(",", ":"))


def is_plain(value: Any, room: int = MAX_DEPTH) -> bool:
    """Tell whether JSON can hold ``value`` as it is, within ``room`` levels; of subclasses nothing is assumed."""
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is float:
        return math.isfinite(value)
    if room < 1:
        return False
    # This runs for most calls that have None among their arguments: no generators, no calls for scalars.
    if kind is list or kind is tuple:
        for item in value:  # noqa: SIM110
            if type(item) not in _SCALARS and not is_plain(item, room - 1):
                return False
        return True
    if kind is not dict or _TYPE in value:
        return False
    for key, item in value.items():
        if type(key) is not str or (type(item) not in _SCALARS and not is_plain(item, room - 1)):
            return False
    return True


class _Refused(Exception):
    """What cannot be serialized, and, collected on the way up, where it stands."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []


def tag(value: Any, room: int = MAX_DEPTH) -> Any:
    """Return ``value`` as a tree of plain JSON values of at most ``room`` levels, the others marked with their types.

    Raises ``EncodeError``, which tells the place and what to send instead.
    """
    try:
        return _tag(value, room)
    except _Refused as exc:
        place = "".join(reversed(exc.path))
        raise EncodeError(f"Cannot serialize value{place}: {exc.reason}") from None


def _tag(value: Any, room: int) -> Any:
    kind = type(value)
    if kind in _SCALARS:
        return value
    if isinstance(value, Enum):
        return _tag(value.value, room)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _Refused("JSON has no NaN and no Infinity; send None or a text")
        return float.__float__(value)
    if room < 1:
        raise _Refused(f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if isinstance(value, dict):
        return _tag_dict(value, room)
    if isinstance(value, list | tuple):
        return _tag_items(value, room)
    for known, write in _WRITERS.items():
        if isinstance(value, known):
            marker, written = write(value)
            if not isinstance(written, str) and room < 2:
                raise _Refused(f"it is nested deeper than {MAX_DEPTH} levels")
            return {_TYPE: marker, _VALUE: written}
    if isinstance(value, Promise):
        return str(value)
    if hasattr(type(value), "__json__"):  # kombu's protocol
        return _tag(value.__json__(), room - 1)
    return _tag_items(_queryset_values(value), room)


def _tag_items(items: Iterable[Any], room: int) -> list[Any]:
    tagged = []
    for index, item in enumerate(items):
        try:
            tagged.append(_tag(item, room - 1))
        except _Refused as exc:
            exc.path.append(f"[{index}]")
            raise
    return tagged


def _tag_dict(value: dict[Any, Any], room: int) -> dict[str, Any]:
    if value.keys() == _MARKED:  # the user's own; as pairs it cannot be taken for a marker
        return {_TYPE: "dict", _VALUE: _tag_items([list(pair) for pair in value.items()], room - 1)}
    tagged: dict[str, Any] = {}
    for key, item in value.items():
        name = _key(key)
        if name in tagged:
            raise _Refused(f"two keys of a dict become {name!r}: JSON's keys are texts")
        try:
            tagged[name] = _tag(item, room - 1)
        except _Refused as exc:
            exc.path.append(f"[{name[:50]!r}]")
            raise
    return tagged


def _key(key: Any) -> str:
    # As the standard library's encoder does.
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or key is True or key is False:
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, int):
        try:
            return int.__repr__(key)
        except ValueError as exc:  # more digits than Python converts
            raise _Refused(f"a key of the dict is a number: {exc}") from exc
    if isinstance(key, float) and math.isfinite(key):
        return float.__repr__(key)
    raise _Refused(f"a key of the dict is a {_name(type(key))}; JSON's keys are texts")


def _write_bytes(value: Any) -> tuple[str, str]:
    content = bytes(value)
    try:
        return "bytes", content.decode()
    except UnicodeDecodeError:
        return "base64", base64.b64encode(content).decode()


# datetime stands before date, whose subclass it is.
_WRITERS: Final[Mapping[Any, Callable[[Any], tuple[str, Any]]]] = {
    datetime: lambda value: ("datetime", value.isoformat()),
    date: lambda value: ("date", value.isoformat()),
    time: lambda value: ("time", value.isoformat()),
    timedelta: lambda value: ("timedelta", [value.days, value.seconds, value.microseconds]),
    Decimal: lambda value: ("decimal", str(value)),
    uuid.UUID: lambda value: ("uuid", {"hex": value.hex}),
    (bytes, bytearray, memoryview): _write_bytes,
}


def _queryset_values(value: Any) -> Iterable[Any]:
    """Return the values of a QuerySet of plain values; refuse all else with a word of advice."""
    from django.db.models import Model, QuerySet  # not needed, and not to be paid for, before something odd is sent
    from django.db.models.query import ModelIterable, RawQuerySet

    name = _name(type(value))
    if isinstance(value, Model):
        raise _Refused(
            f"a {name} is a model instance, and its row may change before the task runs; "
            f"send its primary key, {value.pk!r}, and read it in the task"
        )
    if isinstance(value, RawQuerySet) or (
        isinstance(value, QuerySet) and issubclass(value._iterable_class, ModelIterable)
    ):
        raise _Refused("a QuerySet holds model instances; send ids: queryset.values_list('pk', flat=True)")
    if isinstance(value, QuerySet):
        return value
    if isinstance(value, set | frozenset):
        raise _Refused(f"JSON has no {name}; send a list, such as sorted(…), and make the {name} in the task")
    if isinstance(value, Iterator):
        raise _Refused(f"a {name} can be read only once; send a list")
    if isinstance(value, Iterable):
        raise _Refused(f"JSON has no {name}; send a list or a dict of its values")
    raise _Refused(f"JSON has no {name}; send plain values (text, numbers, lists, dicts, dates, Decimal, UUID, bytes)")


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# Reading -------------------------------------------------------------------------------------------------------------


def decode(text: str) -> Any:
    """Return the value of JSON text; the caller has seen to it that ``text`` is not too long.

    Raises ``DecodeError`` for what is not JSON, and for what other readers would understand differently: duplicate
    keys, NaN, numbers beyond a float, more than 4,300 digits, more than 64 levels, unknown or malformed markers.
    """
    if orjson is None or len(text) > _QUICK_LIMIT:
        return decode_portably(text)
    try:
        value = orjson.loads(text)
        # Written again it must be the same: so it had no duplicate keys and no number which orjson rounds.
        if orjson.dumps(value) != text.encode():
            return decode_portably(text)
    except (ValueError, TypeError):
        return decode_portably(text)
    if text.count("[") + text.count("{") > MAX_DEPTH:
        check_depth(value)
    return untag(value) if _TYPE in text else value


def decode_portably(text: str) -> Any:
    """Do what :func:`decode` does, with the standard library alone."""
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as exc:
        raise DecodeError(f"Stored text is not JSON that can be read: {exc}") from exc
    check_depth(value)
    return untag(value) if _TYPE in text else value


def check_depth(value: Any) -> None:
    """Raise ``DecodeError`` when ``value`` is nested too deep."""
    if _depth(value) > MAX_DEPTH:
        raise DecodeError(f"Stored value is nested deeper than {MAX_DEPTH} levels.")


def _depth(value: Any) -> int:
    """Return the number of levels of lists and dicts, or one more than is allowed; neither recurses nor copies."""
    deepest = 0
    open_levels: list[Iterator[Any]] = [iter((value,))]
    while open_levels:
        for item in open_levels[-1]:
            if isinstance(item, dict | list | tuple):
                deepest = max(deepest, len(open_levels))
                if deepest > MAX_DEPTH:
                    return deepest
                if item:
                    open_levels.append(iter(item.values() if isinstance(item, dict) else item))
                    break
        else:
            open_levels.pop()
    return deepest


def untag(value: Any) -> Any:
    """Return ``value`` with every marked value made what it was.

    Raises ``DecodeError`` for unknown and malformed markers. ``value`` must not be nested deeper than ``MAX_DEPTH``.
    """
    if isinstance(value, list):
        return [untag(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != _MARKED:
        return {key: untag(item) for key, item in value.items()}
    marker, written = value[_TYPE], value[_VALUE]
    read = _READERS.get(marker) if isinstance(marker, str) else None
    if read is None:
        raise DecodeError(f"Stored value has the unknown type {str(marker)[:50]!r}; known: {', '.join(_READERS)}.")
    try:
        return read(written)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as exc:
        raise DecodeError(f"Stored value is no {marker}: {str(written)[:50]!r}.") from exc


def _read_uuid(written: Any) -> uuid.UUID:
    return uuid.UUID(hex=_text(written["hex"] if isinstance(written, dict) else written))


def _read_timedelta(written: Any) -> timedelta:
    days, seconds, microseconds = map(int.__index__, written)
    return timedelta(days, seconds, microseconds)


def _read_dict(written: Any) -> dict[str, Any]:
    return _unique([(_text(key), untag(item)) for key, item in written])


def _text(written: Any) -> str:
    if not isinstance(written, str):
        raise TypeError("not a text")
    return written


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "datetime": datetime.fromisoformat,
    "date": lambda written: datetime.fromisoformat(written).date(),
    "time": time.fromisoformat,
    "timedelta": _read_timedelta,
    "decimal": lambda written: Decimal(_text(written)),
    "uuid": _read_uuid,
    "bytes": lambda written: _text(written).encode(),
    "base64": lambda written: base64.b64decode(_text(written), validate=True),
    "dict": _read_dict,
}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object has the same key twice")
    return made


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
