"""What a child does right now, in memory that it shares with its supervisor.

A child writes before each task, the supervisor reads: so a dead child's running task is known exactly, and a long one
is seen even when the child's interpreter is blocked. The child alone writes; a reader reads until two reads agree.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from ..backends.message import Claim, Delivery

#: Most claims that one child may hold.
CAPACITY = 512

# Index of the running task or -1, number of claims, its attempt, monotonic start; its time limit or 0, monotonic end.
_HEAD = struct.Struct("=iiiddd")
_LIMIT = struct.Struct("=dd")
_COUNT = struct.Struct("=Q")  # tasks run since the child began
_BEAT = struct.Struct("=d")  # monotonic time of the child's last sign of life
_LIMIT_AT = _HEAD.size - _LIMIT.size
_COUNT_AT = _HEAD.size
_BEAT_AT = _COUNT_AT + _COUNT.size
_CLAIM = struct.Struct("=16si")
_CLAIMS_AT = _BEAT_AT + _BEAT.size
_SIZE = _CLAIMS_AT + _CLAIM.size * CAPACITY


class Running(NamedTuple):
    """A task that a child runs, since a moment of ``time.monotonic()``; its hard time limit in seconds, 0 for none, and
    the moment when that has passed."""

    id: str
    attempt: int
    since: float
    limit: float = 0.0
    deadline: float = 0.0


class Window(Protocol):
    """What a supervisor sees of any child."""

    def count(self, processed: int) -> None:
        """So many tasks were run. The child writes."""

    def beat(self) -> None:
        """The child lives. It writes."""

    @property
    def processed(self) -> int:
        """Tasks run since the child began."""

    @property
    def silent_for(self) -> float:
        """Seconds since the child's last sign of life."""

    @property
    def busy(self) -> bool:
        """Does anything run?"""

    def runs(self) -> list[Running]:
        """What runs."""

    def unstarted(self, longer_than: float = 0.0) -> list[Claim]:
        """What is claimed, and has waited behind others for more than so many seconds."""

    def begun(self) -> list[Claim]:
        """What has begun, its outcome not stored; more than that where it is not known exactly."""


class Slot:
    """One child's window, for one task at a time."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _SIZE)
        self.clear()

    # The child writes

    def clear(self) -> None:
        """Nothing is held."""
        _HEAD.pack_into(self._memory, 0, -1, 0, 0, 0.0, 0.0, 0.0)
        self.beat()

    def load(self, deliveries: Sequence[Delivery]) -> None:
        """These are held now; none runs yet."""
        claims = b"".join([_CLAIM.pack(bytes.fromhex(one.id.replace("-", "")), one.attempt) for one in deliveries])
        _HEAD.pack_into(self._memory, 0, -1, len(deliveries), 0, 0.0, 0.0, 0.0)
        self._memory[_CLAIMS_AT : _CLAIMS_AT + len(claims)] = claims

    def start(self, index: int, held: int, attempt: int) -> None:
        """The claim at ``index`` runs from now on."""
        _HEAD.pack_into(self._memory, 0, index, held, attempt, time.monotonic(), 0.0, 0.0)

    def limit(self, seconds: float | None) -> None:
        """The running task has so many seconds from now; ``None``: what it may take is no more counted."""
        seconds = seconds or 0.0
        _LIMIT.pack_into(self._memory, _LIMIT_AT, seconds, time.monotonic() + seconds)

    def stop(self, held: int) -> None:
        """No task runs."""
        _HEAD.pack_into(self._memory, 0, -1, held, 0, 0.0, 0.0, 0.0)

    def count(self, processed: int) -> None:
        """So many tasks were run."""
        _COUNT.pack_into(self._memory, _COUNT_AT, processed)

    def beat(self) -> None:
        """The child lives."""
        _BEAT.pack_into(self._memory, _BEAT_AT, time.monotonic())

    # The supervisor reads

    @property
    def processed(self) -> int:
        """Tasks run since the child began."""
        return int(_COUNT.unpack_from(self._memory, _COUNT_AT)[0])

    @property
    def silent_for(self) -> float:
        """Seconds since the child's last sign of life."""
        return time.monotonic() - float(_BEAT.unpack_from(self._memory, _BEAT_AT)[0])

    def running(self) -> Running | None:
        """The task that runs, if one does."""
        index, _, attempt, since, limit, deadline, id_ = self._read()
        return Running(str(UUID(bytes=id_)), attempt, since, limit, deadline) if index >= 0 else None

    def runs(self) -> list[Running]:
        """What runs: one task, or none."""
        running = self.running()
        return [] if running is None else [running]

    @property
    def busy(self) -> bool:
        """Does a task run?"""
        return bool(_HEAD.unpack_from(self._memory, 0)[0] >= 0)

    def unstarted(self, longer_than: float = 0.0) -> list[Claim]:
        """The claims behind one that has run for more than so many seconds; empty when none runs."""
        index, held, _, since, *_ = self._read()
        if index < 0 or time.monotonic() - since < longer_than:
            return []
        return self._claims(index + 1, held)

    def begun(self) -> list[Claim]:
        """The claims up to the running one; between tasks all, since it is not known which of them ran."""
        index, held, *_ = self._read()
        return self._claims(0, index + 1 if index >= 0 else held)

    def _claims(self, first: int, end: int) -> list[Claim]:
        packed = self._memory[_CLAIMS_AT + _CLAIM.size * first : _CLAIMS_AT + _CLAIM.size * end]
        return [(str(UUID(bytes=id_)), attempt) for id_, attempt in _CLAIM.iter_unpack(packed)]

    def _read(self) -> tuple[int, int, int, float, float, float, bytes]:
        while True:
            head = _HEAD.unpack_from(self._memory, 0)
            at = _CLAIMS_AT + _CLAIM.size * max(head[0], 0)
            id_ = self._memory[at : at + 16]
            if head == _HEAD.unpack_from(self._memory, 0):
                return (*head, id_)
