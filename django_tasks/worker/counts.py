"""What became of the tasks that a child ran, counted in memory that it shares with its supervisor.

Numbers only grow, and one thread of the child alone writes them: so the supervisor reads at any time without a lock,
takes the difference to what it read before, and what it missed is in the next difference.
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

from .. import states
from ..metrics.histogram import SIZE, bucket
from ..metrics.rows import NUMBERS, OUTCOMES

#: A queue and the name of a task.
Key = tuple[str, str]

#: Most keys of one child; what comes on top is counted under :data:`REST`.
CAPACITY: Final = 256
REST: Final[Key] = ("", "")

#: What of an attempt's state is counted: the place of its outcome among the numbers.
OUTCOME: Final = {
    states.SUCCESS: OUTCOMES.index("succeeded"),
    states.FAILURE: OUTCOMES.index("failed"),
    states.RETRY: OUTCOMES.index("retried"),
    **dict.fromkeys((states.REVOKED, states.IGNORED, states.REJECTED), OUTCOMES.index("other")),
}
_WAITS: Final = len(OUTCOMES)
_RUNS: Final = _WAITS + SIZE
_SECONDS: Final = _RUNS + SIZE
#: How many numbers there are of each key.
WIDTH: Final = _SECONDS + 2
assert len(NUMBERS) == WIDTH  # noqa: S101 - the same numbers in the same order

# How many keys there are, and by how many seconds the database's clock is ahead of this machine's.
_HEAD: Final = struct.Struct("=Qd")
_LENGTHS: Final = struct.Struct("=HH")
_KEY: Final = _LENGTHS.size + 4 * (64 + 255)
_KEYS_AT: Final = _HEAD.size
_NUMBERS_AT: Final = _KEYS_AT + CAPACITY * _KEY


class Counts:
    """One child's numbers."""

    def __init__(self) -> None:
        # Pages that nobody writes to take no memory.
        self._memory = mmap.mmap(-1, _NUMBERS_AT + (CAPACITY + 1) * WIDTH * 8)
        numbers = memoryview(self._memory)[_NUMBERS_AT:]
        self._integers, self._floats = numbers.cast("q"), numbers.cast("d")
        self._places: dict[Key, int] = {REST: 0}

    # The child writes

    def add(self, key: Key, state: str, *, due: float, ended: float, seconds: float, runtime: float | None) -> None:
        """An attempt took ``seconds`` and ended at ``ended`` (seconds since 1970, this machine's clock).

        It was due at ``due`` by the database's clock. What was given back unrun does not count.
        """
        outcome = OUTCOME.get(state)
        if outcome is None:
            return
        place = self._places.get(key)
        if place is None:
            place = self._place(key)
        integers, floats = self._integers, self._floats
        integers[place + outcome] += 1
        if runtime is None:
            if state != states.RETRY:  # it did not run
                return
            runtime = seconds
        waited = ended - seconds + _HEAD.unpack_from(self._memory)[1] - due
        if waited < 0.0:
            waited = 0.0
        integers[place + _WAITS + bucket(waited)] += 1
        integers[place + _RUNS + bucket(runtime)] += 1
        floats[place + _SECONDS] += waited
        floats[place + _SECONDS + 1] += runtime

    def _place(self, key: Key) -> int:
        number = len(self._places)
        queue, name = (text.encode(errors="replace") for text in key)
        if number > CAPACITY or _LENGTHS.size + len(queue) + len(name) > _KEY:
            return 0
        at = _KEYS_AT + (number - 1) * _KEY
        _LENGTHS.pack_into(self._memory, at, len(queue), len(name))
        at += _LENGTHS.size
        self._memory[at : at + len(queue) + len(name)] = queue + name
        place = self._places[key] = number * WIDTH
        struct.pack_into("=Q", self._memory, 0, number)
        return place

    # The supervisor reads, and tells the time

    def tell_skew(self, seconds: float) -> None:
        """The database's clock is so many seconds ahead of this machine's."""
        struct.pack_into("=d", self._memory, 8, seconds)

    def read(self) -> dict[Key, list[float]]:
        """Return the numbers since the child began, in the order of :data:`~django_tasks.metrics.rows.NUMBERS`."""
        found = {REST: self._numbers(0)}
        for number in range(1, _HEAD.unpack_from(self._memory)[0] + 1):
            at = _KEYS_AT + (number - 1) * _KEY
            queue, name = _LENGTHS.unpack_from(self._memory, at)
            at += _LENGTHS.size
            text = self._memory[at : at + queue + name]
            found[text[:queue].decode(), text[queue:].decode()] = self._numbers(number * WIDTH)
        return found

    def _numbers(self, place: int) -> list[float]:
        integers: list[float] = list(self._integers[place : place + _SECONDS])
        return integers + self._floats[place + _SECONDS : place + WIDTH].tolist()
