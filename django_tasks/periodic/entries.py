"""What the code declares to run by a schedule: ``BEAT_SCHEDULE``, and tasks with ``periodic=``. No model is touched."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.utils import timezone

from .. import schedules, typed_json
from ..conf import PRIORITIES, QUEUE_NAME, settings
from ..registry import tasks
from ..time_limits import validate_limits
from . import planning
from .fields import zone_name

__all__ = ["Entry", "declared_entries", "entries_of_setting", "entries_of_task", "problems", "schedule_spec"]

#: The schedules for which there are rows.
STORABLE: Final = (schedules.schedule, schedules.crontab, schedules.cron, schedules.solar, schedules.clocked)
#: What an entry may say beside ``task`` and ``schedule``, as in Celery, and the columns of a row that are ours.
KEYS: Final = frozenset(
    [
        *("task", "schedule", "args", "kwargs", "options", "relative", "by_name"),
        *("enabled", "description", "one_off", "start_time", "end_time", "max_runs"),
        *("overlap", "missed", "missed_limit", "grace_seconds", "jitter"),
    ]
)
#: What ``options`` may say: how the task is called.
OPTIONS: Final = frozenset(
    ["queue", "exchange", "routing_key", "headers", "priority", "expires", "time_limit", "soft_time_limit"]
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One periodic task as the code declares it."""

    name: str
    schedule: schedules.BaseSchedule
    #: The columns of its row, as values of JSON.
    fields: Mapping[str, Any]
    #: Is the task to be sent although this process may not know it?
    by_name: bool = False

    @property
    def spec(self) -> dict[str, Any]:
        """Columns and schedule as values of JSON: what is compared to what stands in the row."""
        return {**self.fields, "schedule": schedule_spec(self.schedule)}

    def as_json(self) -> str:
        """Return the same as text."""
        return json.dumps(self.spec, sort_keys=True)


def declared_entries() -> list[Entry]:
    """Return everything that is declared in this process. Raises ``ValueError`` or ``TypeError``."""
    found = entries_of_setting(settings.BEAT_SCHEDULE)
    names = {entry.name for entry in found}
    for task in list(tasks.values()):
        for entry in entries_of_task(task.name, getattr(task, "periodic", None)):
            if entry.name in names:
                raise ValueError(f"{entry.name!r} is declared twice: each periodic task has a name of its own")
            names.add(entry.name)
            found.append(entry)
    return found


def problems(known_elsewhere: Callable[[], Iterable[str]]) -> list[str]:
    """Return what is wrong with the declarations of this process, a sentence each.

    ``known_elsewhere`` returns the tasks that others know; it is asked only if this process does not know one.
    """
    try:
        found = declared_entries()
    except (TypeError, ValueError) as error:
        return [str(error) if str(error).endswith("?") else f"{error}."]
    unknown = [entry for entry in found if entry.fields["task"] not in tasks and not entry.by_name]
    wrong = _unknown_names(unknown, set(known_elsewhere())) if unknown else []
    for entry in found:
        task = tasks.get(entry.fields["task"])
        if task is None:
            continue
        try:
            task._checked(*(typed_json.untag(json.loads(entry.fields[name])) for name in ("args", "kwargs")))
        except (TypeError, ValueError) as error:
            wrong.append(f"Periodic task {entry.name!r}: {error}.")
    return wrong


