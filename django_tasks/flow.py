"""What a task's declaration says of limits, uniqueness and tags: read once, applied to each of its calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Final

from . import rates
from .backends.message import Message, Unique
from .typed_json import tag as tagged

#: Characters of a limit's key that are kept as they are; of a longer one, a hash.
LONGEST_KEY: Final = 255
#: Characters of a tag, and most of them.
LONGEST_TAG, MOST_TAGS = 64, 20

ON_CONFLICT: Final = ("skip", "replace", "raise", "again")
UNTIL: Final = ("end", "start")

#: How a call is told from others: by nothing, by arguments of these names, or by what a function makes of them.
Key = str | Sequence[str] | Callable[..., Any] | None


class Flow:
    """The flow control of one task. Raises ``TypeError`` or ``ValueError`` for a declaration that cannot be kept."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self.rate = rates.text(task.rate_limit)
        self.concurrency = rates.validate_concurrency(task.concurrency)
        self.tags = validate_tags(task.tags)
        self.is_limited = bool(self.rate or self.concurrency or task.fair)
        self.is_unique = (task.unique is not None and task.unique is not False) or task.debounce is not None
        for option in ("per_worker", "fair"):
            if not isinstance(getattr(task, option), bool):
                raise TypeError(f"{option} is {getattr(task, option)!r}; allowed: True or False")
        if task.per_worker and not self.rate:
            raise ValueError("per_worker says that a rate is that of each worker: give rate_limit, too")
        if task.fair and task.key is None:
            raise ValueError("fair lets keys take turns: give key, too")
        if task.key is not None and not self.is_limited:
            raise ValueError("key says for what limits hold one by one: give rate_limit, concurrency or fair, too")
        self._key = self._reader(task.key, "key") if task.key is not None else None
        self._check_unique()
        chosen = None if task.unique in (None, False, True) else task.unique
        self._unique = self._reader(chosen, "unique") if chosen is not None else self._all

    @property
    def is_idle(self) -> bool:
        """Is there nothing to do for a call?"""
        return not (self.is_limited or self.is_unique or self.tags)

    @property
    def runs_again(self) -> bool:
        """May a call be stored that is to run after another one?"""
        return self._task.on_conflict in ("again", "replace")

    @property
    def declared(self) -> dict[str, Any]:
        """The limits, as fields of :class:`~django_tasks.models.Limit`."""
        return {
            "rate": self.rate,
            "per_worker": self._task.per_worker,
            "concurrency": self.concurrency,
            "per_key": self._task.key is not None,
            "fair": self._task.fair,
        }

    def limit_key(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """Return the key under which limits count a call; ``None`` when none does."""
        if not self.is_limited:
            return None
        return "" if self._key is None else _as_text(self._key(args, kwargs))

    def unique(self, message: Message, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Unique:
        """Return what makes a call unique. Raises ``ValueError`` for a due time that ``debounce`` decides."""
        task = self._task
        said = json.dumps([task.name, tagged(self._unique(args, kwargs))], sort_keys=True)
        key = blake2b(said.encode(), digest_size=16).hexdigest()
        if task.debounce is None:
            period = None if task.unique_for is None else _seconds(task.unique_for, "unique_for")
            return Unique(key, task.on_conflict or "skip", task.unique_until == "start", period)
        if message.delay or message.eta is not None:
            raise ValueError(f"{task.name} is debounced, which decides when it is due: give neither countdown nor eta")
        most = None if task.debounce_max is None else _seconds(task.debounce_max, "debounce_max")
        return Unique(key, "replace", True, debounce=_seconds(task.debounce, "debounce"), debounce_max=most)

    def _reader(self, key: Any, option: str) -> Callable[[Sequence[Any], Mapping[str, Any]], Any]:
        """Return what reads the key from the arguments of a call."""
        if callable(key):
            return lambda args, kwargs: key(*args, **kwargs)
        names = (key,) if isinstance(key, str) else key
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            allowed = "the name of an argument, several of them, or a function of the arguments"
            raise TypeError(f"{option} is {key!r}; allowed: {allowed}")
        if option == "key" and not names:
            raise ValueError("key names no argument; allowed: at least one")
        arguments = self._task._arguments
        for name in names:
            if not arguments.takes(name):
                raise ValueError(f"{option} names {name!r}; the task takes {arguments.signature}")

        def read(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            given = arguments.named(args, kwargs)
            return given.get(names[0]) if len(names) == 1 else [given.get(name) for name in names]

        return read

    def _all(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        return self._task._arguments.named(args, kwargs)

    def _check_unique(self) -> None:
        task = self._task
        details = ("unique_until", "unique_for", "on_conflict", "debounce", "debounce_max")
        given = [name for name in details if getattr(task, name) is not None]
        if given and not self.is_unique:
            raise ValueError(f"{given[0]} says how a task is unique: give unique, too")
        if task.on_conflict not in (None, *ON_CONFLICT):
            raise ValueError(f"on_conflict is {task.on_conflict!r}; allowed: {_listed(ON_CONFLICT)}")
        if task.unique_until not in (None, *UNTIL):
            raise ValueError(f"unique_until is {task.unique_until!r}; allowed: {_listed(UNTIL)}")
        for name in ("unique_for", "debounce", "debounce_max"):
            if getattr(task, name) is not None:
                _seconds(getattr(task, name), name)
        if task.debounce is not None:
            others = [name for name in given if not name.startswith("debounce")]
            if others:
                raise ValueError(f"{others[0]} does not go with debounce, which replaces what waits until it starts")
            if task.debounce_max is not None and _seconds(task.debounce_max, "") < _seconds(task.debounce, ""):
                raise ValueError(f"debounce_max is {task.debounce_max!r}; allowed: at least debounce")
        elif task.debounce_max is not None:
            raise ValueError("debounce_max says how long debounce may put a task off: give debounce, too")
        if task.unique_for is not None and task.unique_until is not None:
            raise ValueError("unique_for and unique_until are two ways to say for how long: give one")
        if task.unique_for is not None and task.on_conflict in ("replace", "again"):
            raise ValueError(f"on_conflict={task.on_conflict!r} does not go with unique_for: the other may be done")
        if task.unique_until == "start" and task.on_conflict == "again":
            raise ValueError("on_conflict='again' does not go with unique_until='start': what runs is not in the way")


def validate_tags(tags: Any) -> tuple[str, ...]:
    """Return tags, each once. Raises ``TypeError`` or ``ValueError``."""
    if tags is None:
        return ()
    if not isinstance(tags, list | tuple | set | frozenset):
        raise TypeError(f"tags must be a list of texts, not {tags!r}")
    found = tuple(dict.fromkeys(tags if isinstance(tags, list | tuple) else sorted(tags)))
    for tag in found:
        if not isinstance(tag, str) or not 0 < len(tag) <= LONGEST_TAG or not tag.isprintable():
            raise ValueError(f"A tag is a printable text of 1 to {LONGEST_TAG} characters, not {tag!r}")
    if len(found) > MOST_TAGS:
        raise ValueError(f"A task has at most {MOST_TAGS} tags, not {len(found)}")
    return found


def _as_text(value: Any) -> str:
    """Return a key as text; what is not text already, as JSON."""
    text = value if isinstance(value, str) else "" if value is None else json.dumps(tagged(value), sort_keys=True)
    if len(text) > LONGEST_KEY or not text.isprintable():
        text = f"blake2b:{blake2b(text.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"
    return text


def _seconds(value: Any, name: str) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}; allowed: seconds as a number, or a timedelta")
    if not 0 < value <= 3_000_000_000:
        raise ValueError(f"{name} is {value!r}; allowed: more than 0 seconds, and less than 95 years")
    return float(value)


def _listed(values: Sequence[str]) -> str:
    return ", ".join(map(repr, values))
