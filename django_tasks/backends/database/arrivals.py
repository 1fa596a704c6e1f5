"""Storing what is not simply stored: calls that a limit counts, unique ones, and tagged ones.

Everything happens on the caller's own connection, in its transaction. That a key is unique is the business of an index;
the rest only decides what to do when it says no. Whoever sends is held up while another transaction that sent the same
has not ended, and then sees what became of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db import connections, transaction

from ... import states
from ...exceptions import AlreadyEnqueued
from ...ids import dashed
from ..message import Message, Unique
from .dialect import TASK, Dialect

PERIOD = "django_tasks_uniqueperiod"
TAG = "django_tasks_tasktag"

#: Rows per INSERT.
CHUNK = 100
#: How often a call is looked at anew because the one that was in its way has just gone.
TRIES = 10

_COLUMNS = (
    "id, custom_id, name, queue, priority, created_at, due_at, expires_at, body, encoding, options, at_most_once,"
    " root_id, parent_id, attempt, retries, losses, awaited, state, limit_key, unique_key"
)


class There(NamedTuple):
    """A call that is in the way of another one."""

    key: str
    id: str
    custom_id: str | None
    state: str


class Arrivals:
    """Stores such messages in one database."""

    def __init__(self, alias: str, dialect: Dialect) -> None:
        self._alias = alias
        self._dialect = dialect
        self.moment = dialect.moment

    def store(self, messages: Sequence[Message]) -> None:
        """Store messages, all or none, in the caller's transaction. Raises ``AlreadyEnqueued``."""
        with transaction.atomic(using=self._alias), connections[self._alias].cursor() as cursor:
            self.insert(cursor, [one for one in messages if one.unique is None])
            alike = [one for one in messages if one.unique is not None]
            # In one order for all: two transactions with the same calls do not wait for each other.
            for one in sorted(alike, key=lambda one: one.unique.key if one.unique else ""):
                self._store_unique(cursor, one)
            self._tag(cursor, [one for one in alike if not one.conflict])

    def insert(self, cursor: Any, messages: Sequence[Message]) -> None:
        """Store messages of which none is unique, in the cursor's transaction."""
        for start in range(0, len(messages), CHUNK):
            self._insert(cursor, messages[start : start + CHUNK])
        self._tag(cursor, messages)

    def _tag(self, cursor: Any, messages: Sequence[Message]) -> None:
        tags = [(tag, self._key(one.id)) for one in messages for tag in dict.fromkeys(one.tags)]
        for start in range(0, len(tags), CHUNK):
            some = tags[start : start + CHUNK]
            marks = ", ".join([f"(%s, {self._dialect.uuid})"] * len(some))
            cursor.execute(
                f"INSERT INTO {TAG} (tag, task_id) VALUES {marks} {self._dialect.unless_there(TAG, 'tag')}",
                [value for pair in some for value in pair],
            )

    def _insert(self, cursor: Any, messages: Sequence[Message], *, unique_key: str | None = None) -> None:
        """Store messages; what any unique column finds there already stays as it is."""
        dialect = self._dialect
        id_ = dialect.uuid
        typed = "::timestamptz" if dialect.is_typed else ""
        moment = f"coalesce(%s{typed}, {dialect.later})"
        row = (
            f"({id_}, %s, %s, %s, %s, {dialect.now}, {moment}, {moment}, %s, %s, %s, %s, {id_}, {id_}, 0, 0, 0, %s, %s,"
            " %s, %s)"
        )
        params = [value for one in messages for value in self._values(one, unique_key)]
        rows = ", ".join([row] * len(messages))
        cursor.execute(f"INSERT INTO {TASK} ({_COLUMNS}) VALUES {rows} {dialect.unless_there(TASK, 'id')}", params)

    def _values(self, one: Message, unique_key: str | None) -> list[Any]:
        delay = one.delay
        if one.unique is not None and one.unique.debounce is not None:
            delay = float(one.unique.debounce)
        return [
            self._key(one.id),
            one.custom_id,
            one.name,
            one.queue,
            one.priority,
            one.eta and self.moment(one.eta),
            delay,
            one.expires_at and self.moment(one.expires_at),
            one.expires_in,
            one.body,
            one.encoding,
            one.options,
            one.at_most_once,
            one.root_id and self._key(one.root_id),
            one.parent_id and self._key(one.parent_id),
            False,
            states.WAITING if one.waiting else states.PENDING if one.limit_key is None else states.LIMITED,
            one.limit_key,
            unique_key,
        ]

    # One of a kind

    def _store_unique(self, cursor: Any, one: Message) -> None:
        unique = one.unique
        assert unique is not None  # noqa: S101 - the caller chose those that have one
        if unique.period is not None:
            self._store_for_a_period(cursor, one, unique)
            return
        for _ in range(TRIES):
            there = self._there(cursor, unique)
            waiting = next((each for each in there.values() if each.state != states.STARTED), None)
            running = next((each for each in there.values() if each.state == states.STARTED), None)
            if waiting is not None:
                if self._meet(cursor, one, unique, waiting):
                    return
            elif running is None:
                if self._take(cursor, one, unique.key):
                    return
            elif unique.until_start:
                # It has started, so it is in nobody's way any more.
                cursor.execute(
                    f"UPDATE {TASK} SET unique_key = NULL WHERE id = {self._dialect.uuid} AND unique_key = %s",
                    [self._key(running.id), running.key],
                )
            elif unique.on_conflict in ("again", "replace"):
                # One more after the one that runs, and at most one.
                one.limit_key = one.limit_key or ""
                if self._take(cursor, one, _other(running.key)):
                    return
            elif self._meet(cursor, one, unique, running):
                return
        raise RuntimeError(f"{one.name} could not be stored as a unique task: those like it come and go too quickly")

    def _there(self, cursor: Any, unique: Unique) -> dict[str, There]:
        """Return the calls like it that are not done, by their keys; locked, as long as the caller's transaction
        lasts."""
        cursor.execute(
            f"SELECT unique_key, id, custom_id, state FROM {TASK} WHERE unique_key IN (%s, %s){self._dialect.lock}",
            [unique.key, _other(unique.key)],
        )
        rows = [There(key, dashed(id_), custom_id, state) for key, id_, custom_id, state in cursor.fetchall()]
        return {row.key: row for row in rows}

    def _take(self, cursor: Any, one: Message, key: str) -> bool:
        """Store it under a key; False if another one was quicker."""
        self._insert(cursor, [one], unique_key=key)
        cursor.execute(f"SELECT id FROM {TASK} WHERE unique_key = %s{self._dialect.lock}", [key])
        row = cursor.fetchone()
        if row is None:  # the id is there already, under another key
            return self._is_stored(cursor, one)
        return dashed(row[0]) == one.id

    def _is_stored(self, cursor: Any, one: Message) -> bool:
        cursor.execute(f"SELECT 1 FROM {TASK} WHERE id = {self._dialect.uuid}", [self._key(one.id)])
        return cursor.fetchone() is not None

    def _meet(self, cursor: Any, one: Message, unique: Unique, there: There) -> bool:
        """Do what is to be done about one that is there; False if it has just gone."""
        if unique.on_conflict == "raise":
            raise AlreadyEnqueued(one.name, there.custom_id or there.id)
        replaces = there.state != states.STARTED and (unique.on_conflict == "replace" or unique.debounce is not None)
        if replaces and not self._replace(cursor, one, unique, there):
            return False
        one.id, one.custom_id, one.conflict = there.id, there.custom_id, True
        return True

    def _replace(self, cursor: Any, one: Message, unique: Unique, there: There) -> bool:
        """Put the new call in the place of one that waits, under that one's id."""
        dialect = self._dialect
        sets = ["body = %s", "encoding = %s", "options = %s", "queue = %s", "priority = %s"]
        params: list[Any] = [one.body, one.encoding, one.options, one.queue, one.priority]
        typed = "::timestamptz" if dialect.is_typed else ""
        if unique.debounce is None:
            sets.append(f"due_at = coalesce(%s{typed}, {dialect.later})")
            params += [one.eta and self.moment(one.eta), one.delay]
        elif unique.debounce_max is None:
            sets.append(f"due_at = {dialect.later}")
            params.append(float(unique.debounce))
        else:
            latest = dialect.since("created_at")
            sets.append(f"due_at = CASE WHEN {dialect.later} < {latest} THEN {dialect.later} ELSE {latest} END")
            params += [float(unique.debounce), float(unique.debounce_max)] * 2
        sets.append(f"expires_at = coalesce(%s{typed}, {dialect.later})")
        params += [one.expires_at and self.moment(one.expires_at), one.expires_in]
        if one.limit_key:
            sets.append("limit_key = CASE WHEN limit_key IS NULL THEN NULL ELSE %s END")
            params.append(one.limit_key)
        cursor.execute(
            f"UPDATE {TASK} SET {', '.join(sets)} WHERE id = {dialect.uuid} AND state <> 'STARTED'",
            [*params, self._key(there.id)],
        )
        return bool(cursor.rowcount)

    def _store_for_a_period(self, cursor: Any, one: Message, unique: Unique) -> None:
        dialect = self._dialect
        mine = [self._key(one.id), one.custom_id, float(unique.period or 0.0)]
        cursor.execute(
            f"INSERT INTO {PERIOD} (task_id, custom_id, until_at, unique_key) VALUES ({dialect.uuid}, %s,"
            f" {dialect.later}, %s) {dialect.unless_there(PERIOD, 'task_id')}",
            [*mine, unique.key],
        )
        # Whoever comes second waits here, if not there, until the first one's transaction has ended.
        cursor.execute(
            f"SELECT task_id, custom_id, CASE WHEN until_at > {dialect.now} THEN 1 ELSE 0 END FROM {PERIOD}"
            f" WHERE unique_key = %s{dialect.lock}",
            [unique.key],
        )
        id_, custom_id, holds = cursor.fetchone()
        if dashed(id_) != one.id:
            there = There(unique.key, dashed(id_), custom_id, states.STARTED)
            if holds:
                self._meet(cursor, one, unique, there)
                return
            cursor.execute(
                f"UPDATE {PERIOD} SET task_id = {dialect.uuid}, custom_id = %s, until_at = {dialect.later}"
                " WHERE unique_key = %s",
                [*mine, unique.key],
            )
        self._insert(cursor, [one])

    def _key(self, task_id: str) -> str:
        return self._dialect.key(task_id)


def _other(key: str) -> str:
    """Return the other one of the two keys that calls of one kind may have at a time."""
    return key[1:] if key.startswith("+") else f"+{key}"
