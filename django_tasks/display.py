"""Payloads as people may see them: decoded without risk, secrets hidden by their names, never too long.

Whatever a task or its sender stored is hostile here. Nothing is unpickled, nothing is marked as safe HTML.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from django.utils import dateformat, formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import get_language

from .backends import stores
from .exceptions import OperationalError, SerializationError, UnknownResult
from .redaction import HIDDEN as HIDDEN
from .redaction import REDACTED, hidden_call, is_secret, signature_of, taken_in
from .serialization import loads, storable

if TYPE_CHECKING:
    from .models import Call, Task, TaskResult

#: What is decoded for display, whatever ``ACCEPT_CONTENT`` allows the worker: none of these can run code.
READABLE: Final = ("json", "msgpack", "yaml")
#: Most characters of one value.
TEXT_LIMIT: Final = 65_536
#: Most characters of a value within a list.
LINE_LIMIT: Final = 200
#: Stands for what a task takes in before its own arguments.
_TAKEN: Final = object()


class Shown(NamedTuple):
    """A value as people see it."""

    text: str
    #: The same as plain data, to be taken apart; ``None`` for what is neither a dict nor a list, or not to be read.
    data: dict[str, Any] | list[Any] | None = None


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call: its name in the task's signature, and its value."""

    name: str
    value: Shown


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt that did not end the task."""

    number: str
    outcome: str
    worker: str
    at: datetime | None
    #: Seconds.
    runtime: float | None
    error: str
    traceback: str


class Unreadable(Exception):
    """The stored value is not shown; the text says why."""


def decode(text: str, encoding: str) -> Any:
    """Return a stored value. Raises :class:`Unreadable`, and nothing else."""
    encoding = "" if encoding == REDACTED else encoding
    name = encoding.partition("+")[0] or "json"
    if name not in READABLE:
        raise Unreadable(f"{len(text):,} characters of {name[:32]}, which is not decoded for display")
    try:
        return loads(text, encoding, READABLE)
    except SerializationError as error:
        raise Unreadable(f"{len(text):,} characters that cannot be decoded: {short(error, 500)}") from error


def is_readable(encoding: str) -> bool:
    """Is a value of this encoding decoded for display? True of one that lies elsewhere: only fetching it tells."""
    kept = "" if encoding == REDACTED or stores.is_elsewhere(encoding) else encoding.partition("+")[0]
    return not kept or kept in READABLE


def arguments(call: Call, *, full: bool) -> list[Argument]:
    """Return the arguments of a call, named by the task's signature if this process knows it.

    ``full=False`` gives types and sizes only. ``argsrepr`` and ``kwargsrepr`` of the sender stand in for the values.
    """
    try:
        value = decode(call.body, call.encoding)
    except Unreadable as reason:
        return [Argument("args, kwargs", Shown(str(reason)))]
    if not (isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], list | tuple)):
        return [Argument("args, kwargs", _shown(value, full))]
    args, kwargs = value
    if not isinstance(kwargs, dict):
        return [Argument("args", _shown(args, full)), Argument("kwargs", _shown(kwargs, full))]
    options = options_of(call)
    taken = taken_in(options)
    hidden = hidden_call(call.name, args, kwargs, options, taken=taken)
    if full and (given := _given_texts(options)):
        return [
            Argument(key, Shown(cut(given[key]))) if key in given else Argument(key, _shown(value, full))
            for key, value in zip(("args", "kwargs"), hidden, strict=True)
        ]
    shown = hidden if full else (args, kwargs)
    return _named(call.name, shown[0], shown[1], full, taken)


def call_of(call: Call) -> Any:
    """Return the arguments of a call as data, without what is hidden, however long. Raises :class:`Unreadable`."""
    value = decode(call.body, call.encoding)
    match value:
        case [list() | tuple() as args, dict() as kwargs]:
            options = options_of(call)
            hidden = hidden_call(call.name, args, kwargs, options, taken=taken_in(options))
            return {"args": list(hidden[0]), "kwargs": hidden[1], **_given_texts(options)}
    return value


def _given_texts(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts that the sender wants to be shown in place of the arguments."""
    given = {name: options.get(f"{name}repr") for name in ("args", "kwargs")}
    return {name: text for name, text in given.items() if isinstance(text, str) and text}


