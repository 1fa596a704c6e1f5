"""What was sent: one call as a test wants to see it, and a block that collects them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from ..backends.message import Message
from ..client import options_of
from ..conf import settings
from ..result import AsyncResult
from ..serialization import loads
from .broker import callers_broker
from .eager import overridden

if TYPE_CHECKING:
    from ..models import Task as TaskRow


@dataclass(frozen=True, slots=True)
class SentTask:
    """A call that was sent."""

    #: The id by which its sender knows it.
    id: str
    #: The registered name.
    name: str
    #: The arguments as the task will get them: a tuple arrives as a list.
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    priority: int
    #: When it is due, if not at once: the ``eta=`` of the call, or what its ``countdown=`` comes to.
    eta: datetime | None
    #: The same in seconds from the sending.
    countdown: float | None
    #: What the call was given as ``headers=``.
    headers: dict[str, Any]
    #: The other options of the call that are kept with it: ``expires``, ``shadow``, ``ignore_result`` …
    options: dict[str, Any]

    @property
    def result(self) -> AsyncResult[Any]:
        """The handle that the sender got."""
        return AsyncResult(self.id, task_name=self.name)

    def __str__(self) -> str:
        due = "" if self.countdown is None else f", due {self.countdown:g} s after it was sent"
        return f"{self.name}(args={self.args!r}, kwargs={self.kwargs!r}) in queue {self.queue!r}{due}"


def sent_as(message: Message, moment: datetime) -> SentTask:
    """Return a message as a test sees it; it was sent at this moment."""
    options = options_of(message.options)
    task_id = message.custom_id or message.id
    if not options.pop("eta", False):
        return _sent(message, task_id, options, None, None)
    if message.eta is None:
        return _sent(message, task_id, options, moment + timedelta(seconds=message.delay), message.delay)
    return _sent(message, task_id, options, message.eta, max(0.0, (message.eta - moment).total_seconds()))


def waiting_as(row: TaskRow) -> SentTask:
    """Return a row of the to-do list as a test sees it."""
    options = options_of(row.options)
    if not (options.pop("eta", False) or row.retries):
        return _sent(row, row.task_id, options, None, None)
    return _sent(row, row.task_id, options, row.due_at, (row.due_at - row.created_at).total_seconds())


def _sent(
    call: Message | TaskRow, task_id: str, options: dict[str, Any], eta: datetime | None, countdown: float | None
) -> SentTask:
    args, kwargs = loads(call.body, call.encoding, settings.ACCEPT_CONTENT)
    headers: Mapping[str, Any] = options.pop("headers", {})
    return SentTask(
        id=task_id,
        name=call.name,
        args=list(args),
        kwargs=dict(kwargs),
        queue=call.queue,
        priority=call.priority,
        eta=eta,
        countdown=countdown,
        headers=dict(headers),
        options=options,
    )


class _Capture:
    def __init__(self, store: bool) -> None:
        self.store = store
        self.sent: list[SentTask] = []

    def take(self, messages: Sequence[Message], clock: datetime | None) -> None:
        moment = clock or timezone.now()
        self.sent.extend(sent_as(message, moment) for message in messages)


@contextmanager
def captured_tasks(*, store: bool = True) -> Iterator[list[SentTask]]:
    """Collect what is sent within this block, from any thread of this process, in its order, and run nothing.

    Gives a list that grows as calls are sent. They are stored as rows all the same, in the transaction of their sender;
    ``store=False`` drops them, which needs no database, except for a call with a ``task_id`` (it is looked up first).
    Within the block eager mode is off, whatever the settings say. What a rollback takes back was sent, too:
    :func:`~django_tasks.testing.assert_enqueued` asks the rows instead. A call made by ``transaction.on_commit()`` is
    sent when that runs: in a ``TestCase``, within Django's ``captureOnCommitCallbacks(execute=True)``.
    """
    capture = _Capture(store)
    with overridden(TASK_ALWAYS_EAGER=False), callers_broker() as broker:
        broker.captures.append(capture)
        try:
            yield capture.sent
        finally:
            broker.captures.remove(capture)