def _unknown_names(entries: Iterable[Entry], elsewhere: Set[str]) -> list[str]:
    found = []
    for entry in entries:
        task = entry.fields["task"]
        if task not in elsewhere:
            close = difflib.get_close_matches(task, {*tasks, *elsewhere}, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            found.append(
                f"Periodic task {entry.name!r} names the task {task!r}, which neither this process nor a running "
                f"worker knows.{hint} If only workers have its code, say so in the entry: 'by_name': True."
            )
    return found


def entries_of_setting(value: Mapping[str, Any]) -> list[Entry]:
    """Return the entries of ``BEAT_SCHEDULE``, Celery's dict. Raises ``ValueError`` or ``TypeError``."""
    return [_entry(name, given, f"BEAT_SCHEDULE[{name!r}]") for name, given in value.items()]


def entries_of_task(task: str, value: Any) -> list[Entry]:
    """Return what ``periodic=`` of a task says: a schedule, seconds, a dict as in ``BEAT_SCHEDULE``, or a list of such.

    A dict may give a ``name``, which a list of several needs; otherwise it is that of the task.
    Raises ``ValueError`` or ``TypeError``.
    """
    if value is None:
        return []
    several = value if isinstance(value, list | tuple) else [value]
    found = []
    for given in several:
        said = dict(given) if isinstance(given, Mapping) else {"schedule": given}
        name = said.pop("name", None)
        if name is None:
            if len(several) > 1:
                raise ValueError("periodic has several entries, of which each needs a name: {'name': …, 'schedule': …}")
            name = task
        for key in ("task", "by_name"):
            if key in said:
                raise ValueError(f"periodic says {key!r}, but the task is the one that declares it")
        found.append(_entry(name, {**said, "task": task}, "periodic"))
    return found


def schedule_spec(schedule: schedules.BaseSchedule) -> dict[str, Any]:
    """Return what a schedule is made of, as values of JSON: equal for equal ones."""
    if isinstance(schedule, schedules.crontab):
        return {"crontab": list(schedule.fields), "timezone": _zone_of(schedule)}
    if isinstance(schedule, schedules.cron):
        return {"cron": schedule.line, "timezone": _zone_of(schedule)}
    if isinstance(schedule, schedules.solar):
        return {"solar": schedule.event, "latitude": float(schedule.lat), "longitude": float(schedule.lon)}
    if isinstance(schedule, schedules.clocked):
        return {"clocked": schedule.clocked_time.astimezone(UTC).isoformat()}
    if isinstance(schedule, schedules.schedule):
        return {"seconds": schedule.seconds, "relative": schedule.relative}
    raise TypeError(f"schedule is {schedule!r}, which no row can hold")


def _zone_of(schedule: schedules.BaseSchedule) -> str:
    return zone_name(schedule._tz or timezone.get_default_timezone())


def _entry(name: Any, given: Any, where: str) -> Entry:
    try:
        return _read(name, given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None


def _read(name: Any, given: Any) -> Entry:
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        raise ValueError(f"the name is {name!r}; allowed: a text of 1 to 200 characters")
    if not isinstance(given, Mapping):
        raise TypeError(f"{given!r}; allowed: a dict with task and schedule")
    options = given.get("options") or {}
    if not isinstance(options, Mapping):
        raise TypeError(f"options is {options!r}; allowed: a dict")
    for where, keys, known in (("", given, KEYS), ("options: ", options, OPTIONS)):
        for key in keys:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"allowed: {', '.join(sorted(known))}"
                raise ValueError(f"{where}there is no key {key!r}; {hint}")
    for key in ("task", "schedule"):
        if given.get(key) is None:
            raise ValueError(f"{key} is missing")
    by_name = _checked(given, "by_name", False, lambda value: isinstance(value, bool), "True or False")
    return Entry(name, _schedule(given), {**_columns(given), **_delivery(options)}, by_name)


def _schedule(given: Mapping[str, Any]) -> schedules.BaseSchedule:
    relative = _checked(given, "relative", False, lambda value: isinstance(value, bool), "True or False")
    found = schedules.maybe_schedule(given["schedule"], relative)
    assert found is not None  # noqa: S101 - it is not missing
    if relative and isinstance(found, schedules.schedule) and not found.relative:
        found = schedules.schedule(found.run_every, relative=True)
    if type(found) not in STORABLE:  # nor one derived from them, which may decide otherwise
        kinds = ", ".join(each.__name__ for each in STORABLE)
        raise TypeError(f"schedule is {found!r}, which no row can hold; allowed: seconds, a timedelta, {kinds}")
    return found


def _columns(given: Mapping[str, Any]) -> dict[str, Any]:
    args, kwargs = given.get("args") or (), given.get("kwargs") or {}
    if not isinstance(args, list | tuple):
        raise TypeError(f"args is {args!r}; allowed: a list or a tuple")
    if not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs is {kwargs!r}; allowed: a dict")
    task = given["task"]
    if not isinstance(task, str) or not 0 < len(task) <= 200:
        raise ValueError(f"task is {task!r}; allowed: the name of a task")
    clocked = isinstance(given["schedule"], schedules.clocked)
    boolean: tuple[Callable[[Any], bool], str] = (lambda value: isinstance(value, bool), "True or False")
    return {
        "task": task,
        "args": typed_json.encode(list(args)),
        "kwargs": typed_json.encode(dict(kwargs)),
        "enabled": _checked(given, "enabled", True, *boolean),
        "description": _checked(given, "description", "", lambda value: isinstance(value, str), "a text"),
        "one_off": _checked(given, "one_off", clocked, *boolean) or clocked,
        "start_time": _moment(given, "start_time"),
        "end_time": _moment(given, "end_time"),
        "max_runs": _whole(given, "max_runs", None, 1),
        "overlap": _one_of(given, "overlap", planning.ALLOW, planning.SKIP, planning.QUEUE),
        "missed": _one_of(given, "missed", planning.ONCE, planning.SKIP, planning.ALL),
        "missed_limit": _whole(given, "missed_limit", 10, 1, 1_000),
        "grace_seconds": _whole(given, "grace_seconds", None, 0),
        "jitter": _whole(given, "jitter", 0, 0),
    }


def _delivery(options: Mapping[str, Any]) -> dict[str, Any]:
    headers = options.get("headers") or {}
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers is {headers!r}; allowed: a dict")
    hard, soft = validate_limits(options.get("time_limit"), options.get("soft_time_limit"))
    return {
        **{name: _queue(options, name) for name in ("queue", "exchange", "routing_key")},
        "headers": typed_json.encode(dict(headers)),
        "priority": _whole(options, "priority", None, PRIORITIES[0], PRIORITIES[-1]),
        **_expiry(options.get("expires")),
        "time_limit": hard,
        "soft_time_limit": soft,
    }


def _expiry(value: Any) -> dict[str, Any]:
    if isinstance(value, datetime):
        return {"expires": _iso(value), "expire_seconds": None}
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if value is None:
        return {"expires": None, "expire_seconds": None}
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**31:
        raise ValueError(f"expires is {value!r}; allowed: seconds above 0, a timedelta or a datetime")
    return {"expires": None, "expire_seconds": math.ceil(value)}


def _queue(given: Mapping[str, Any], name: str) -> Any:
    allowed = "1 to 64 of the characters A-Z a-z 0-9 _ . : -"
    return _checked(
        given, name, None, lambda value: isinstance(value, str) and bool(QUEUE_NAME.fullmatch(value)), allowed
    )


def _whole(given: Mapping[str, Any], name: str, default: int | None, least: int, most: int = 2**31 - 1) -> Any:
    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return _checked(given, name, default, fits, f"a whole number from {least} to {most}")


def _one_of(given: Mapping[str, Any], name: str, *allowed: str) -> Any:
    return _checked(given, name, allowed[0], lambda value: value in allowed, ", ".join(map(repr, allowed)))


def _moment(given: Mapping[str, Any], name: str) -> str | None:
    value = _checked(given, name, None, lambda value: isinstance(value, datetime), "a datetime")
    return None if value is None else _iso(value)


def _iso(moment: datetime) -> str:
    return (timezone.make_aware(moment) if timezone.is_naive(moment) else moment).astimezone(UTC).isoformat()


def _checked(given: Mapping[str, Any], name: str, default: Any, fits: Callable[[Any], bool], allowed: str) -> Any:
    value = given.get(name)
    if value is None:
        return default
    if not fits(value):
        raise ValueError(f"{name} is {value!r}; allowed: {allowed}")
    return value