def _named(name: str, args: Sequence[Any], kwargs: dict[str, Any], full: bool, taken: int | None) -> list[Argument]:
    signature = signature_of(name)
    bound = None
    if signature is not None and taken is not None:
        with contextlib.suppress(TypeError):  # sent by another release
            bound = signature.bind(*[_TAKEN] * taken, *args, **kwargs)
    if bound is None:
        if not full:  # the keys are the sender's, too
            return [Argument("args", Shown(describe(args))), Argument("kwargs", Shown(describe(kwargs)))]
        named = [(f"args[{number}]", value) for number, value in enumerate(args)] + list(kwargs.items())
        return [_argument(key, value, full) for key, value in named]
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    assert signature is not None  # noqa: S101 - for the type checker
    return [
        _argument(stars.get(signature.parameters[key].kind, "") + key, _own(value), full)
        for key, value in bound.arguments.items()
        if value is not _TAKEN and value != (_TAKEN,)
    ]


def _own(value: Any) -> Any:
    """Return a value without what the task takes in, if it is the rest of the positional ones."""
    return value[1:] if isinstance(value, tuple) and value and value[0] is _TAKEN else value


def _argument(name: str, value: Any, full: bool) -> Argument:
    return Argument(short(name), Shown(HIDDEN)) if value == HIDDEN else Argument(short(name), _shown(value, full))


def _shown(value: Any, full: bool) -> Shown:
    if not full:
        return Shown(describe(value))
    data = plain(value)
    return Shown(cut(_written(data)), data if isinstance(data, dict | list) else None)


def outcome(result: TaskResult, *, full: bool) -> Shown:
    """Return the return value, or the exception with its causes; ``""`` if nothing was stored."""
    if result.result is None:
        return Shown("")
    if not full and stores.is_elsewhere(result.result_encoding):
        return Shown("…")  # a list does not ask for each
    try:
        value = value_of(result)
    except (Unreadable, UnknownResult, OperationalError) as reason:
        return Shown(str(reason))
    if isinstance(value, dict) and "exc_type" in value:
        return Shown(error_text(value) if full else short(value["exc_type"]))
    return _shown(value, full)


def value_of(result: TaskResult) -> Any:
    """Return what was stored as the result, the return value or the exception as data, wherever it lies.

    Raises :class:`Unreadable`, ``UnknownResult`` if it is not there any more, ``OperationalError`` if it cannot be had.
    """
    return decode(*stores.fetch(result.result or "", result.result_encoding))


def error_text(value: Any) -> str:
    """Return an exception as data (or any text that stands for one) as lines: what it was and said, and its causes."""
    if not isinstance(value, Mapping):
        return cut(str(value or ""))
    lines = [f"{value.get('exc_type', '')}: {value.get('text', '')}".strip(": ")]
    causes = value.get("causes")
    lines += [f"because of {cause}" for cause in causes] if isinstance(causes, list) else []
    return cut("\n".join(lines))


def progress(task: Task, *, full: bool) -> dict[str, Any] | None:
    """Return what a running task told of itself: ``text``, and if it told how far it is, ``value`` and ``max``."""
    if not task.meta:
        return None
    try:
        told = decode(task.meta, "")
    except Unreadable as reason:
        return {"text": str(reason)}
    shown: dict[str, Any] = {"text": pretty(told) if full else describe(told)}
    if (parts := _parts(told)) is not None:
        shown |= {"value": f"{parts[0]:.6f}", "max": f"{parts[1]:.6f}"}
        if task.started_at is not None and 0 < parts[0] < parts[1]:
            ran = (timezone.now() - task.started_at).total_seconds()
            shown["left"] = span(max(0.0, ran) * (parts[1] - parts[0]) / parts[0])
    return shown


def numbers(task: Task) -> tuple[float, float] | None:
    """Return how far a running task is, and of how much, as it told last; ``None`` if it did not."""
    try:
        return _parts(decode(task.meta, "")) if task.meta else None
    except Unreadable:
        return None


def _parts(told: Any) -> tuple[float, float] | None:
    current, total = (told.get("current"), told.get("total")) if isinstance(told, dict) else (None, None)
    if isinstance(current, int | float) and isinstance(total, int | float) and 0 <= current <= total and total:
        try:
            return float(current), float(total)
        except OverflowError:
            return None
    return None


def exception_line(result: TaskResult, *, full: bool) -> str:
    """Return the exception in one line for a list; its message may quote arguments, so ``full=False`` leaves it out."""
    return short(result.exception if full else result.exception.partition(":")[0])


