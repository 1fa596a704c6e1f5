"""What a child with many tasks at a time does right now, in memory that it shares with its supervisor.

The counterpart of :class:`~django_tasks.worker.slots.Slot`: an entry for each claim instead of one place for the batch.
Each entry has one writer at a time; a reader reads until two reads agree.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Collection, Iterator
from uuid import UUID

from ..backends.message import Claim, Delivery
from .slots import Running

# Tasks run since the child began, claims that it holds, monotonic time of its last sign of life.
_HEAD = struct.Struct("=QQd")
_NUMBER = struct.Struct("=Q")
_HELD_AT = _NUMBER.size
_BEAT = struct.Struct("=d")
_BEAT_AT = _HEAD.size - _BEAT.size
# State, id, attempt; monotonic time of the claim, of the start, hard time limit in seconds or 0, monotonic deadline.
_ENTRY = struct.Struct("=i16sidddd")
_Entry = tuple[int, bytes, int, float, float, float, float]
_FREE, _CLAIMED, _RUNS, _ENDED = range(4)
_NOTHING = (_FREE, bytes(16), 0, 0.0, 0.0, 0.0, 0.0)


class Roster:
    """One child's window, with room for ``capacity`` claims."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._memory = mmap.mmap(-1, _HEAD.size + _ENTRY.size * capacity)
        self._free = list(range(capacity - 1, -1, -1))
        self.beat()

    # The child writes; add() and remove() in one thread only

    @property
    def room(self) -> int:
        """For how many more claims there is a place."""
        return len(self._free)

    def add(self, delivery: Delivery) -> int:
        """This is claimed; return its index."""
        index = self._free.pop()
        self._tell_held()
        id_ = bytes.fromhex(delivery.id.replace("-", ""))
        self._write(index, _CLAIMED, id_, delivery.attempt, time.monotonic(), 0.0, 0.0, 0.0)
        return index

    def start(self, index: int) -> None:
        """It runs from now on."""
        entry = self._entry(index)
        self._write(index, _RUNS, *entry[1:4], time.monotonic(), 0.0, 0.0)

    def limit(self, index: int, seconds: float | None, grace: float = 0.0) -> None:
        """It has so many seconds from now, and ``grace`` to end of itself; ``None``: nobody counts."""
        seconds = seconds or 0.0
        self._write(index, *self._entry(index)[:5], seconds, time.monotonic() + seconds + grace)

    def end(self, index: int) -> None:
        """It has run; its outcome is not stored yet."""
        self._write(index, _ENDED, *self._entry(index)[1:])

    def remove(self, index: int) -> None:
        """It is not held any more."""
        self._write(index, *_NOTHING)
        self._free.append(index)
        self._tell_held()

    def count(self, processed: int) -> None:
        """So many tasks were run."""
        _NUMBER.pack_into(self._memory, 0, processed)

    def beat(self) -> None:
        """The child lives."""
        _BEAT.pack_into(self._memory, _BEAT_AT, time.monotonic())

    # The supervisor reads

    @property
    def processed(self) -> int:
        """Tasks run since the child began."""
        return int(_HEAD.unpack_from(self._memory, 0)[0])

    @property
    def silent_for(self) -> float:
        """Seconds since the child's last sign of life."""
        return time.monotonic() - float(_BEAT.unpack_from(self._memory, _BEAT_AT)[0])

    @property
    def busy(self) -> bool:
        """Is anything held?"""
        return bool(_NUMBER.unpack_from(self._memory, _HELD_AT)[0])

    def runs(self) -> list[Running]:
        """What runs."""
        return [Running(_text(one[1]), one[2], *one[4:]) for one in self._entries() if one[0] == _RUNS]

    def unstarted(self, longer_than: float = 0.0) -> list[Claim]:
        """The claims that have waited in the child for more than so many seconds."""
        before = time.monotonic() - longer_than
        return [(_text(one[1]), one[2]) for one in self._last() if one[0] == _CLAIMED and one[3] < before]

    def begun(self) -> list[Claim]:
        """What runs, or has run without its outcome being stored."""
        return [(_text(one[1]), one[2]) for one in self._last() if one[0] in (_RUNS, _ENDED)]

    def _tell_held(self) -> None:
        _NUMBER.pack_into(self._memory, _HELD_AT, self.capacity - len(self._free))

    def _last(self) -> Collection[_Entry]:
        """Return the last claim of each task: one that was claimed again is no more held by the attempt before."""
        return {one[1]: one for one in sorted(self._entries(), key=lambda one: one[2])}.values()

    def _entries(self) -> Iterator[_Entry]:
        for index in range(self.capacity):
            if struct.unpack_from("=i", self._memory, _HEAD.size + _ENTRY.size * index)[0] != _FREE:
                yield self._entry(index)

    def _entry(self, index: int) -> _Entry:
        at = _HEAD.size + _ENTRY.size * index
        while True:
            entry = _ENTRY.unpack_from(self._memory, at)
            if entry == _ENTRY.unpack_from(self._memory, at):
                return entry

    def _write(self, index: int, *entry: int | float | bytes) -> None:
        _ENTRY.pack_into(self._memory, _HEAD.size + _ENTRY.size * index, *entry)


def _text(id_: bytes) -> str:
    return str(UUID(bytes=id_))
