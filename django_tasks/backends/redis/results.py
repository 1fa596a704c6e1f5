"""Reading what became of a task when Redis carries it: the row may not know yet that it runs, or there is none."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

from ... import states
from ...exceptions import OperationalError
from ...ids import key_of
from ..results import DatabaseResults, Record, _last_error, _last_traceback

if TYPE_CHECKING:
    from .broker import RedisBroker
    from .leases import Place

logger = logging.getLogger(__name__)


class RedisResults(DatabaseResults):
    """The to-do list and the ledger, and beside them what Redis says of who runs what.

    When Redis does not answer, what the database says is told.
    """

    def read(self, task_id: str) -> Record | None:
        record = super().read(task_id)
        if record is not None and record.state not in (states.PENDING, states.RETRY):
            return record
        place = self._place(task_id, None if record is None else record.queue)
        if place is None:
            # It may have ended in between.
            return super().read(task_id) if record is None else record
        if record is None and not place.durable:
            return self.read_ended(task_id) or _record(place)
        if record is not None and place.lease is not None and place.lease.attempt == record.attempt + 1:
            record.state, record.attempt = states.STARTED, place.lease.attempt
            record.result = record.traceback = None
        return record

    def _place(self, task_id: str, queue: str | None) -> Place | None:
        """Return where it is, in the queue that its row names; without a row it may be in any."""
        from .. import get_broker

        leases, key = cast("RedisBroker", get_broker(self.alias)).leases, key_of(task_id)
        try:
            return leases.look([key], None if queue is None else [queue], avoid=True).get(key)
        except OperationalError as error:
            logger.warning("%s. What is told of task %s may be out of date", error, task_id)
            return None


def _record(place: Place) -> Record:
    call = place.entry.delivery(place.id, place.queue, 0.0, 0.0, place.entry.attempt)
    state = place.state
    return Record(
        task_id=call.task_id,
        state=state,
        name=call.name,
        queue=call.queue,
        body=call.body,
        encoding=call.encoding,
        retries=call.retries,
        attempt=place.lease.attempt if place.lease is not None else place.entry.attempt,
        result=_last_error(call.history) if state == states.RETRY else None,
        traceback=_last_traceback(call.history) if state == states.RETRY else None,
        root_id=call.root_id,
        parent_id=call.parent_id,
        options=call.options,
        history=call.history,
    )