def attempts(call: Call, *, full: bool) -> list[Attempt]:
    """Return the earlier attempts, oldest first."""
    try:
        entries = json.loads(call.history) if call.history else []
    except ValueError:
        entries = [{"error": "The stored history cannot be read."}]
    return [_attempt(entry, full) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _attempt(entry: dict[str, Any], full: bool) -> Attempt:
    error, at, runtime = entry.get("error"), entry.get("at"), entry.get("runtime")
    told = {"exc_type": error.get("exc_type", "")} if isinstance(error, Mapping) and not full else error
    return Attempt(
        number=short(entry.get("attempt", ""), 20),
        outcome=short(entry.get("outcome", ""), 64),
        worker=short(entry.get("worker") or "", 255),
        at=_moment(at),
        runtime=float(runtime) if isinstance(runtime, int | float) else None,
        error=error_text(told),  # what is no exception is our own sentence
        traceback=cut(str(entry.get("traceback") or "")) if full else "",
    )


def _moment(seconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def options_of(call: Call) -> dict[str, Any]:
    """Return a call's options as a dict; empty when they cannot be read."""
    try:
        found = json.loads(call.options) if call.options else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def shown_options(call: Call) -> dict[str, Any]:
    """Return a call's options as people may see them; calls that are linked to it are told without their arguments."""
    shown: dict[str, Any] = plain(options_of(call))
    node = shown.get("node")
    linked = node.get("errbacks") if isinstance(node, dict) else None
    for one in linked if isinstance(linked, list) else ():
        if isinstance(one, dict) and "body" in one:
            one["body"] = describe(one["body"])
    return shown


# Values as text ------------------------------------------------------------------------------------------------------


def pretty(value: Any) -> str:
    """Return ``value`` as indented JSON, at most :data:`TEXT_LIMIT` characters, without what keys say is secret."""
    return cut(written(value))


def written(value: Any) -> str:
    """Return ``value`` as indented JSON, however long, without what keys say is secret."""
    return _written(plain(value))


def _written(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False)


def plain(value: Any) -> Any:
    """Return ``value`` as JSON can write it, with everything hidden whose key names a secret."""
    if isinstance(value, dict):
        return {
            storable(str(key)): HIDDEN if isinstance(key, str) and is_secret(key) else plain(each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return storable(value) if isinstance(value, str) else value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    return storable(str(value))


def describe(value: Any) -> str:
    """Return the type and the size of ``value``, and nothing of what it holds."""
    if isinstance(value, str):
        return f"str, {len(value):,} characters"
    if isinstance(value, bytes):
        return f"bytes, {len(value):,}"
    if isinstance(value, dict):
        return f"dict, {len(value):,} keys"
    if isinstance(value, list | tuple | set | frozenset):
        return f"{type(value).__name__}, {len(value):,} items"
    return type(value).__name__


def span(seconds: float) -> str:
    """Return a duration in the one unit that fits it: ``40 ms``, ``3.1 s``, ``5 min``, ``2.5 h``."""
    if seconds < 0.1:
        return f"{seconds * 1_000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7_200 else f"{seconds / 3_600:,.1f} h"


def cut(text: str) -> str:
    """Return ``text`` as any page can show it, at most :data:`TEXT_LIMIT` characters and how many are missing."""
    text = storable(text)
    return text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]}\n… {len(text) - TEXT_LIMIT:,} more characters"


def short(text: object, limit: int = LINE_LIMIT) -> str:
    """Return ``text`` for one line of a list: at most ``limit`` characters."""
    line = storable(str(text))
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def clock(when: datetime) -> str:
    """Return the time of a day in the reader's time zone, to the millisecond."""
    return timezone.localtime(when).isoformat(sep=" ", timespec="milliseconds")[11:23]


def moment(when: datetime | None) -> SafeString | str:
    """Return a moment in the reader's time zone, with the exact one for programs; ``""`` for none."""
    if when is None:
        return ""
    try:
        local = timezone.localtime(when)
    except OverflowError:  # the end of the calendar, east of here
        local = when
    shown = f"{_day(local.date(), formats.get_format('DATE_FORMAT'), get_language())} {local:%H:%M:%S}"
    return format_html('<time datetime="{0}" title="{0}">{1}</time>', when.isoformat(timespec="milliseconds"), shown)


@functools.lru_cache(maxsize=64)
def _day(day: date, written: str, language: str | None) -> str:
    """Return a day as people of this language read it: most rows of a list are of a few days."""
    return dateformat.format(day, written)
