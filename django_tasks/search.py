"""What people search for in the to-do list and the ledger: ``state:failure queue:mail since:2h``.

Words are joined by "and"; a word is ``key:value``, an id, or the beginning of a task's name. All that is chosen so is a
:class:`Selection`, which says which rows they are and along which indexes they are found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.db.models import F, Q, QuerySet, UUIDField, Value
from django.db.models.functions import Coalesce
from django.db.models.lookups import GreaterThan
from django.utils import timezone
from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from . import dashboard, ids, own_code, states
from .failures import Kind
from .models import PeriodicRun, Task, TaskResult, TaskTag, Worker
from .querysets import FREE, IMPLIED
from .redaction import hides_some, is_secret, secret_names
from .registry import tasks
from .replica import reads_from

#: What no index finds is looked for in so many of the newest rows.
SCANNED: Final = 100_000
#: Ids of other tables that a search takes along, the newest ones.
MOST_IDS: Final = 1_000
#: The longest time, in seconds, that databases can add to a moment.
LONGEST: Final = 3_000_000_000
#: A prefix that so many task names share is looked for along the states, not name by name.
MOST_NAMES: Final = 20

_WORD: Final = re.compile(r'(?:(?P<key>[A-Za-z]+(?:\.[^\s:."]+)?):)?(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s"]+))(?=\s|$)')
_NUMBER: Final = re.compile(r"(?P<sign>>=|<=|>|<|=)?(?P<number>-?\d{1,9}(?:\.\d{1,6})?)(?P<unit>ms|s|m|h|d)?")
_AGE: Final = re.compile(r"(\d{1,6})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SIGNS: Final = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt", "=": "exact", None: "exact"}
#: What ran longer began before.
_BEFORE: Final = {"gte": "lte", "lte": "gte", "gt": "lt", "lt": "gt"}
_SECONDS: Final = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
#: No row has a key before this one.
_FIRST: Final = str(UUID(int=0))
_CLASS: Final = re.compile(r"[\w.]+")


class SearchError(ValueError):
    """What was searched for cannot be understood; the text says why, for the person who typed it."""


def words_for_failures(kind: Kind) -> str | None:
    """Return the words that find the failures of this class of exception from this place, ``""`` for none, and no
    others; ``None`` if there are no such words. The task's name is not among them."""
    if kind.exception and not _CLASS.fullmatch(kind.exception):
        return None
    return f'exc:"{kind.exception}" at:"{kind.place}"'


def is_class(kind: str) -> bool:
    """May this be the class of an exception, to be searched for by anybody?"""
    return _CLASS.fullmatch(kind) is not None


def keys(model: type[Task] | type[TaskResult]) -> list[str]:
    """Return what may stand before the colon in a search of these rows."""
    known = (f"{key}.NAME" if key == "kwargs" else key for key in _CONDITIONS if key not in _UNWRITTEN)
    return [key for key in known if model is TaskResult or key not in _OF_RESULTS]


def help_text(model: type[Task] | type[TaskResult]) -> Any:
    """Return for people what these rows can be searched by: a text in the language of who reads it."""
    text = gettext_lazy(
        "An id, the beginning of a name, or key:value with one of these keys: {keys}. "
        "Example: queue:mail since:2h run:>10s"
    )
    return format_lazy(text, keys=" ".join(keys(model)))


class Word(NamedTuple):
    """One condition."""

    key: str
    value: str
    #: It was chosen, not typed: nothing in it has a meaning of its own.
    literal: bool = False


def parse(text: str) -> list[Word]:
    """Return the words of a search. Raises :class:`SearchError`."""
    words: list[Word] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        found = _WORD.match(text, at)
        if found is None:
            raise SearchError(_("%(rest)s cannot be read: a quotation mark is missing.") % {"rest": text[at : at + 40]})
        at = found.end()
        value = found["quoted"] if found["quoted"] is not None else found["plain"]
        if "\x00" in value or len(value) > 255:
            raise SearchError(_("A word of a search has 255 characters at most."))
        key = found["key"]
        if key is None:
            key = "id" if _is_uuid(value) else "begins"
        words.append(Word(key.lower() if "." not in key else key, value))
    return words


