"""What a worker was told while it runs, in memory that its children share: queues, and time limits by task."""

from __future__ import annotations

import json
import mmap
import struct
import threading
from collections.abc import Mapping
from typing import Any

from ..backends.base import Queues
from ..time_limits import TimeLimits

#: Bytes of JSON that fit.
SIZE = 65_536
_HEAD = struct.Struct("=QI")  # how often it was written, length

_NOTHING: Mapping[str, Any] = {"limits": {}, "added": [], "cancelled": [], "quiet": False}


class Board:
    """Written by the supervisor, from any of its threads; read by children, between tasks."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _HEAD.size + SIZE)
        self._lock = threading.Lock()
        self._said = dict(_NOTHING)

    @property
    def version(self) -> int:
        """A number that changes with every change."""
        return int(_HEAD.unpack_from(self._memory, 0)[0])

    def limit(self, name: str, limits: TimeLimits) -> None:
        """The task of this name has these limits from now on. Raises ``ValueError`` when too much was said."""
        self._write(limits={**self._said["limits"], name: list(limits)})

    def add(self, queue: str) -> None:
        """This queue is consumed from now on."""
        cancelled = [one for one in self._said["cancelled"] if one != queue]
        self._write(added=sorted({*self._said["added"], queue}), cancelled=cancelled)

    def cancel(self, queue: str) -> None:
        """It is not any more."""
        added = [one for one in self._said["added"] if one != queue]
        self._write(added=added, cancelled=sorted({*self._said["cancelled"], queue}))

    def quiet(self, quiet: bool) -> None:
        """Nothing is consumed from now on; or again what was."""
        self._write(quiet=quiet)

    def limits(self) -> Mapping[str, TimeLimits]:
        """Return the limits that were said, by task."""
        return {name: TimeLimits(*pair) for name, pair in self._read()["limits"].items()}

    def queues(self, own: Queues) -> Queues | None:
        """Return what is consumed by what began with ``own``; ``None`` for nothing at all."""
        said = self._read()
        if said["quiet"]:
            return None
        added, cancelled = said["added"], frozenset(said["cancelled"])
        excluded = (own.excluded - frozenset(added)) | cancelled
        if not own.names:
            return Queues((), excluded)
        names = tuple(name for name in dict.fromkeys((*own.names, *added)) if name not in excluded)
        return Queues(names, own.excluded - frozenset(added)) if names else None

    def _write(self, **said: Any) -> None:
        with self._lock:
            new = {**self._said, **said}
            text = json.dumps(new).encode()
            if len(text) > SIZE:
                raise ValueError(f"The worker was told {len(text):,} bytes of limits and queues; it can keep {SIZE:,}")
            self._said = new
            # The version last: who sees it sees the text, and who reads before it reads again.
            self._memory[_HEAD.size : _HEAD.size + len(text)] = text
            _HEAD.pack_into(self._memory, 0, self.version + 1, len(text))

    def _read(self) -> dict[str, Any]:
        while True:
            head = version, length = _HEAD.unpack_from(self._memory, 0)
            if not version:
                return dict(_NOTHING)
            text = self._memory[_HEAD.size : _HEAD.size + length]
            if head == _HEAD.unpack_from(self._memory, 0):
                try:
                    found: dict[str, Any] = json.loads(text)
                except ValueError:
                    continue  # read while it was written
                return found
