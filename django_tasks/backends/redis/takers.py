"""How a process that has nothing to do is handed its next task."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Sequence
from typing import NamedTuple

from ...exceptions import OperationalError
from ..base import Handed, Queues, Taker
from ..message import Holder
from .stepping import Stepping

#: Seconds after which a wait is told again to end: the first time it may not have begun.
AGAIN = 0.01


class _Asked(NamedTuple):
    holder: Holder
    queues: Queues
    unknown: Sequence[str]
    #: The queues from which the step takes.
    names: list[str]


class RedisTaker(Taker):
    """Waits for a token on a connection of its own, with the step that takes a task sent behind it: Redis does that as
    soon as the wait ends, so it costs no round trip, and no process but this one has to wake up.

    The step takes nothing for a worker without a lease: the connection of a machine that is cut off may last for long.
    """

    def __init__(self, broker: Stepping) -> None:
        self._broker = broker
        self._server = broker.server
        self._new = self._server.shared("new")
        self._asked: _Asked | None = None
        self._step = self._server.digest("step")
        self._connection = self._server.connection()
        with self._server.telling():
            self._connection.send_command("CLIENT", "ID")
            self._number = int(self._connection.read_response())

    def fileno(self) -> int:
        return int(self._connection._sock.fileno())

    def ask(self, holder: Holder, queues: Queues, unknown: Sequence[str]) -> bool:
        leases = self._broker.leases
        names = leases.of(queues, fresh=True)
        tokens = [f"{self._server.queue(name)}:k" for name in names]
        if not queues.names:
            tokens.append(self._new)
        if not tokens:
            return False
        self._asked = _Asked(holder, queues, unknown, self._broker.not_paused(names))
        step = leases.step_ahead(self._asked.names, worker=holder.worker, slot=holder.slot, unknown=unknown)
        with self._server.telling():
            both = self._connection.pack_commands([("BLPOP", *tokens, 0), ("EVALSHA", self._step, *step)])
            self._connection.send_packed_command(both)
        return True

    def answer(self) -> Handed:
        assert self._asked is not None  # noqa: S101 - by the contract
        asked, self._asked = self._asked, None
        ended = self._is_readable(0.0)
        if not ended:
            self._end()
        with self._server.telling():
            token = self._connection.read_response(disable_decoding=True)
            found = self._connection.read_response(disable_decoding=True)
        new_queue = token is not None and token[0] == self._new.encode()
        if new_queue:
            self._broker.leases.names(fresh=True)
        deliveries = self._broker.take_ahead(
            found, asked.names, holder=asked.holder, queues=asked.queues, unknown=asked.unknown
        )
        if token is not None and not ended and not deliveries:  # who is told to do something else hands it on
            self._server.many([("RPUSH", token[0], b"1"), ("LTRIM", token[0], 0, 0)])
        return Handed(deliveries, ended and new_queue)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.disconnect()

    def _end(self) -> None:
        """End the wait."""
        until = time.monotonic() + self._server.timeout
        while True:
            self._server.command("CLIENT", "UNBLOCK", self._number)
            if self._is_readable(AGAIN):
                return
            if time.monotonic() > until:
                raise OperationalError(f"{self._server.name} does not end a wait")

    def _is_readable(self, seconds: float) -> bool:
        return bool(select.select([self], [], [], seconds)[0])
