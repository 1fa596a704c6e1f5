"""How a task is written in Redis: an entry, which scripts read only the beginning of, and a lease.

``scripts/common.lua`` has the grammar of both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from ..database.dialect import dump
from ..message import Delivery, Message

#: There is a row in the database; there is none; the row is asked before each start; a sweeper published it; it waits
#: for its next attempt.
DURABLE, VOLATILE, TRACKED, SWEPT, RETRIED = "d", "v", "t", "s", "r"

#: What is left out at the end of an entry.
_PLAIN: tuple[Any, ...] = (None, "", None, None, False, None, None, 0, 0, None, None, None)

try:
    import orjson

    loads: Any = orjson.loads
except ImportError:
    loads = json.loads


class Lease(NamedTuple):
    """A claim as Redis knows it; ``due`` as it was written."""

    slot: int
    attempt: int
    priority: int
    due: str
    flags: str

    @classmethod
    def read(cls, text: bytes) -> Lease:
        """Return what a script wrote."""
        slot, attempt, priority, due, flags = text.decode().split(" ")
        return cls(int(slot), int(attempt), int(priority), due, flags)

    @property
    def durable(self) -> bool:
        """Is there a row?"""
        return DURABLE in self.flags


def key(task_id: str) -> bytes:
    """Return an id as Redis keeps it."""
    return bytes.fromhex(task_id.replace("-", ""))


def name_of(key: bytes) -> str:
    """Return the id that :func:`key` was given."""
    text = key.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def entry_of(message: Message, flags: str) -> bytes:
    """Write a message as it is sent."""
    rest = [
        message.body,
        message.encoding,
        message.custom_id,
        message.options,
        message.at_most_once,
        message.root_id,
        message.parent_id,
        0,
        0,
        None,
        message.expires_in,
        _epoch(message.expires_at),
    ]
    return write(flags, 0, message.priority, message.name, rest)


def entry_of_delivery(one: Delivery, flags: str, *, attempt: int, expires_at: float | None) -> bytes:
    """Write a task that was delivered before and waits again; ``attempt`` is the last one that was begun."""
    rest = [
        one.body,
        one.encoding,
        one.custom_id,
        one.options,
        one.at_most_once,
        one.root_id,
        one.parent_id,
        one.retries,
        one.losses,
        one.history,
        None,
        expires_at,
    ]
    return write(flags, attempt, one.priority, one.name, rest)


def write(flags: str, attempt: int, priority: int, name: str, rest: Sequence[Any]) -> bytes:
    """Write an entry but for its first word, which the server adds."""
    rest = list(rest)
    while len(rest) > 1 and rest[-1] == _PLAIN[len(rest) - 1]:
        del rest[-1]
    label = name.encode()
    return b"%s %d %d %d %s%s" % (flags.encode(), attempt, priority, len(label), label, dump(rest).encode())


class Entry(NamedTuple):
    """An entry in full; moments in seconds since 1970."""

    published: float
    flags: str
    attempt: int
    priority: int
    name: str
    rest: list[Any]

    @classmethod
    def read(cls, text: bytes) -> Entry:
        """Return what :func:`write` wrote and the server completed."""
        published, flags, attempt, priority, length, rest = text.split(b" ", 5)
        size = int(length)
        values = loads(rest[size:])
        if len(values) < len(_PLAIN):
            values += _PLAIN[len(values) :]
        return cls(float(published), flags.decode(), int(attempt), int(priority), rest[:size].decode(), values)

    @property
    def expires_at(self) -> float | None:
        """When it expires."""
        expires_in, expires_at = self.rest[10:12]
        return expires_at if expires_in is None else self.published + expires_in  # type: ignore[no-any-return]

    def delivery(self, task_id: str, queue: str, due: float, now: float, attempt: int) -> Delivery:
        """Return it as a delivery; ``now`` by the server's clock."""
        body, encoding, custom_id, options, at_most_once, root_id, parent_id, retries, losses, history = self.rest[:10]
        found = Delivery(task_id, attempt, self.name, queue, self.priority, body, encoding, custom_id, options)
        found.due = due
        if retries or losses or history or at_most_once or root_id or parent_id:
            found.retries, found.losses, found.history = retries, losses, history
            found.at_most_once, found.root_id, found.parent_id = at_most_once, root_id, parent_id
        if (expires_at := self.expires_at) is not None:
            found.expires_in = expires_at - now
        return found


def _epoch(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