@dataclass
class Selection:
    """Rows of the to-do list or of the ledger, by what was searched for at a moment."""

    model: type[Task] | type[TaskResult]
    words: Sequence[Word]
    #: What "two hours ago" is counted from.
    at: datetime
    #: May the reader see payloads? Else what is found would tell of them.
    full: bool
    #: What came after this moment does not count as the newest; ``None``: all does.
    until: datetime | None = None
    #: What no index finds is looked for behind this key; ``None``: in the newest rows, which it is then the key before.
    floor: str | None = None
    condition: Q = field(init=False, default_factory=Q)
    #: The task names and states that it is limited to, ``None`` for all.
    names: list[str] | None = field(init=False, default=None)
    states: list[str] | None = field(init=False, default=None)
    #: Sentences on what was looked through.
    notes: list[str] = field(init=False, default_factory=list)
    _scans: bool = field(init=False, default=False)
    _passes_over_secrets: bool = field(init=False, default=False)

    @classmethod
    def of(
        cls,
        model: type[Task] | type[TaskResult],
        text: str,
        filters: Mapping[str, str],
        *,
        at: datetime | None = None,
        full: bool,
        floor: str | None = None,
    ) -> Selection:
        """Return what a search and the filters beside it choose, by ``at``, which is now if not given; with the
        ``floor`` that another one had, the same as that one.

        Raises :class:`SearchError`.
        """
        words = parse(text)
        for name, value in filters.items():
            key, values = _OTHER_WORDS.get(name, (name, {}))
            words.append(Word(key, values.get(value, value), literal=True))
        return cls(model, words, at or datetime.now(UTC), full, until=at, floor=floor)

    def __post_init__(self) -> None:
        for word in self.words:
            key, _dot, path = word.key.partition(".")
            condition = _CONDITIONS.get(key)
            if condition is None or bool(path) != (key == "kwargs"):
                known = ", ".join(sorted(keys(self.model)))
                raise SearchError(
                    _("There is no %(key)s: to search for; there are: %(keys)s.") % {"key": word.key, "keys": known}
                )
            if key in _OF_RESULTS and not self.is_ledger:
                raise SearchError(_("Only task results can be searched by %(key)s:.") % {"key": word.key})
            self.condition &= condition(self, word._replace(key=path or key))
        if self._scans:
            self.floor = self._floor() if self.floor is None else self.floor
            if self.floor != _FIRST:
                self.condition &= _behind(self.floor) if self.is_ledger else Q(pk__gt=self.floor)
        self.notes += _notes(self._scans)
        if self._passes_over_secrets:
            self.notes.append(_("What has hidden values was left out."))

    @property
    def is_ledger(self) -> bool:
        """Is it the ledger that is searched?"""
        return self.model is TaskResult

    def narrow(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return those of these rows that are chosen."""
        return rows.filter(self.condition) if self.condition else rows

    def branches(self, rows: QuerySet[Any]) -> list[QuerySet[Any]] | None:
        """Return parts of these chosen rows, each of which an index gives in order; ``None`` if all of it is one, or
        few."""
        keys = {word.key for word in self.words}
        if keys & _FEW:
            return None
        if self.is_ledger:
            return self.walks(rows)
        if "queue" not in keys or self.states is not None:
            return None
        # What is free of a small queue lies in the claim index, whatever waits in others.
        free = rows.filter(FREE)
        others = sorted(states.UNFINISHED - states.CLAIMABLE)
        return [free, *(rows.filter(IMPLIED.get(state, Q()), state=state) for state in others)]

    def walks(self, rows: QuerySet[Any]) -> list[QuerySet[Any]]:
        """Return parts of these rows that hold all that are chosen, each of which an index gives in order however many
        they are."""
        if not self.is_ledger:
            return [rows]
        if self.names and len(self.names) <= MOST_NAMES:
            return [rows.filter(name=name) for name in self.names]
        return [rows.filter(state=state) for state in self.states or sorted(states.FINISHED)]

    @property
    def is_served(self) -> bool:
        """Does an index find a page of it, however many other rows there are?"""
        keys = {word.key for word in self.words}
        if keys & _FEW:
            return True
        if not self.is_ledger:
            return keys <= {"state", "worker", "run"}
        if self.names is not None:
            return len(self.names) <= MOST_NAMES and keys <= {"name", "begins", "since", "before"}
        return keys <= {"state", "since", "before"}

    @property
    def is_counted_cheaply(self) -> bool:
        """Does an index bound the cost of counting it?"""
        cheap = {"state", "since"} if self.is_ledger else {"state", "queue"}
        return {word.key for word in self.words} <= cheap

    def scan(self) -> None:
        """Note that no index serves a condition."""
        self._scans = True

    def pass_over_secrets(self) -> None:
        """Note that rows were left out, because finding them would tell of what they hide."""
        self._passes_over_secrets = True

    def only(self, names: Iterable[str]) -> None:
        """Note that no other task names are wanted."""
        self.names = sorted(set(names) if self.names is None else set(names).intersection(self.names))

    def _floor(self) -> str:
        newest = self.model.objects.using(reads_from()).order_by("-pk")
        return str(newest.values_list("pk", flat=True)[SCANNED : SCANNED + 1].first() or _FIRST)


def _behind(key: str) -> Q:
    """Return the condition that a row comes behind a key, but not as the bound of a walk: the ledger's are by time, and
    of two bounds MariaDB takes neither."""
    pk = Coalesce(F("pk"), F("pk"), output_field=UUIDField())
    return Q(GreaterThan(pk, Value(UUID(key), output_field=UUIDField())))


def _notes(scans: bool) -> list[str]:
    if not scans:
        return []
    text = ngettext("Looked through the newest %(count)s row.", "Looked through the newest %(count)s rows.", SCANNED)
    return [text % {"count": f"{SCANNED:,}"}]


#: The choices of the filter by time, as words of a search have them.
AGES: Final[Mapping[str, str]] = {"hour": "1h", "day": "1d", "week": "7d", "month": "30d"}
#: Filters that have not the name of a word: its key, and its values by their choices.
_OTHER_WORDS: Final[Mapping[str, tuple[str, Mapping[str, str]]]] = {
    "finished": ("since", AGES),
    "retried": ("is", {"yes": "retried"}),
}


# Conditions: each takes the selection and its word --------------------------------------------------------------------


def _id(chosen: Selection, word: Word) -> Q:
    return Q(pk=ids.key_of(word.value))


def _begins(chosen: Selection, word: Word) -> Q:
    return _name(chosen, Word("name", f"{word.value}*"))


def _name(chosen: Selection, word: Word) -> Q:
    exact, prefixes = [], []
    for value in [word.value] if word.literal else word.value.split(","):
        if not word.literal and value.endswith("*"):
            prefixes.append(value[:-1])
        elif not word.literal and "*" in value:
            raise SearchError(_("%(value)s: a * can only stand at the end.") % {"value": value})
        else:
            exact.append(value)
    if prefixes and chosen.is_ledger:
        # No collation finds a beginning along an index, but the names there are, are few.
        exact += [name for name in dashboard.finished_names() if name.startswith(tuple(prefixes))]
        prefixes = []
    if not prefixes:
        chosen.only(exact)
    condition = Q(name__in=exact)
    for prefix in prefixes:
        condition |= Q(name__startswith=prefix)
    return condition


def _queue(chosen: Selection, word: Word) -> Q:
    return Q(queue__in=word.value.split(","))


def _state(chosen: Selection, word: Word) -> Q:
    wanted = [one.upper() for one in word.value.split(",")]
    here, there = states.UNFINISHED, states.FINISHED
    if chosen.is_ledger:
        here, there = there, here
    for one in wanted:
        if one in there:
            where = _("the task results") if one in states.FINISHED else _("the tasks")
            raise SearchError(_("%(state)s: these are in the list of %(list)s.") % {"state": one, "list": where})
        if one not in here:
            raise SearchError(
                _("%(state)s is no state; there are: %(states)s.") % {"state": one, "states": ", ".join(sorted(here))}
            )
    chosen.states = sorted(set(wanted) if chosen.states is None else set(wanted).intersection(chosen.states))
    if len(wanted) > 1:
        return Q(state__in=wanted)
    return Q(state=wanted[0]) & (Q() if chosen.is_ledger else IMPLIED.get(wanted[0], Q()))


def _worker(chosen: Selection, word: Word) -> Q:
    if chosen.is_ledger:
        return Q(worker=word.value)
    found = Worker.objects.using(reads_from()).filter(_by_then(chosen, "started_at"), name=word.value)
    found = found.order_by("-pk")
    return Q(worker_id__in=list(found.values_list("pk", flat=True)[:MOST_IDS]))


def _exception(chosen: Selection, word: Word) -> Q:
    if _CLASS.fullmatch(word.value) or not word.value:
        return Q(exception=word.value) | Q(exception__startswith=f"{word.value}:")
    prefix = word.value.removesuffix("*")
    if not _CLASS.fullmatch(prefix):
        _needs_payload(chosen)  # the message may quote arguments
    return Q(exception__startswith=prefix)


def _place(chosen: Selection, word: Word) -> Q:
    found = Q(result__startswith=own_code.beginning(word.value))
    return found if word.value else ~found


def _tag(chosen: Selection, word: Word) -> Q:
    return Q(pk__in=TaskTag.objects.using(reads_from()).filter(tag=word.value).values("task_id"))


def _root(chosen: Selection, word: Word) -> Q:
    key = ids.key_of(word.value)
    return Q(root_id=key) | Q(pk=key)


def _parent(chosen: Selection, word: Word) -> Q:
    return Q(parent_id=ids.key_of(word.value))


def _is(chosen: Selection, word: Word) -> Q:
    conditions = {
        "root": Q(root_id__isnull=True) | Q(root_id=F("pk")),
        "child": Q(parent_id__isnull=False),
        "retried": Q(retries__gt=0),
    }
    if word.value not in conditions:
        raise SearchError(
            _("is:%(value)s cannot be searched for; there are: %(values)s.")
            % {"value": word.value, "values": ", ".join(f"is:{one}" for one in conditions)}
        )
    return conditions[word.value]


def _group(chosen: Selection, word: Word) -> Q:
    # Anywhere else in the options there may be what a header holds.
    chosen.scan()
    quoted = json.dumps(word.value)
    return Q(options__contains=f'"group":[{quoted}') | Q(options__contains=f'"group": [{quoted}')


def _periodic(chosen: Selection, word: Word) -> Q:
    runs = PeriodicRun.objects.using(reads_from()).filter(_by_then(chosen, "created_at"), task_id__isnull=False)
    runs = runs.filter(periodic_task__name=word.value)
    return Q(pk__in=list(runs.order_by("-pk").values_list("task_id", flat=True)[:MOST_IDS]))


def _priority(chosen: Selection, word: Word) -> Q:
    return _compared("priority", word, below_zero=True)


def _tries(chosen: Selection, word: Word) -> Q:
    return _compared("attempt", word)


def _run(chosen: Selection, word: Word) -> Q:
    sign, number = _length(word)
    if chosen.is_ledger:
        return Q(**{f"runtime__{sign}": number})
    began = Q(**{f"started_at__{_BEFORE.get(sign, sign)}": chosen.at - timedelta(seconds=number)})
    return _state(chosen, Word("state", states.STARTED)) & began


def _wait(chosen: Selection, word: Word) -> Q:
    sign, number = _length(word)
    return Q(**{f"started_at__{sign}": F("due_at") + timedelta(seconds=number)})


def _since(chosen: Selection, word: Word) -> Q:
    return Q(**{f"{'finished_at' if chosen.is_ledger else 'created_at'}__gte": _moment(chosen, word)})


def _before(chosen: Selection, word: Word) -> Q:
    return Q(**{f"{'finished_at' if chosen.is_ledger else 'created_at'}__lt": _moment(chosen, word)})


def _args(chosen: Selection, word: Word) -> Q:
    _needs_payload(chosen)
    chosen.scan()
    return Q(body__contains=json.dumps(word.value, ensure_ascii=False)[1:-1]) & _hides_no_argument(chosen)


def _kwargs(chosen: Selection, word: Word) -> Q:
    """``word.key`` is the argument's name: its value may be written as JSON, or be a text."""
    _needs_payload(chosen)
    if is_secret(word.key):
        raise SearchError(_("What %(key)s is, is shown to nobody, so it cannot be searched for.") % {"key": word.key})
    chosen.scan()
    name, text = (re.escape(json.dumps(one, ensure_ascii=False)) for one in (word.key, word.value))
    found = Q(body__regex=f"{name}: ?({re.escape(word.value)}|{text})[],}}]")
    return found & _hides_no_argument(chosen)


def _result(chosen: Selection, word: Word) -> Q:
    _needs_payload(chosen)
    chosen.scan()
    found = Q(result__contains=json.dumps(word.value, ensure_ascii=False)[1:-1])
    return found & _has_no_secret_key(chosen, "result")


def _hides_no_argument(chosen: Selection) -> Q:
    """Return the condition that all of a call's arguments are shown to who may see them: to find a row by what is
    hidden in it would tell that. It follows what finds rows, as it costs more."""
    hiding = sorted(filter(hides_some, tasks))
    shown = ~Q(name__in=hiding) if hiding else Q()
    for said in ("sensitive", "argsrepr", "kwargsrepr"):
        shown &= ~Q(options__contains=f'"{said}":')
    return shown & _has_no_secret_key(chosen, "body")


def _has_no_secret_key(chosen: Selection, column: str) -> Q:
    chosen.pass_over_secrets()
    names = secret_names()
    return ~Q(**{f"{column}__iregex": f'"[^"]*({names})[^"]*" ?:'}) if names else Q()


#: By their keys, in the order in which people are told of them.
_CONDITIONS: Final[Mapping[str, Callable[[Selection, Word], Q]]] = {
    "id": _id,
    "begins": _begins,
    "name": _name,
    "queue": _queue,
    "state": _state,
    "worker": _worker,
    "exc": _exception,
    "at": _place,
    "tag": _tag,
    "root": _root,
    "parent": _parent,
    "group": _group,
    "is": _is,
    "periodic": _periodic,
    "prio": _priority,
    "try": _tries,
    "run": _run,
    "wait": _wait,
    "since": _since,
    "before": _before,
    "args": _args,
    "kwargs": _kwargs,
    "result": _result,
}
#: What a word without a key is read as.
_UNWRITTEN: Final = frozenset({"begins"})
#: What only a task that is done has.
_OF_RESULTS: Final = frozenset({"exc", "at", "wait", "result"})

#: What few rows fulfil, and an index finds: they are put in order afterwards.
_FEW: Final = frozenset({"id", "root", "tag", "periodic"})


# Values ---------------------------------------------------------------------------------------------------------------


def _compared(column: str, word: Word, *, below_zero: bool = False) -> Q:
    sign, number = _number(word, below_zero=below_zero)
    if number != int(number):
        raise SearchError(_("%(key)s:%(value)s needs a whole number.") % word._asdict())
    return Q(**{f"{column}__{sign}": int(number)})


def _number(word: Word, *, below_zero: bool = False) -> tuple[str, float]:
    found = _NUMBER.fullmatch(word.value)
    if found is None or (found["number"].startswith("-") and not below_zero):
        raise SearchError(_("%(key)s:%(value)s needs a number, such as >5 or <=2.5s.") % word._asdict())
    return _SIGNS[found["sign"]], float(found["number"]) * _SECONDS[found["unit"]]


def _length(word: Word) -> tuple[str, float]:
    sign, seconds = _number(word)
    if seconds > LONGEST:
        raise SearchError(_("%(key)s:%(value)s is longer than 95 years.") % word._asdict())
    return sign, seconds


def _moment(chosen: Selection, word: Word) -> datetime:
    if found := _AGE.fullmatch(word.value):
        try:
            return chosen.at - timedelta(**{_UNITS[found[2]]: int(found[1])})
        except OverflowError:
            pass
    try:
        moment = datetime.fromisoformat(word.value)
        return (moment if moment.tzinfo else timezone.make_aware(moment)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise SearchError(
            _("%(key)s:%(value)s needs an age (30m, 2h, 7d) or a moment (2026-01-31T12:00).") % word._asdict()
        ) from error


def _by_then(chosen: Selection, column: str) -> Q:
    return Q(**{f"{column}__lte": chosen.until}) if chosen.until is not None else Q()


def _needs_payload(chosen: Selection) -> None:
    if not chosen.full:
        raise SearchError(_("You may not see arguments and results, so you cannot search for them."))


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
